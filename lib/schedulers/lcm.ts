/** Latent Consistency Models (Luo et al. 2023, algorithm 3: multistep sampling). diffusers: LCMScheduler. */
import { AlphaScheduler } from './alphas.js'
import { betaOptions, type BetaSchedule } from './betas.js'
import { choice, flag, integer, number, type ConfigOf } from './options.js'
import { distilledTimesteps } from './distilled.js'
import { refuseCustom, type PlanOptions } from './plan-options.js'
import { combine, write, type RowSpec } from './plan-rows.js'
import { clipOptions, convertToOriginal, predict, predictionOption, thresholdOptions } from './prediction.js'
import { velocity, type Schedule } from './scheduler.js'
import { spacingOptions } from './spacing.js'

export const lcmOptions = {
  ...betaOptions,
  betaStart: number(0.00085),
  betaEnd: number(0.012),
  betaSchedule: choice<BetaSchedule>('scaled_linear', ['linear', 'scaled_linear', 'squaredcos_cap_v2']),
  /** Steps of the schedule that the model was distilled on; the steps of a run are chosen from them. */
  originalInferenceSteps: integer(50, 1),
  ...clipOptions(false),
  setAlphaToOne: flag(true),
  predictionType: predictionOption('epsilon', 'sample', 'v_prediction'),
  ...thresholdOptions,
  ...spacingOptions('leading'),
  /** Scale of t in the boundary condition's weights. */
  timestepScaling: number(10),
  rescaleBetasZeroSnr: flag(false)
}
/** Options of LCMScheduler, with diffusers' names and defaults. */
export type LCMConfig = ConfigOf<typeof lcmOptions>

/** The data's standard deviation in the boundary condition. */
const sigmaData = 0.5

/**
 * diffusers' LCMScheduler as a step plan.
 * @throws DiffusionError ERR_ND_INVALID_ARGUMENT for options that are unknown or out of range
 */
export class LCMScheduler extends AlphaScheduler<typeof lcmOptions> {
  static override readonly className = 'LCMScheduler'
  static override readonly options = lcmOptions

  protected schedule(steps: number, options: PlanOptions): Schedule {
    refuseCustom(this.className, options, 'sigmas')
    const original = options.originalInferenceSteps ?? this.config.originalInferenceSteps
    return { timesteps: distilledTimesteps(this.config.numTrainTimesteps, original, steps, options) }
  }

  protected rows({ timesteps }: Schedule, begin: number): RowSpec[] {
    const { config } = this
    return timesteps.slice(begin).map((t, k) => {
      const last = begin + k === timesteps.length - 1
      const alpha = this.alpha(t)
      const next = last ? alpha : this.alpha(timesteps[begin + k + 1]!)
      const { original } = predict(config.predictionType, Math.sqrt(alpha), Math.sqrt(1 - alpha))
      // equation 9: f = c_skip·x + c_out·x₀, the identity at t = 0
      const scaled = t * config.timestepScaling
      const skip = sigmaData ** 2 / (scaled ** 2 + sigmaData ** 2)
      const out = scaled / Math.sqrt(scaled ** 2 + sigmaData ** 2)
      const denoised = { x: skip, h: out }
      return {
        timestep: t,
        convert: convertToOriginal(original, config),
        writes: [write('x', last ? denoised : combine([Math.sqrt(next), denoised], [Math.sqrt(1 - next), { n: 1 }]))],
        draws: last ? 0 : 1
      }
    })
  }

  /** √ᾱ·noise − √(1 − ᾱ)·x. */
  getVelocity(x: ArrayLike<number>, noise: ArrayLike<number>, timestep: number): Float32Array {
    return velocity(this.noiseLevel(timestep), x, noise)
  }
}
