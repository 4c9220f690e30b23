/**
 * The base of the DPM-Solver family: x = α·x₀ + σ·ε with α² + σ² = 1 (or rectified flow), noise levels stored as σ/α.
 * It computes timesteps and sigmas; the classes differ in rounding and in the final sigma.
 */
import { invalidArgument } from '../errors.js'
import { alphaAt, betaOptions, makeAlphasCumprod, type BetaConfig } from './betas.js'
import { level, type Level } from './dpm-solver.js'
import { f32, interpolate, roundHalfEven } from './numerics.js'
import { flag, number, type ConfigOf, type Schema } from './options.js'
import { refuseCustom, type PlanOptions } from './plan-options.js'
import { predictionOption, thresholdOptions } from './prediction.js'
import { rowOfTimestep, Scheduler, type Schedule } from './scheduler.js'
import {
  checkSigmaSchedule,
  flowSigmas,
  logSigmas,
  luSigmas,
  scheduledSigmas,
  sigmaScheduleOptions,
  sigmaToTimestep,
  trainingSigmas,
  type SigmaScheduleConfig
} from './sigmas.js'
import { solverTimesteps, type SpacingConfig } from './spacing.js'

export const variancePreservingOptions = {
  ...betaOptions,
  predictionType: predictionOption('epsilon', 'sample', 'v_prediction', 'flow_prediction'),
  ...thresholdOptions,
  ...sigmaScheduleOptions,
  /** Rectified flow: σ itself is the share of noise, α = 1 − σ. */
  useFlowSigmas: flag(false),
  flowShift: number(1)
}

export interface SolverSchedule extends Schedule {
  readonly sigmas: readonly number[]
}
interface Config extends BetaConfig, SpacingConfig, SigmaScheduleConfig {
  readonly useLuLambdas?: boolean
  readonly useFlowSigmas: boolean
  readonly useDynamicShifting?: boolean
  readonly timeShiftType?: string
  readonly flowShift: number
  readonly lambdaMinClipped?: number
}

export interface SpaceRules {
  /** Rounding of the timesteps that belong to Karras and Lu sigmas; the others are cut to integers. */
  readonly round?: boolean
  /** Custom timesteps. */
  readonly custom?: readonly number[] | undefined
}

export abstract class VariancePreservingScheduler<S extends Schema> extends Scheduler<S, SolverSchedule> {
  readonly alphasCumprod: readonly number[]
  protected readonly trained: readonly number[]
  protected readonly logs: readonly number[]

  constructor(config: ConfigOf<S> = {}) {
    super(config)
    checkSigmaSchedule(this.className, this.values)
    this.alphasCumprod = Object.freeze(makeAlphasCumprod(this.values, true))
    this.trained = trainingSigmas(this.alphasCumprod)
    this.logs = logSigmas(this.trained)
  }
  private get values(): Config {
    return this.config as unknown as Config
  }

  /** How many training timesteps have λ ≥ lambdaMinClipped: the noisiest ones, where the cosine schedule explodes, are not visited. */
  protected unclipped(): number {
    const { lambdaMinClipped = -Infinity } = this.values
    const below = this.alphasCumprod.filter(
      (a) => f32(f32(Math.log(f32(Math.sqrt(a)))) - f32(Math.log(f32(Math.sqrt(1 - a))))) < lambdaMinClipped
    ).length
    return this.alphasCumprod.length - below
  }

  /** Whole timesteps and float32 sigmas of the rows, falling, without the final sigma. */
  protected spaced(
    steps: number,
    spaced: readonly number[],
    options: PlanOptions,
    rules: SpaceRules = {}
  ): { timesteps: number[]; sigmas: number[] } {
    const config = this.values
    const { trained, logs } = this
    const min = this.sigmaBound('sigmaMin') ?? trained[0]!
    const max = this.sigmaBound('sigmaMax') ?? trained[trained.length - 1]!
    const rescheduled =
      config.useLuLambdas && !config.useKarrasSigmas ? luSigmas(logs, steps) : scheduledSigmas(config, min, max, steps)
    if (rescheduled) {
      if (rules.custom)
        throw invalidArgument(
          'timesteps',
          `no custom timesteps where ${this.className} uses Karras, exponential, beta or Lu sigmas`,
          rules.custom
        )
      const rounded = rules.round !== false && (config.useKarrasSigmas || config.useLuLambdas)
      const timesteps = rescheduled.map((s) => sigmaToTimestep(s, logs))
      return { timesteps: timesteps.map(rounded ? roundHalfEven : Math.trunc), sigmas: rescheduled.map(f32) }
    }
    if (config.useFlowSigmas) {
      // μ: the shift of dynamic shifting, e^μ
      if (options.mu !== undefined && (!config.useDynamicShifting || config.timeShiftType === 'linear'))
        throw invalidArgument(
          'mu',
          "no mu unless useDynamicShifting is set with timeShiftType 'exponential'",
          options.mu
        )
      const shift = options.mu === undefined ? config.flowShift : Math.exp(options.mu)
      const sigmas = flowSigmas(config.numTrainTimesteps, shift, steps)
      return { timesteps: sigmas.map((s) => Math.trunc(s * config.numTrainTimesteps)), sigmas: sigmas.map(f32) }
    }
    return { timesteps: spaced.slice(), sigmas: spaced.map((t) => f32(interpolate(t, trained))) }
  }

  protected sigmaBound(name: 'sigmaMin' | 'sigmaMax'): number | undefined {
    return this.hidden(name === 'sigmaMin' ? 'sigma_min' : 'sigma_max')
  }

  /** The schedule of the classes without options of their own for it: the cleanest training sigma, or the last once more, ends it. */
  protected repeatedLast(steps: number, options: PlanOptions): SolverSchedule {
    refuseCustom(this.className, options, 'timesteps', 'sigmas')
    const spaced = this.spaced(steps, solverTimesteps(this.values, steps, this.unclipped()), options)
    const { useKarrasSigmas, useExponentialSigmas, useBetaSigmas, useFlowSigmas } = this.values
    const repeat = useKarrasSigmas || useExponentialSigmas || useBetaSigmas || useFlowSigmas
    const final = repeat ? spaced.sigmas[spaced.sigmas.length - 1]! : this.trained[0]!
    return { timesteps: spaced.timesteps, sigmas: [...spaced.sigmas, final] }
  }

  protected level(stored: number): Level {
    return level(stored, this.values.useFlowSigmas)
  }
  protected levelAt({ sigmas }: SolverSchedule, index: number): readonly [number, number] {
    const { alpha, sigma } = this.level(sigmas[index]!)
    return [alpha, sigma]
  }
  /** The row of this timestep, the second of several; the last where there is none, as in diffusers. */
  protected levelOf(schedule: SolverSchedule, timestep: number): readonly [number, number] {
    const row = rowOfTimestep(schedule.timesteps, timestep)
    return this.levelAt(schedule, row < 0 ? schedule.timesteps.length - 1 : row)
  }
  protected training(): SolverSchedule {
    const last = this.trained.length - 1
    const timesteps = this.trained.map((_, i) => last - i)
    return { timesteps, sigmas: [...timesteps.map((t) => this.trained[t]!), 0] }
  }

  /** √ᾱ, √(1 − ᾱ) of a training timestep, whatever the sigmas. */
  protected trainingLevel(timestep: number): readonly [number, number] {
    const alpha = alphaAt(this.alphasCumprod, timestep)
    return [Math.sqrt(alpha), Math.sqrt(1 - alpha)]
  }
}
