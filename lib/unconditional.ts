/** Diffusion in pixel space without a condition: diffusers' DDPMPipeline and DDIMPipeline. */
import { version, type NativeSession } from './binding.js'
import { invalidArgument } from './errors.js'
import { formatParameters } from './infotext.js'
import type { UNet2dConfig } from './models/unet2d.js'
import { runJob, splitPictures } from './run-job.js'
import { createScheduler, type Scheduler } from './schedulers/index.js'
import { checkTensor } from './tensor.js'
import type { GenerationResult } from './txt2img.js'
import type { PreviewOptions, Txt2ImgOptions } from './txt2img-options.js'
import { bool, finite, integerIn, knownKeys, oneOf, seedOf } from './validate.js'

/** diffusers' arguments in camelCase (num_inference_steps is `steps`, batch_size is `count`, generator is `seed`). */
export interface UnconditionalOptions extends Pick<
  Txt2ImgOptions,
  'timesteps' | 'scheduler' | 'rng' | 'outputType' | 'signal' | 'stepLatents' | 'onStep'
> {
  /** Model evaluations that count, 1..1000; default 1000 for DDPMPipeline, 50 for DDIMPipeline. */
  steps?: number
  /** Pictures; default 1. */
  count?: number
  /** One seed is one generator continued over all pictures; an array has one generator per picture. Default: a random one. */
  seed?: number | bigint | readonly (number | bigint)[]
  /** DDIM's η, 0..1. Schedulers without it ignore it, as in diffusers. */
  eta?: number
  /** In pixels, multiples of 2^(levels − 1); default: what the model was trained on. */
  width?: number
  height?: number
  /** The initial noise [count, channels, height, width] instead of a draw. */
  latents?: Txt2ImgOptions['latents']
  /** The predicted original after every step, or every n. */
  preview?: boolean | Pick<PreviewOptions, 'every'>
}

const known: readonly (keyof UnconditionalOptions)[] = [
  'timesteps',
  'scheduler',
  'rng',
  'outputType',
  'signal',
  'stepLatents',
  'onStep',
  'steps',
  'count',
  'seed',
  'eta',
  'width',
  'height',
  'latents',
  'preview'
]

/** What a call needs of its pipeline. */
export interface UnconditionalModel {
  readonly session: NativeSession
  readonly scheduler: Scheduler
  readonly config: UNet2dConfig
  readonly defaultSteps: number
  /** For the pictures' `parameters` text. */
  readonly name: string
}

const sizeOf = (o: UnconditionalOptions, { config }: UnconditionalModel): { width: number; height: number } => {
  const multiple = 2 ** (config.levels.length - 1)
  const side = (name: 'width' | 'height'): number => {
    const value = o[name] ?? config.sampleSize?.[name]
    if (value === undefined)
      throw invalidArgument(name, 'a size, as the model (sample_size) does not say its own,', value)
    if (integerIn(name, value, multiple, 8192) % multiple !== 0)
      throw invalidArgument(name, `a multiple of ${multiple}`, value)
    return value
  }
  return { width: side('width'), height: side('height') }
}

const plainSeed = (seed: bigint): number | bigint => (seed <= Number.MAX_SAFE_INTEGER ? Number(seed) : seed)

export const unconditional = async (o: UnconditionalOptions, model: UnconditionalModel): Promise<GenerationResult> => {
  const started = performance.now()
  if (typeof o !== 'object' || o === null) throw invalidArgument('options', 'an object', o)
  knownKeys('unconditional', o, known)
  if (o.signal !== undefined && !(o.signal instanceof AbortSignal))
    throw invalidArgument('signal', 'an AbortSignal', o.signal)
  o.signal?.throwIfAborted()
  if (o.onStep !== undefined && typeof o.onStep !== 'function') throw invalidArgument('onStep', 'a function', o.onStep)
  const size = sizeOf(o, model)
  const count = integerIn('count', o.count ?? 1, 1, 1024)
  const given = o.seed ?? BigInt(Math.floor(Math.random() * 2 ** 32))
  const seeds = Array.isArray(given) ? given.map((s, i) => seedOf(`seed[${i}]`, s)) : [seedOf('seed', given)]
  if (Array.isArray(given) && seeds.length !== count)
    throw invalidArgument('seed', `one seed or one per picture (${count})`, given)
  const list = o.timesteps
  if (list && (!Array.isArray(list) || list.length === 0 || !list.every((v) => Number.isFinite(v))))
    throw invalidArgument('timesteps', 'an array of finite numbers', list)
  const steps = list ? list.length : integerIn('steps', o.steps ?? model.defaultSteps, 1, 1000)
  if (o.eta !== undefined) finite('eta', o.eta, 0, 1)
  if (o.latents) checkTensor('latents', o.latents, [count, model.config.inChannels, size.height, size.width])
  const outputType = oneOf('outputType', o.outputType ?? 'image', ['image', 'latent'])
  if (typeof o.preview === 'object') knownKeys('preview', o.preview, ['every'])
  const scheduler =
    typeof o.scheduler === 'string'
      ? createScheduler(o.scheduler, model.scheduler.toJSON())
      : (o.scheduler ?? model.scheduler)
  const warnings = scheduler === model.scheduler ? [] : [...scheduler.warnings]
  const plan = scheduler.plan(steps, { eta: o.eta ?? 0, ...(list ? { timesteps: list } : {}) })

  const result = await runJob({ ...size, signal: o.signal, onStep: o.onStep }, (onStep) =>
    model.session.unconditional(
      {
        batch: count,
        ...size,
        plan,
        seeds,
        rng: oneOf<'cpu' | 'cuda'>('rng', o.rng ?? 'cpu', ['cpu', 'cuda']),
        latents: o.latents?.data,
        decode: outputType === 'image',
        stepLatents: bool('stepLatents', o.stepLatents ?? false),
        previewEvery:
          typeof o.preview === 'object'
            ? integerIn('preview.every', o.preview.every ?? 1, 1, 1000)
            : Number(bool('preview', o.preview ?? false))
      },
      onStep
    )
  )
  // Only the first picture of one generator can be drawn alone, and only where nothing is drawn on the way.
  const draws = plan.rows.some((row) => row.draws > 0)
  const repaints = (i: number): bigint | undefined =>
    Array.isArray(given) ? seeds[i] : i === 0 && (!draws || count === 1) && !o.latents ? seeds[0] : undefined
  const own = Array.from({ length: count }, (_, i) => repaints(i))
  const images = outputType === 'latent' ? [] : splitPictures(result.pixels, size.width, size.height)
  const { sampler, scheduleType } = scheduler.label
  images.forEach((image, i) => {
    image.parameters = formatParameters({
      prompt: '',
      steps,
      sampler,
      ...(scheduleType ? { scheduleType } : {}),
      seed: own[i] ?? seeds[0]!,
      ...size,
      model: model.name,
      version: `node-diffusion ${version()}`,
      ...(own[i] === undefined ? { other: { 'Batch size': String(count), 'Batch pos': String(i) } } : {})
    })
  })
  return {
    images,
    latents: result.latents,
    seeds: own.map((seed) => (seed === undefined ? null : plainSeed(seed))),
    warnings,
    timings: { ...result.timings, total: (performance.now() - started) / 1000 }
  }
}
