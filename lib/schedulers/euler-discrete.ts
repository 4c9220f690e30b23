/** Euler's method on the probability flow ODE (Karras et al. 2022, algorithm 2 without its correction). diffusers: EulerDiscreteScheduler. */
import { invalidArgument } from '../errors.js'
import { betaOptions } from './betas.js'
import { churn } from './churn.js'
import { inputNorm, KarrasScheduler, type KarrasSchedule } from './karras.js'
import { f32, linspaceF32 } from './numerics.js'
import { choice, flag, maybe, number, type ConfigOf } from './options.js'
import type { PlanOptions } from './plan-options.js'
import { combine, write, type RowSpec } from './plan-rows.js'
import { convertToOriginal, predictKarras } from './prediction.js'
import { velocity } from './scheduler.js'
import { sigmaScheduleOptions, sigmaToTimestep } from './sigmas.js'
import { spacingOptions } from './spacing.js'

export const eulerDiscreteOptions = {
  ...betaOptions,
  predictionType: choice('epsilon', ['epsilon', 'sample', 'v_prediction'], { original_sample: 'sample' }),
  /** 'log_linear' spaces log σ evenly over the whole range, whatever the timesteps. */
  interpolationType: choice('linear', ['linear', 'log_linear']),
  ...sigmaScheduleOptions,
  sigmaMin: maybe(number(0)),
  sigmaMax: maybe(number(0)),
  ...spacingOptions('linspace'),
  /** 'continuous' with v-prediction tells the model ¼·ln σ (EDM). */
  timestepType: choice('discrete', ['discrete', 'continuous']),
  rescaleBetasZeroSnr: flag(false),
  finalSigmasType: choice('zero', ['zero', 'sigma_min'])
}
/** Options of EulerDiscreteScheduler, with diffusers' names and defaults. */
export type EulerDiscreteConfig = ConfigOf<typeof eulerDiscreteOptions>

/**
 * diffusers' EulerDiscreteScheduler as a step plan.
 * @throws DiffusionError ERR_ND_INVALID_ARGUMENT for options that are unknown or out of range
 */
export class EulerDiscreteScheduler extends KarrasScheduler<typeof eulerDiscreteOptions> {
  static override readonly className = 'EulerDiscreteScheduler'
  static override readonly options = eulerDiscreteOptions

  protected schedule(steps: number, options: PlanOptions): KarrasSchedule {
    const { config } = this
    const continuous = config.timestepType === 'continuous' && config.predictionType === 'v_prediction'
    if (options.timesteps && options.sigmas)
      throw invalidArgument('sigmas', 'only one of timesteps and sigmas', options.sigmas)
    if (options.timesteps && continuous)
      throw invalidArgument(
        'timesteps',
        "no custom timesteps with timestepType 'continuous' and v-prediction",
        options.timesteps
      )
    let timesteps: number[]
    let sigmas: number[]
    if (options.sigmas) {
      if (options.sigmas.length < 2)
        throw invalidArgument('sigmas', 'at least two: the last is the final one', options.sigmas)
      sigmas = options.sigmas.map(f32)
      timesteps = sigmas.slice(0, -1).map((s) => sigmaToTimestep(s, this.logs))
    } else {
      ;({ timesteps, sigmas } = this.spaced(steps, options.timesteps))
      if (config.interpolationType === 'log_linear') {
        const { trained } = this
        const even = linspaceF32(this.logs[trained.length - 1]!, this.logs[0]!, steps + 1).map((l) => f32(Math.exp(l)))
        const scheduled = this.reschedule(even, steps)
        sigmas = scheduled ?? even
        if (scheduled) timesteps = scheduled.map((s) => sigmaToTimestep(s, this.logs))
      }
      sigmas = [...sigmas, config.finalSigmasType === 'zero' ? 0 : this.trained[0]!].map(f32)
    }
    if (continuous) timesteps = sigmas.slice(0, -1).map((s) => f32(0.25 * f32(Math.log(s))))
    return { timesteps: timesteps.map(f32), sigmas, initNoiseSigma: this.initialSigma(sigmas) }
  }

  protected rows({ timesteps, sigmas }: KarrasSchedule, begin: number, options: PlanOptions): RowSpec[] {
    return timesteps.slice(begin).map((timestep, k) => {
      const sigma = sigmas[begin + k]!
      const next = sigmas[begin + k + 1]!
      const { sigmaHat, noise, draws } = churn(sigma, sigmas.length - 1, options)
      const { config } = this
      // ε is scaled by σ̂; diffusers converts v with the σ before the churn
      const { original } = predictKarras(config.predictionType, config.predictionType === 'epsilon' ? sigmaHat : sigma)
      // x̂ = x + noise·n, x₀ of x̂, then x̂ + (σ' − σ̂)·(x̂ − x₀)/σ̂
      const hat = { x: 1, n: noise }
      const predicted = combine([original.x ?? 0, hat], [original.m ?? 0, { m: 1 }])
      const step = (next - sigmaHat) / sigmaHat
      return {
        timestep,
        inputScale: 1 / inputNorm(sigma),
        convert: convertToOriginal(original),
        writes: [write('x', combine([1 + step, hat], [-step, predicted]))],
        draws
      }
    })
  }

  /**
   * α·noise − σ·x at one of the plan's timesteps, with α² + σ² = 1. (diffusers' get_velocity of this class takes α of the
   * training timestep whose number is the step's place in the schedule; here it is that of the timestep.)
   */
  getVelocity(x: ArrayLike<number>, noise: ArrayLike<number>, timestep: number): Float32Array {
    const [, sigma] = this.noiseLevel(timestep)
    return velocity([1 / inputNorm(sigma), sigma / inputNorm(sigma)], x, noise)
  }
}
