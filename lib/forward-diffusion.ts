/** The forward process: a picture's latents at growing amounts of noise, as training sees them. */
import { translating, type NativeSession } from './binding.js'
import { invalidArgument } from './errors.js'
import { loadImage, type DiffusionImage, type ImageInput } from './image.js'
import { latentsOf, type LatentScaling } from './models/vae.js'
import { createScheduler, type Scheduler } from './schedulers/index.js'
import type { Tensor } from './tensor.js'
import { splitPictures } from './run-job.js'
import { Generator } from './txt2img.js'
import { integerIn, knownKeys, oneOf, seedOf } from './validate.js'

/** Options of Pipeline.addNoise. */
export interface AddNoiseOptions {
  image: ImageInput
  /** How many noise levels, evenly over the trained timesteps up to the last; default 8. */
  steps?: number
  /** The timesteps themselves, in any order: integers from 0 to the number that the scheduler was trained with, less 1. */
  timesteps?: readonly number[]
  /** Whose noise levels: an instance, a diffusers class name or an AUTOMATIC1111 label. Default: the pipeline's. */
  scheduler?: Scheduler | string
  /** Of the noise, one for all levels; default 0. */
  seed?: number | bigint
  rng?: 'cpu' | 'cuda'
  /** In pixels; default: the picture's own size, rounded down to whole latents. */
  width?: number
  height?: number
}

/** What Pipeline.addNoise gives: a picture per amount of noise. */
export interface AddNoiseResult {
  /** Per level, the decoded latents, at the variance that the model gets to see (sigma-based schedulers: x/√(σ² + 1)). */
  readonly images: readonly DiffusionImage[]
  /** The picture through the autoencoder and back. */
  readonly original: DiffusionImage
  readonly timesteps: readonly number[]
  /** Per level [α, σ]: latents = α·clean + σ·noise. */
  readonly levels: readonly (readonly [alpha: number, sigma: number])[]
  /** [levels, channels, h, w]: scheduler.addNoise(clean, noise, timestep). */
  readonly latents: Tensor
  /** The picture's latents [1, channels, h, w]: the posterior's mean, scaled. */
  readonly clean: Tensor
  /** Standard normal, [1, channels, h, w]. */
  readonly noise: Tensor
}

const known: readonly (keyof AddNoiseOptions)[] = [
  'image',
  'steps',
  'timesteps',
  'scheduler',
  'seed',
  'rng',
  'width',
  'height'
]

/** What it needs of the pipeline. */
interface Parts {
  readonly session: NativeSession
  readonly scheduler: Scheduler
  readonly vae: LatentScaling
  readonly factor: number
}

/** `count` of the values, evenly spaced, the last one among them; all where there are no more. */
const spread = (values: readonly number[], count: number): number[] =>
  values.length <= count
    ? [...values]
    : Array.from({ length: count }, (_, k) => values[Math.round(((k + 1) * values.length) / count) - 1]!)

const side = (name: string, value: number | undefined, own: number, factor: number): number => {
  if (value === undefined) {
    if (own < factor) throw invalidArgument('image', `at least ${factor} × ${factor} pixels`, own)
    return Math.floor(own / factor)
  }
  const n = integerIn(name, value, factor, 8192)
  if (n % factor !== 0) throw invalidArgument(name, `a multiple of ${factor}`, value)
  return n / factor
}

/** Picks the levels, encodes, adds the noise and decodes. */
export const addNoise = async (o: AddNoiseOptions, parts: Parts): Promise<AddNoiseResult> => {
  knownKeys('addNoise', o, known)
  const { session, vae, factor } = parts
  // An unplanned copy knows every trained timestep, and the caller's keeps its plan.
  const asked = o.scheduler ?? parts.scheduler
  const scheduler =
    typeof asked === 'string'
      ? createScheduler(asked, parts.scheduler.toJSON())
      : createScheduler(asked.className, asked.toJSON())
  if (o.timesteps !== undefined && o.steps !== undefined)
    throw invalidArgument('timesteps', 'timesteps or steps, not both', o.timesteps)
  if (o.timesteps !== undefined && (!Array.isArray(o.timesteps) || o.timesteps.length === 0))
    throw invalidArgument('timesteps', 'a list of at least one timestep', o.timesteps)
  const trained = [...scheduler.timesteps].sort((a, b) => a - b)
  const timesteps: readonly number[] = o.timesteps ?? spread(trained, integerIn('steps', o.steps ?? 8, 1, 1000))
  for (const t of timesteps)
    if (!Number.isInteger(t) || t < 0 || t > trained.at(-1)!)
      throw invalidArgument('timesteps', `integers from 0 to ${trained.at(-1)!}`, t)
  const levels = timesteps.map((t) => scheduler.noiseLevel(t))
  const generator = new Generator(
    seedOf('seed', o.seed ?? 0),
    oneOf<'cpu' | 'cuda'>('rng', o.rng ?? 'cpu', ['cpu', 'cuda'])
  )

  const picture = await loadImage(o.image)
  const h = side('height', o.height, picture.height, factor)
  const w = side('width', o.width, picture.width, factor)
  const moments = await translating(session.encodePictures([picture], h, w))
  const shape = [1, vae.latentChannels, h, w]
  const each = vae.latentChannels * h * w
  const clean: Tensor = { data: latentsOf(vae, moments.data.subarray(0, each)), shape }
  const noise = generator.randn(shape)

  const latents = new Float32Array(timesteps.length * each)
  const seen = new Float32Array((timesteps.length + 1) * each)
  seen.set(clean.data)
  levels.forEach(([alpha, sigma], k) => {
    const norm = Math.max(1, Math.hypot(alpha, sigma))
    for (let i = 0; i < each; i++) {
      const value = alpha * clean.data[i]! + sigma * noise.data[i]!
      latents[k * each + i] = value
      seen[(k + 1) * each + i] = value / norm
    }
  })
  const decoded = await translating(
    session.decodePictures({ data: seen, shape: [timesteps.length + 1, ...shape.slice(1)] })
  )
  const [original, ...images] = splitPictures(decoded.pixels, decoded.width, decoded.height)
  return {
    images,
    original: original!,
    timesteps,
    levels,
    latents: { data: latents, shape: [timesteps.length, ...shape.slice(1)] },
    clean,
    noise
  }
}
