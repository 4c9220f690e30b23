/** Euler's method on rectified flow, x = (1 − σ)·x₀ + σ·ε (Esser et al. 2024, Stable Diffusion 3). diffusers: FlowMatchEulerDiscreteScheduler. */
import { invalidArgument } from '../errors.js'
import { stretchToTerminal, timeShift } from './flow-shift.js'
import { f32, linspace } from './numerics.js'
import { choice, flag, integer, maybe, number, positive, type ConfigOf, type Schema } from './options.js'
import type { PlanOptions } from './plan-options.js'
import { write, type RowSpec } from './plan-rows.js'
import { convertToOriginal } from './prediction.js'
import { requireRow, Scheduler, type Schedule } from './scheduler.js'
import { checkSigmaSchedule, scheduledSigmas, sigmaScheduleOptions } from './sigmas.js'

export const flowMatchEulerDiscreteOptions = {
  numTrainTimesteps: integer(1000, 1),
  /** σ becomes shift·σ/(1 + (shift − 1)·σ): more steps at high noise for larger pictures. */
  shift: positive(1),
  /** Shift by the plan option `mu` instead. */
  useDynamicShifting: flag(false),
  /** The pipelines that compute μ use these four; the schedule does not. */
  baseShift: number(0.5),
  maxShift: number(1.15),
  baseImageSeqLen: integer(256),
  maxImageSeqLen: integer(4096),
  invertSigmas: flag(false),
  shiftTerminal: maybe(number(0)),
  ...sigmaScheduleOptions,
  timeShiftType: choice('exponential', ['exponential', 'linear']),
  /** Noise anew in every step instead of following the flow. */
  stochasticSampling: flag(false)
}
/** Options of FlowMatchEulerDiscreteScheduler, with diffusers' names and defaults. */
export type FlowMatchEulerDiscreteConfig = ConfigOf<typeof flowMatchEulerDiscreteOptions>

export interface FlowSchedule extends Schedule {
  readonly sigmas: readonly number[]
}

export const shifted = (shift: number, sigma: number): number => (shift * sigma) / (1 + (shift - 1) * sigma)

/** The training sigmas and the noise levels of both flow-matching classes. */
export abstract class FlowMatchScheduler<S extends Schema> extends Scheduler<S, FlowSchedule> {
  /** σ of the training timesteps, falling. diffusers shifts here and once more for the steps, except with dynamic shifting. */
  protected trainingFlow(): number[] {
    const {
      numTrainTimesteps: T,
      shift,
      useDynamicShifting
    } = this.config as unknown as {
      numTrainTimesteps: number
      shift: number
      useDynamicShifting?: boolean
    }
    return Array.from({ length: T }, (_, i) => f32((T - i) / T)).map((s) =>
      useDynamicShifting ? s : f32(shifted(shift, s))
    )
  }
  /** Evenly spaced timesteps between the ends of the training, as σ. */
  protected evenSigmas(steps: number): number[] {
    const all = this.trainingFlow()
    const T = all.length
    return linspace(all[0]! * T, all[T - 1]! * T, steps).map((t) => t / T)
  }

  protected levelAt({ sigmas }: FlowSchedule, index: number): readonly [number, number] {
    return [1 - sigmas[index]!, sigmas[index]!]
  }
  protected levelOf(schedule: FlowSchedule, timestep: number): readonly [number, number] {
    return this.levelAt(schedule, requireRow(schedule.timesteps, timestep))
  }
  protected training(): FlowSchedule {
    const sigmas = this.trainingFlow()
    return { timesteps: sigmas.map((s) => f32(s * sigmas.length)), sigmas: [...sigmas, 0] }
  }
}

/**
 * diffusers' FlowMatchEulerDiscreteScheduler as a step plan.
 * @throws DiffusionError ERR_ND_INVALID_ARGUMENT for options that are unknown or out of range
 */
export class FlowMatchEulerDiscreteScheduler extends FlowMatchScheduler<typeof flowMatchEulerDiscreteOptions> {
  static override readonly className = 'FlowMatchEulerDiscreteScheduler'
  static override readonly options = flowMatchEulerDiscreteOptions

  constructor(config: FlowMatchEulerDiscreteConfig = {}) {
    super(config)
    checkSigmaSchedule(this.className, this.config)
  }

  protected schedule(steps: number, options: PlanOptions): FlowSchedule {
    const { config } = this
    const T = config.numTrainTimesteps
    const { timesteps: custom, sigmas: given, mu } = options
    if (custom && given && custom.length !== given.length)
      throw invalidArgument('sigmas', `${custom.length} values, as many as timesteps`, given)
    if (config.useDynamicShifting && mu === undefined)
      throw invalidArgument('mu', 'a number (useDynamicShifting is set)', mu)
    let sigmas = given?.map(f32) ?? custom?.map((t) => f32(f32(t) / T)) ?? this.evenSigmas(steps)
    sigmas = sigmas.map((s) =>
      config.useDynamicShifting ? timeShift(config.timeShiftType, mu!, s) : shifted(config.shift, s)
    )
    if (config.shiftTerminal) sigmas = stretchToTerminal(sigmas, config.shiftTerminal)
    const min = this.hidden('sigma_min') ?? sigmas[sigmas.length - 1]!
    const max = this.hidden('sigma_max') ?? sigmas[0]!
    sigmas = (scheduledSigmas(config, min, max, sigmas.length) ?? sigmas).map(f32)
    if (config.invertSigmas) sigmas = sigmas.map((s) => f32(1 - s))
    const timesteps = custom && !config.invertSigmas ? custom.map(f32) : sigmas.map((s) => f32(s * T))
    return { timesteps, sigmas: [...sigmas, config.invertSigmas ? 1 : 0] }
  }

  protected rows({ timesteps, sigmas }: FlowSchedule, begin: number): RowSpec[] {
    const stochastic = this.config.stochasticSampling
    return timesteps.slice(begin).map((timestep, k) => {
      const sigma = sigmas[begin + k]!
      const next = sigmas[begin + k + 1]!
      return {
        timestep,
        // m = ε − x₀ = dx/dσ
        convert: convertToOriginal({ x: 1, m: -sigma }),
        writes: [write('x', stochastic ? { h: 1 - next, n: next } : { x: 1, m: next - sigma })],
        draws: stochastic ? 1 : 0
      }
    })
  }
}
