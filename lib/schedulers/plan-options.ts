/** The arguments of Scheduler.plan() and what diffusers' pipelines do with them before the first step. */
import { invalidArgument } from '../errors.js'
import { roundHalfEven } from './numerics.js'

/**
 * Options of `plan`. What a class's step() does not take (eta for Euler, sChurn for DDIM) is ignored, as diffusers'
 * pipelines do.
 */
export interface PlanOptions {
  /** DDIM: η of the paper, 0 (deterministic) … 1; default 0. TCD: γ; default 0.3. */
  readonly eta?: number | undefined
  /** Karras et al. 2022, algorithm 2: noise put back in each step of Euler. Default 0. */
  readonly sChurn?: number | undefined
  readonly sTmin?: number | undefined
  readonly sTmax?: number | undefined
  readonly sNoise?: number | undefined
  /** img2img, 0 … 1: only the last strength · steps steps run. Default 1. */
  readonly strength?: number | undefined
  /** SDXL: share of the process, 0 … 1, that another model has done; replaces `strength`. */
  readonly denoisingStart?: number | undefined
  /** SDXL: stop here, 0 … 1, and leave the rest to the refiner. */
  readonly denoisingEnd?: number | undefined
  /** The timesteps themselves, falling, where the class takes them. */
  readonly timesteps?: readonly number[] | undefined
  /** The noise levels themselves, where the class takes them (Euler: with the final one). */
  readonly sigmas?: readonly number[] | undefined
  /** Inpainting with a 4-channel UNet: each row puts the original back outside the mask, at the next row's noise level. */
  readonly blend?: boolean | undefined
  /** LMS: largest order, 1 … 7; default 4. */
  readonly order?: number | undefined
  /** DDIM: compute ε from the clipped x₀ (GLIDE). */
  readonly useClippedModelOutput?: boolean | undefined
  /** LCM, TCD: steps of the distilled schedule; replaces the config's. */
  readonly originalInferenceSteps?: number | undefined
  /** LCM, TCD: share of the distilled schedule that steps are chosen from, as LatentConsistencyModelImg2ImgPipeline asks. */
  readonly scheduleStrength?: number | undefined
  /** unCLIP: 'adjacent' steps to t − 1, as step() by itself does; 'next' to the next timestep, as UnCLIPPipeline asks. */
  readonly previousTimestep?: 'adjacent' | 'next' | undefined
  /** Flow matching with dynamic shifting: μ of the resolution. */
  readonly mu?: number | undefined
}

type Check = readonly [expected: string, ok: (v: unknown) => boolean]
const real = (low: number, high: number): Check => [
  low === -Infinity
    ? 'a finite number'
    : high === Infinity
      ? `a number of at least ${low}`
      : `a number from ${low} to ${high}`,
  (v) => typeof v === 'number' && !Number.isNaN(v) && v >= low && v <= high
]
const list: Check = [
  'a list of at least one finite number',
  (v) =>
    (Array.isArray(v) || ArrayBuffer.isView(v)) &&
    (v as readonly number[]).length > 0 &&
    Array.from(v as readonly number[]).every((x) => Number.isFinite(x))
]
const yesNo: Check = ['a boolean', (v) => typeof v === 'boolean']
const count: Check = ['an integer of at least 1', (v) => Number.isSafeInteger(v) && (v as number) >= 1]

const checks: Record<keyof PlanOptions, Check> = {
  eta: real(0, Infinity),
  sChurn: real(0, Infinity),
  sTmin: real(0, Infinity),
  sTmax: real(0, Infinity),
  sNoise: real(0, Infinity),
  strength: real(0, 1),
  denoisingStart: real(0, 1),
  denoisingEnd: real(0, 1),
  timesteps: list,
  sigmas: list,
  blend: yesNo,
  order: ['an integer from 1 to 7', (v) => Number.isSafeInteger(v) && (v as number) >= 1 && (v as number) <= 7],
  useClippedModelOutput: yesNo,
  originalInferenceSteps: count,
  scheduleStrength: real(0, 1),
  previousTimestep: ["'adjacent' or 'next'", (v) => v === 'adjacent' || v === 'next'],
  mu: ['a finite number', (v) => Number.isFinite(v)]
}

export const checkPlanOptions = (className: string, options: PlanOptions): void => {
  if (typeof options !== 'object' || options === null)
    throw invalidArgument(`the plan options of ${className}`, 'an object', options)
  for (const [name, value] of Object.entries(options)) {
    if (!Object.hasOwn(checks, name))
      throw invalidArgument(
        `the plan options of ${className}`,
        `only the names ${Object.keys(checks).join(', ')}`,
        name
      )
    const [expected, ok] = checks[name as keyof PlanOptions]
    if (value !== undefined && !ok(value)) throw invalidArgument(name, expected, value)
  }
}

export const checkSteps = (steps: number, most = Infinity): void => {
  if (!Number.isSafeInteger(steps) || steps < 1 || steps > most)
    throw invalidArgument(
      'steps',
      most === Infinity ? 'an integer of at least 1' : `an integer from 1 to ${most} (numTrainTimesteps)`,
      steps
    )
}

/** Timesteps must fall; for the classes whose set_timesteps insists on it. */
export const checkFalling = (timesteps: readonly number[], below: number): void => {
  timesteps.forEach((t, i) => {
    if (!Number.isInteger(t) || t < 0 || t >= below || (i > 0 && t >= timesteps[i - 1]!))
      throw invalidArgument('timesteps', `falling integers below ${below}`, timesteps)
  })
}

/** For the classes whose set_timesteps takes only a number of steps. */
export const refuseCustom = (
  className: string,
  options: PlanOptions,
  ...names: readonly ('timesteps' | 'sigmas')[]
): void => {
  for (const name of names)
    if (options[name]) throw invalidArgument(name, `no custom ${name} (${className} computes its own)`, options[name])
}

/**
 * Which rows run: img2img's get_timesteps (strength), SDXL's denoising_start and denoising_end. `order` is the number of
 * rows per step.
 */
export const rowRange = (
  timesteps: readonly number[],
  steps: number,
  order: number,
  numTrain: number,
  options: PlanOptions
): readonly [begin: number, end: number] => {
  const cutoff = (share: number): number => roundHalfEven(numTrain - share * numTrain)
  const { strength = 1, denoisingStart, denoisingEnd } = options
  let begin: number
  if (denoisingStart !== undefined) {
    let left = timesteps.filter((t) => t < cutoff(denoisingStart)).length
    // the cut may fall between the two rows of a second-order step: begin with a whole step
    if (order === 2 && left % 2 === 0) left++
    begin = Math.max(timesteps.length - left, 0)
  } else {
    const kept = Math.floor(steps * strength)
    begin = kept < 1 ? timesteps.length : (steps - kept) * order
  }
  let end = timesteps.length
  if (denoisingEnd !== undefined) end = begin + timesteps.slice(begin).filter((t) => t >= cutoff(denoisingEnd)).length
  if (end <= begin) {
    const name =
      denoisingEnd !== undefined ? 'denoisingEnd' : denoisingStart !== undefined ? 'denoisingStart' : 'strength'
    throw invalidArgument(name, `a value that leaves at least one of ${steps} steps`, options[name] ?? strength)
  }
  return [begin, end]
}
