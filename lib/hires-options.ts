/** The options of the second pass (hires): meaning, defaults and checks. */
import { invalidArgument } from './errors.js'
import type { Interpolation } from './interpolate.js'
import type { Scheduler } from './schedulers/index.js'
import { finite, integerIn, knownKeys } from './validate.js'

/** Latents are interpolated (torch's modes), or the decoded picture is resized and encoded again. */
export const upscalers = {
  latent: { label: 'Latent', latent: { mode: 'bilinear' } },
  latentAntialiased: { label: 'Latent (antialiased)', latent: { mode: 'bilinear', antialias: true } },
  latentBicubic: { label: 'Latent (bicubic)', latent: { mode: 'bicubic' } },
  latentBicubicAntialiased: { label: 'Latent (bicubic antialiased)', latent: { mode: 'bicubic', antialias: true } },
  latentNearest: { label: 'Latent (nearest)', latent: { mode: 'nearest' } },
  latentNearestExact: { label: 'Latent (nearest-exact)', latent: { mode: 'nearestExact' } },
  lanczos: { label: 'Lanczos', latent: undefined },
  nearest: { label: 'Nearest', latent: undefined }
} as const satisfies Record<string, { label: string; latent: Interpolation | undefined }>

/** What enlarges between the passes of hires: latents, or the decoded picture ('lanczos', 'nearest'). */
export type HiresUpscaler = keyof typeof upscalers

/** A second pass over an enlarged picture: the option `hires` of txt2img. */
export interface HiresOptions {
  /** Of width and height, at least 1; default 2. Or the size itself: */
  scale?: number
  /** In pixels, multiples of 8; with one alone the other follows, with both the picture covers them and is cut. */
  width?: number
  height?: number
  /** Default 'latent' (bilinear); AUTOMATIC1111's names will do, too ("Latent (bicubic)"). */
  upscaler?: HiresUpscaler | (string & {})
  /** Steps of the second pass, all of which run; default: as many as the first one's. */
  steps?: number
  /** How much the second pass changes, 0..1; default 0.75. */
  denoisingStrength?: number
  /** Of the second pass; default: the first one's. */
  scheduler?: Scheduler | string
  prompt?: string | readonly string[]
  negativePrompt?: string | readonly string[]
  guidanceScale?: number
}

const known: readonly (keyof HiresOptions)[] = [
  'scale',
  'width',
  'height',
  'upscaler',
  'steps',
  'denoisingStrength',
  'scheduler',
  'prompt',
  'negativePrompt',
  'guidanceScale'
]

export interface Size {
  readonly width: number
  readonly height: number
}

export interface ResolvedHires extends Omit<HiresOptions, 'upscaler'> {
  readonly upscaler: HiresUpscaler
  readonly steps: number
  readonly denoisingStrength: number
  /** Of the result. */
  readonly size: Size
  /** What is enlarged to before it is cut to `size`. */
  readonly cover: Size
}

const upscalerOf = (value: unknown): HiresUpscaler => {
  if (typeof value === 'string') {
    if (Object.hasOwn(upscalers, value)) return value as HiresUpscaler
    for (const [name, { label }] of Object.entries(upscalers))
      if (label.toLowerCase() === value.toLowerCase()) return name as HiresUpscaler
  }
  throw invalidArgument('hires.upscaler', Object.keys(upscalers).join(', '), value)
}

/** @param multiple that sizes must be multiples of */
export const resolveHires = (
  h: HiresOptions,
  first: Size & { readonly steps: number },
  multiple: number
): ResolvedHires => {
  if (typeof h !== 'object' || h === null) throw invalidArgument('hires', 'an object', h)
  knownKeys('hires', h, known)
  if (h.scale !== undefined && (h.width !== undefined || h.height !== undefined))
    throw invalidArgument('hires.scale', 'scale, or width and height, not both', h.scale)
  const whole = (n: number): number => Math.floor(n / multiple) * multiple
  const side = (name: string, value: number): number => {
    integerIn(name, value, multiple, 8192)
    if (value % multiple) throw invalidArgument(name, `a multiple of ${multiple}`, value)
    return value
  }
  const { width: w, height: t } = first
  let size: Size
  let cover: Size
  if (h.width === undefined && h.height === undefined) {
    const scale = finite('hires.scale', h.scale ?? 2, 1, 16)
    cover = size = { width: whole(w * scale), height: whole(t * scale) }
  } else {
    const width = h.width === undefined ? undefined : side('hires.width', h.width)
    const height = h.height === undefined ? undefined : side('hires.height', h.height)
    // The size that fills the one side asked for, or both.
    const wider = height === undefined || (width !== undefined && w / t < width / height)
    const other = wider ? (width! * t) / w : (height * w) / t
    cover = wider ? { width: width!, height: whole(other) } : { width: whole(other), height: height }
    size = { width: width ?? cover.width, height: height ?? cover.height }
    cover = { width: Math.max(cover.width, size.width), height: Math.max(cover.height, size.height) }
  }
  return {
    ...h,
    upscaler: upscalerOf(h.upscaler ?? 'latent'),
    steps: integerIn('hires.steps', h.steps ?? first.steps, 1, 1000),
    denoisingStrength: finite('hires.denoisingStrength', h.denoisingStrength ?? 0.75, 0, 1),
    size,
    cover
  }
}

const firstText = (text: string | readonly string[]): string => (typeof text === 'string' ? text : (text[0] ?? ''))

/** AUTOMATIC1111's fields of a picture painted in two passes. */
export const hiresFields = (firstSteps: number, h: ResolvedHires, secondSampler: string): Record<string, string> => ({
  'Denoising strength': String(h.denoisingStrength),
  ...(h.width === undefined && h.height === undefined
    ? { 'Hires upscale': String(h.scale ?? 2) }
    : { 'Hires resize': `${h.width ?? 0}x${h.height ?? 0}` }),
  ...(h.steps === firstSteps ? {} : { 'Hires steps': String(h.steps) }),
  'Hires upscaler': upscalers[h.upscaler].label,
  ...(h.scheduler === undefined ? {} : { 'Hires sampler': secondSampler }),
  ...(h.guidanceScale === undefined ? {} : { 'Hires CFG Scale': String(h.guidanceScale) }),
  ...(h.prompt === undefined ? {} : { 'Hires prompt': firstText(h.prompt) }),
  ...(h.negativePrompt === undefined ? {} : { 'Hires negative prompt': firstText(h.negativePrompt) })
})
