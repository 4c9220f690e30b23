/** AUTOMATIC1111's txt2img and img2img requests as options of this library. */
import { randomInt } from 'node:crypto'
import { invalidArgument, unsupported } from '../errors.js'
import type { Img2ImgOptions, InpaintOptions } from '../img2img-options.js'
import type { Txt2ImgOptions } from '../txt2img-options.js'
import { finite, integerIn } from '../validate.js'
import { decodeBase64 } from './http.js'
import type { PaintRequest } from './painter.js'

/** Fields of modules/api/models.py that are read; others are ignored, as there. null means not given. */
export interface A1111Request {
  prompt?: string | null
  negative_prompt?: string | null
  seed?: number | null
  sampler_name?: string | null
  sampler_index?: string | null
  scheduler?: string | null
  batch_size?: number | null
  n_iter?: number | null
  steps?: number | null
  cfg_scale?: number | null
  width?: number | null
  height?: number | null
  eta?: number | null
  override_settings?: Record<string, unknown> | null
  send_images?: boolean | null
  init_images?: string[] | null
  denoising_strength?: number | null
  mask?: string | null
  inpainting_mask_invert?: number | null
  image_cfg_scale?: number | null
  [other: string]: unknown
}

/** What POST /sdapi/v1/options may set for all requests. */
export interface A1111Settings {
  sd_model_checkpoint: string
  CLIP_stop_at_last_layers: number
  randn_source: 'GPU' | 'CPU'
}

/** Asked for, but nothing here does it: better told than left out. */
const refused: readonly [field: string, off: (value: unknown) => boolean, what: string][] = [
  ['restore_faces', (v) => !v, 'face restoration'],
  ['script_name', (v) => !v, 'scripts'],
  ['refiner_checkpoint', (v) => !v || v === 'None', 'refiner switching']
]

const largest = 16384

const seedsOf = (r: A1111Request, images: number): number[] => {
  const seed = r.seed ?? -1
  const first = seed === -1 ? randomInt(2 ** 32) : integerIn('seed', seed, 0, Number.MAX_SAFE_INTEGER - largest)
  return Array.from({ length: images }, (_, i) => first + i)
}

const schedulerOf = (r: A1111Request): string | undefined => {
  const sampler = r.sampler_name ?? r.sampler_index ?? undefined
  if (sampler === undefined) return undefined
  const schedule = r.scheduler ?? 'Automatic'
  return schedule.toLowerCase() === 'automatic' ? sampler : `${sampler} ${schedule}`
}

/** @throws ERR_ND_INVALID_ARGUMENT, ERR_ND_UNSUPPORTED */
export const paintRequest = (r: A1111Request, settings: A1111Settings, kind: 'txt2img' | 'img2img'): PaintRequest => {
  for (const [field, off, what] of refused)
    if (r[field] !== undefined && !off(r[field])) throw unsupported(`${field}: ${what} is not supported; leave it out`)
  const all = { ...settings, ...(r.override_settings ?? {}) }
  const images = integerIn('batch_size', r.batch_size ?? 1, 1, 64) * integerIn('n_iter', r.n_iter ?? 1, 1, 256)
  const clip = integerIn('CLIP_stop_at_last_layers', all.CLIP_stop_at_last_layers, 1, 12)
  const scheduler = schedulerOf(r)
  const options: Txt2ImgOptions = {
    prompt: r.prompt ?? '',
    negativePrompt: r.negative_prompt ?? '',
    promptWeighting: true,
    steps: r.steps ?? 50,
    guidanceScale: r.cfg_scale ?? 7,
    width: r.width ?? 512,
    height: r.height ?? 512,
    count: images,
    seed: seedsOf(r, images),
    rng: all.randn_source === 'CPU' ? 'cpu' : 'cuda',
    ...(clip > 1 ? { clipSkip: clip - 1 } : {}),
    ...(r.eta === undefined || r.eta === null ? {} : { eta: r.eta }),
    ...(scheduler === undefined ? {} : { scheduler })
  }
  const model = all.sd_model_checkpoint
  if (kind === 'txt2img') return { model, task: 'txt2img', options }
  const pictures = (r.init_images ?? []).map((image, i) => decodeBase64(`init_images[${i}]`, image))
  if (pictures.length === 0) throw invalidArgument('init_images', 'at least one picture in base64', r.init_images)
  const image = pictures.length === 1 ? pictures[0]! : pictures
  const strength = finite('denoising_strength', r.denoising_strength ?? 0.75, 0, 1)
  if (r.mask === undefined || r.mask === null) {
    const img2img: Img2ImgOptions = { ...options, image, strength }
    return { model, task: 'img2img', options: img2img }
  }
  const inpaint: InpaintOptions = { ...options, image, mask: decodeBase64('mask', r.mask), strength }
  return { model, task: 'inpaint', options: inpaint }
}
