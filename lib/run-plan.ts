/** The native step loop around a model of your own: any function from latents to a prediction. */
import { native, translatingSync } from './binding.js'
import { invalidArgument } from './errors.js'
import type { StepPlan } from './step-plan.js'
import { checkTensor, type Tensor } from './tensor.js'
import { seedOf } from './validate.js'

/** Options of runPlan(). */
export interface RunPlanOptions {
  /** Latents' shape [B, C, H, W]. */
  shape: readonly [number, number, number, number]
  /** One for the batch, or one per image; default 0. */
  seed?: number | bigint | readonly (number | bigint)[]
  rng?: 'cpu' | 'cuda'
  /** Initial noise instead of a draw. */
  latents?: Tensor
  /** x before the first row; default initNoiseSigma · initial noise. */
  start?: Tensor
  /** Clean latents, for plans that use `orig`. */
  original?: Tensor
  /** [B, 1, H, W], 1 where repainted, for plans that blend. */
  mask?: Tensor
  /** After each row: latents and predicted original. */
  onRow?: (x: Float32Array, predictedOriginal: Float32Array) => void
}

/**
 * Executes a step plan. `predict` gets x · inputScale, the row's timestep and its number, and returns the model's
 * output, with as many values. Runs on the calling thread.
 */
export const runPlan = (
  plan: StepPlan,
  options: RunPlanOptions,
  predict: (input: Float32Array, timestep: number, row: number) => Float32Array
): Tensor => {
  const { shape } = options
  if (!Array.isArray(shape) || shape.length !== 4) throw invalidArgument('shape', 'four dimensions [B, C, H, W]', shape)
  const given = options.seed ?? 0
  const seeds = Array.isArray(given) ? given.map((s, i) => seedOf(`seed[${i}]`, s)) : [seedOf('seed', given)]
  const data = (name: 'latents' | 'start' | 'original'): Float32Array | undefined =>
    options[name] && checkTensor(name, options[name], shape).data
  const result = translatingSync(() =>
    native().runPlan(
      plan,
      {
        shape,
        seeds,
        rng: options.rng ?? 'cpu',
        initial: data('latents'),
        start: data('start'),
        original: data('original'),
        mask: options.mask && checkTensor('mask', options.mask, [shape[0], 1, shape[2], shape[3]]).data,
        branches: 1,
        guidanceRescale: 0,
        ...(plan.rows.some((row) => row.learnedRange) ? { outputChannels: 2 * shape[1] } : {})
      },
      predict,
      options.onRow
    )
  )
  return { data: result, shape }
}
