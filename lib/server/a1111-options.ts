/** AUTOMATIC1111's txt2img and img2img requests as options of this library. */
import { randomInt } from 'node:crypto'
import { invalidArgument, unsupported } from '../errors.js'
import type { HiresOptions } from '../hires-options.js'
import type { Img2ImgOptions, InpaintOptions } from '../img2img-options.js'
import type { RepaintOptions } from '../repaint-options.js'
import type { Txt2ImgOptions } from '../txt2img-options.js'
import type { VariationOptions } from '../variation.js'
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
  tiling?: boolean | null
  subseed?: number | null
  subseed_strength?: number | null
  seed_resize_from_w?: number | null
  seed_resize_from_h?: number | null
  enable_hr?: boolean | null
  hr_scale?: number | null
  hr_resize_x?: number | null
  hr_resize_y?: number | null
  hr_upscaler?: string | null
  hr_second_pass_steps?: number | null
  hr_sampler_name?: string | null
  hr_scheduler?: string | null
  hr_prompt?: string | null
  hr_negative_prompt?: string | null
  hr_cfg?: number | null
  override_settings?: Record<string, unknown> | null
  send_images?: boolean | null
  init_images?: string[] | null
  denoising_strength?: number | null
  mask?: string | null
  mask_blur?: number | null
  inpainting_fill?: number | null
  inpaint_full_res?: boolean | null
  inpaint_full_res_padding?: number | null
  inpainting_mask_invert?: number | null
  resize_mode?: number | null
  [other: string]: unknown
}

/** What POST /sdapi/v1/options may set for all requests. */
export interface A1111Settings {
  sd_model_checkpoint: string
  CLIP_stop_at_last_layers: number
  randn_source: 'GPU' | 'CPU'
  /** What `progress` shows: a preview every so many steps; −1 for none. */
  show_progress_every_n_steps: number
}

/** Asked for, but nothing here does it: better told than left out. */
const refused: readonly [field: string, off: (value: unknown) => boolean, what: string][] = [
  ['restore_faces', (v) => !v, 'face restoration'],
  ['script_name', (v) => !v, 'scripts'],
  ['refiner_checkpoint', (v) => !v || v === 'None', 'refiner switching']
]

const largest = 16384

/** −1 is a random one; images count up from the first. */
const seedsOf = (name: string, value: number | null | undefined, images: number): number[] => {
  const seed = value ?? -1
  const first = seed === -1 ? randomInt(2 ** 32) : integerIn(name, seed, 0, Number.MAX_SAFE_INTEGER - largest)
  return Array.from({ length: images }, (_, i) => first + i)
}

/** null and undefined alike: the field was not given. */
const given = <T>(value: T | null | undefined): value is T => value !== undefined && value !== null

/** A sampler and a schedule type as one label. */
const labelOf = (sampler: string | null | undefined, schedule: string | null | undefined): string | undefined => {
  if (!given(sampler)) return undefined
  for (const [name, value] of Object.entries({ sampler_name: sampler, scheduler: schedule }))
    if (given(value) && typeof value !== 'string') throw invalidArgument(name, 'a name', value)
  return !given(schedule) || schedule.toLowerCase() === 'automatic' ? sampler : `${sampler} ${schedule}`
}

/** One subseed for each image, as AUTOMATIC1111 counts them up too; resizing of seeds where it is on. */
const variationOf = (r: A1111Request, images: number): VariationOptions => {
  const strength = r.subseed_strength ?? 0
  const width = r.seed_resize_from_w ?? -1
  const height = r.seed_resize_from_h ?? -1
  return {
    ...(strength > 0 ? { subseedStrength: strength, subseed: seedsOf('subseed', r.subseed, images) } : {}),
    ...(width > 0 && height > 0 ? { seedResizeFromWidth: width, seedResizeFromHeight: height } : {}),
    ...(r.tiling ? { tiling: true } : {})
  }
}

const hiresOf = (r: A1111Request): HiresOptions | undefined => {
  if (!r.enable_hr) return undefined
  const width = r.hr_resize_x ?? 0
  const height = r.hr_resize_y ?? 0
  const scheduler = labelOf(r.hr_sampler_name ?? r.sampler_name, r.hr_scheduler ?? r.scheduler)
  return {
    ...(width > 0 ? { width } : {}),
    ...(height > 0 ? { height } : {}),
    ...(width > 0 || height > 0 ? {} : { scale: r.hr_scale ?? 2 }),
    ...(r.hr_upscaler ? { upscaler: r.hr_upscaler } : {}),
    ...(r.hr_second_pass_steps ? { steps: r.hr_second_pass_steps } : {}),
    denoisingStrength: r.denoising_strength ?? 0.75,
    ...(scheduler === undefined ? {} : { scheduler }),
    ...(r.hr_prompt ? { prompt: r.hr_prompt } : {}),
    ...(r.hr_negative_prompt ? { negativePrompt: r.hr_negative_prompt } : {}),
    ...(given(r.hr_cfg) ? { guidanceScale: r.hr_cfg } : {})
  }
}

const contents = ['fill', 'original', 'latentNoise', 'latentNothing'] as const
const resizeModes = ['default', 'crop', 'fill'] as const

/** "Just resize", "crop and resize", "resize and fill"; the fourth would enlarge latents. */
const resizeModeOf = (r: A1111Request): (typeof resizeModes)[number] => {
  const mode = resizeModes[integerIn('resize_mode', r.resize_mode ?? 0, 0, 3)]
  if (!mode) throw unsupported('resize_mode 3 (latent upscale) is not supported; use 0, 1 or 2')
  return mode
}

const repaintOf = (r: A1111Request): RepaintOptions => ({
  maskBlur: r.mask_blur ?? 4,
  invertMask: (r.inpainting_mask_invert ?? 0) !== 0,
  maskedContent: contents[integerIn('inpainting_fill', r.inpainting_fill ?? 0, 0, 3)]!,
  overlay: true,
  ...((r.inpaint_full_res ?? true) ? { paddingMaskCrop: r.inpaint_full_res_padding ?? 0 } : {})
})

/** @throws ERR_ND_INVALID_ARGUMENT, ERR_ND_UNSUPPORTED */
export const paintRequest = (r: A1111Request, settings: A1111Settings, kind: 'txt2img' | 'img2img'): PaintRequest => {
  for (const [field, off, what] of refused)
    if (r[field] !== undefined && !off(r[field])) throw unsupported(`${field}: ${what} is not supported; leave it out`)
  const all = { ...settings, ...(r.override_settings ?? {}) }
  const images = integerIn('batch_size', r.batch_size ?? 1, 1, 64) * integerIn('n_iter', r.n_iter ?? 1, 1, 256)
  const clip = integerIn('CLIP_stop_at_last_layers', all.CLIP_stop_at_last_layers, 1, 12)
  const scheduler = labelOf(r.sampler_name ?? r.sampler_index, r.scheduler)
  const hires = kind === 'txt2img' ? hiresOf(r) : undefined
  const every = Number(all.show_progress_every_n_steps)
  const options: Txt2ImgOptions = {
    ...(every >= 1 ? { preview: { every } } : {}),
    prompt: r.prompt ?? '',
    negativePrompt: r.negative_prompt ?? '',
    promptWeighting: true,
    steps: r.steps ?? 50,
    guidanceScale: r.cfg_scale ?? 7,
    width: r.width ?? 512,
    height: r.height ?? 512,
    count: images,
    seed: seedsOf('seed', r.seed, images),
    rng: all.randn_source === 'CPU' ? 'cpu' : 'cuda',
    ...(clip > 1 ? { clipSkip: clip - 1 } : {}),
    ...variationOf(r, images),
    ...(given(r.eta) ? { eta: r.eta } : {}),
    ...(hires ? { hires } : {}),
    ...(scheduler === undefined ? {} : { scheduler })
  }
  const model = String(all.sd_model_checkpoint)
  if (kind === 'txt2img') return { model, task: 'txt2img', options }
  if (given(r.init_images) && !Array.isArray(r.init_images))
    throw invalidArgument('init_images', 'a list of pictures in base64', r.init_images)
  const pictures = (r.init_images ?? []).map((image, i) => decodeBase64(`init_images[${i}]`, image))
  if (pictures.length === 0) throw invalidArgument('init_images', 'at least one picture in base64', r.init_images)
  const image = pictures.length === 1 ? pictures[0]! : pictures
  const strength = finite('denoising_strength', r.denoising_strength ?? 0.75, 0, 1)
  const resizeMode = resizeModeOf(r)
  if (!given(r.mask)) {
    const img2img: Img2ImgOptions = { ...options, image, strength, resizeMode }
    return { model, task: 'img2img', options: img2img }
  }
  const mask = decodeBase64('mask', r.mask)
  const inpaint: InpaintOptions = { ...options, image, mask, strength, resizeMode, ...repaintOf(r) }
  return { model, task: 'inpaint', options: inpaint }
}
