/** DPM2 (Karras et al. 2022's midpoint variant; k-diffusion's sample_dpm_2): the slope in the middle, in log σ, of each step. diffusers: KDPM2DiscreteScheduler. */
import { betaOptions } from './betas.js'
import { inputNorm, KarrasScheduler, type KarrasSchedule } from './karras.js'
import { f32, roundHalfEven } from './numerics.js'
import { number, type ConfigOf, type Schema } from './options.js'
import { refuseCustom, type PlanOptions } from './plan-options.js'
import { combine, write, type RowSpec } from './plan-rows.js'
import { convertToOriginal, predictionOption, predictKarras } from './prediction.js'
import { sigmaScheduleOptions, sigmaToTimestep } from './sigmas.js'
import { spacingOptions } from './spacing.js'

export const kDPM2DiscreteOptions = {
  ...betaOptions,
  betaStart: number(0.00085),
  betaEnd: number(0.012),
  ...sigmaScheduleOptions,
  predictionType: predictionOption('epsilon', 'v_prediction'),
  ...spacingOptions('linspace')
}
/** Options of KDPM2DiscreteScheduler, with diffusers' names and defaults. */
export type KDPM2DiscreteConfig = ConfigOf<typeof kDPM2DiscreteOptions>

/** One step: σ, the middle, where the step ends without noise, and the noise added then. */
interface Midpoint {
  readonly from: number
  readonly middle: number
  readonly to: number
  readonly noise: number
}

/** The two rows of each step, shared with the ancestral class, which differs in `step`. */
export abstract class MidpointScheduler<S extends Schema> extends KarrasScheduler<S> {
  override readonly order = 2
  protected abstract readonly stochastic: boolean
  protected abstract step(from: number, next: number): Midpoint

  protected schedule(steps: number, options: PlanOptions): KarrasSchedule {
    refuseCustom(this.className, options, 'timesteps', 'sigmas')
    const { timesteps, sigmas } = this.spaced(steps, undefined, roundHalfEven)
    const middle = sigmas.slice(1).map((next, k) => sigmaToTimestep(f32(this.step(sigmas[k]!, next).middle), this.logs))
    const all = timesteps.flatMap((t, k) => (k === 0 ? [t] : [middle[k - 1]!, t]))
    return {
      timesteps: all,
      sigmas: [...[...sigmas, 0].flatMap((s, k) => (k === 0 ? [s] : [s, s])), 0],
      initNoiseSigma: this.initialSigma(sigmas)
    }
  }

  /** Even rows go to the middle; odd rows take the whole step from its start with the middle's slope. */
  protected rows({ timesteps, sigmas }: KarrasSchedule, begin: number): RowSpec[] {
    const { predictionType } = this.config as unknown as { predictionType: 'epsilon' | 'v_prediction' }
    return timesteps.slice(begin).map((timestep, k) => {
      const i = begin + k
      const second = i % 2 === 1
      const { from, middle, to, noise } = this.step(sigmas[second ? i - 1 : i]!, sigmas[second ? i : i + 1]!)
      const here = second ? middle : from
      const prediction = predictKarras(predictionType, here)
      const last = i === timesteps.length - 1
      return {
        timestep,
        inputScale: 1 / inputNorm(here),
        convert: convertToOriginal(prediction.original),
        level: [1, here],
        writes: second
          ? [write('x', combine([1, { r0: 1, n: noise }], [to - from, prediction.noise]))]
          : [
              ...(last ? [] : [write('r0', { x: 1 })]),
              write('x', combine([1, { x: 1 }], [middle - from, prediction.noise]))
            ],
        draws: second && this.stochastic ? 1 : 0,
        step: second || last
      }
    })
  }
}

/**
 * diffusers' KDPM2DiscreteScheduler as a step plan.
 * @throws DiffusionError ERR_ND_INVALID_ARGUMENT for options that are unknown or out of range
 */
export class KDPM2DiscreteScheduler extends MidpointScheduler<typeof kDPM2DiscreteOptions> {
  static override readonly className = 'KDPM2DiscreteScheduler'
  static override readonly options = kDPM2DiscreteOptions
  protected readonly stochastic = false

  protected step(from: number, next: number): Midpoint {
    return { from, middle: Math.sqrt(from * next), to: next, noise: 0 }
  }
}
