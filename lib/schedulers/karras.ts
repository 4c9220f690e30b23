/**
 * The base of the classes in the form of Karras et al. 2022 (k-diffusion): x = x₀ + σ·ε, and the model sees
 * x/√(σ² + 1). It turns β, spacing and the sigma options into timesteps and sigmas.
 */
import { invalidArgument } from '../errors.js'
import { makeAlphasCumprod, type BetaConfig } from './betas.js'
import { f32, interpolate } from './numerics.js'
import type { ConfigOf, Schema } from './options.js'
import { requireRow, Scheduler, type Schedule } from './scheduler.js'
import {
  checkSigmaSchedule,
  logSigmas,
  scheduledSigmas,
  sigmaToTimestep,
  trainingSigmas,
  type SigmaScheduleConfig
} from './sigmas.js'
import { spacedTimesteps, type SpacingConfig } from './spacing.js'

export interface KarrasSchedule extends Schedule {
  readonly sigmas: readonly number[]
  readonly initNoiseSigma: number
}
type KarrasConfig = BetaConfig &
  SpacingConfig &
  Partial<SigmaScheduleConfig> & { sigmaMin?: number | null; sigmaMax?: number | null }

/** √(σ² + 1): what the model's input is divided by. */
export const inputNorm = (sigma: number): number => Math.sqrt(sigma * sigma + 1)

export abstract class KarrasScheduler<S extends Schema> extends Scheduler<S, KarrasSchedule> {
  readonly alphasCumprod: readonly number[]
  /** σ of the training timesteps, rising, and their logarithms. */
  protected readonly trained: readonly number[]
  protected readonly logs: readonly number[]

  constructor(config: ConfigOf<S> = {}) {
    super(config)
    const values = this.config as unknown as BetaConfig & SigmaScheduleConfig
    checkSigmaSchedule(this.className, values)
    this.alphasCumprod = Object.freeze(makeAlphasCumprod(values, true))
    this.trained = trainingSigmas(this.alphasCumprod)
    this.logs = logSigmas(this.trained)
  }

  /**
   * `steps` timesteps (or `custom` ones) and their sigmas, float32, without the final one. `roundKarras` rounds the
   * timesteps of Karras sigmas.
   */
  protected spaced(
    steps: number,
    custom?: readonly number[],
    roundKarras?: (t: number) => number
  ): { timesteps: number[]; sigmas: number[] } {
    const config = this.config as unknown as KarrasConfig
    const spaced = custom?.map(f32) ?? spacedTimesteps(config, steps, true)
    const sigmas = spaced.map((t) => interpolate(t, this.trained))
    const scheduled = this.reschedule(sigmas, steps)
    if (!scheduled) return { timesteps: spaced, sigmas: sigmas.map(f32) }
    if (custom)
      throw invalidArgument(
        'timesteps',
        `no custom timesteps where ${this.className} uses Karras, exponential or beta sigmas`,
        custom
      )
    const timesteps = scheduled.map((s) => sigmaToTimestep(s, this.logs))
    const round = config.useKarrasSigmas && roundKarras ? roundKarras : (t: number) => t
    return { timesteps: timesteps.map(round), sigmas: scheduled.map(f32) }
  }

  /** The Karras, exponential or beta sigmas between the ends of `sigmas`, or between the config's sigmaMin and sigmaMax. */
  protected reschedule(sigmas: readonly number[], steps: number): number[] | undefined {
    const config = this.config as unknown as KarrasConfig
    const min = config.sigmaMin ?? this.hidden('sigma_min') ?? sigmas[sigmas.length - 1]!
    const max = config.sigmaMax ?? this.hidden('sigma_max') ?? sigmas[0]!
    return scheduledSigmas(config as SigmaScheduleConfig, min, max, steps)
  }

  /** x starts as noise at σ_max; 'leading' starts below the last timestep, where the data still counts: √(σ² + 1). */
  protected initialSigma(sigmas: readonly number[]): number {
    const max = Math.max(...sigmas)
    return (this.config as unknown as SpacingConfig).timestepSpacing === 'leading' ? inputNorm(max) : max
  }

  protected levelAt({ sigmas }: KarrasSchedule, index: number): readonly [number, number] {
    return [1, sigmas[index]!]
  }
  protected levelOf(schedule: KarrasSchedule, timestep: number): readonly [number, number] {
    return this.levelAt(schedule, requireRow(schedule.timesteps, timestep))
  }
  protected training(): KarrasSchedule {
    const last = this.trained.length - 1
    const sigmas = [...this.trained].reverse()
    return {
      timesteps: sigmas.map((_, i) => last - i),
      sigmas: [...sigmas, 0],
      initNoiseSigma: this.initialSigma(sigmas)
    }
  }
}

/** Two rows per step after the first: t₀, t₁, t₁, t₂, t₂ …, as the schedules of Heun and KDPM2 store them. */
export const doubled = <T>(values: readonly T[]): T[] => values.flatMap((v, i) => (i === 0 ? [v] : [v, v]))
