/** Denoising Diffusion Implicit Models (Song, Meng and Ermon 2020, equation 12). diffusers: DDIMScheduler. */
import { AlphaScheduler } from './alphas.js'
import { betaOptions } from './betas.js'
import { flag, type ConfigOf } from './options.js'
import { refuseCustom, type PlanOptions } from './plan-options.js'
import { combine, scale, write, type RowSpec } from './plan-rows.js'
import { clipOptions, convertToOriginal, predict, predictionOption, thresholdOptions } from './prediction.js'
import { velocity, type Schedule } from './scheduler.js'
import { spacedTimesteps, spacingOptions } from './spacing.js'

export const ddimOptions = {
  ...betaOptions,
  ...clipOptions(true),
  /** ᾱ after the last step: 1, or that of timestep 0. */
  setAlphaToOne: flag(true),
  predictionType: predictionOption('epsilon', 'sample', 'v_prediction'),
  ...thresholdOptions,
  ...spacingOptions('leading'),
  rescaleBetasZeroSnr: flag(false)
}
/** Options of DDIMScheduler, with diffusers' names and defaults. */
export type DDIMConfig = ConfigOf<typeof ddimOptions>

/**
 * diffusers' DDIMScheduler as a step plan.
 * @throws DiffusionError ERR_ND_INVALID_ARGUMENT for options that are unknown or out of range
 */
export class DDIMScheduler extends AlphaScheduler<typeof ddimOptions> {
  static override readonly className = 'DDIMScheduler'
  static override readonly options = ddimOptions

  protected schedule(steps: number, options: PlanOptions): Schedule {
    refuseCustom(this.className, options, 'timesteps', 'sigmas')
    return { timesteps: spacedTimesteps(this.config, steps) }
  }

  protected rows({ timesteps }: Schedule, begin: number, { eta = 0, useClippedModelOutput }: PlanOptions): RowSpec[] {
    const { config } = this
    const final = config.setAlphaToOne ? 1 : this.alphasCumprod[0]!
    const stride = Math.floor(config.numTrainTimesteps / timesteps.length)
    return timesteps.slice(begin).map((t) => {
      const alpha = this.alpha(t)
      const previous = this.alpha(t - stride, final)
      const [rootAlpha, rootBeta] = [Math.sqrt(alpha), Math.sqrt(1 - alpha)]
      const { original, noise } = predict(config.predictionType, rootAlpha, rootBeta)
      // ε is the model's own also where x₀ was clipped, unless asked otherwise
      const epsilon = useClippedModelOutput ? { x: 1 / rootBeta, h: -rootAlpha / rootBeta } : noise
      const variance = ((1 - previous) / (1 - alpha)) * (1 - alpha / previous)
      const deviation = eta === 0 ? 0 : eta * Math.sqrt(variance)
      const direction = Math.sqrt(1 - previous - deviation ** 2)
      return {
        timestep: t,
        convert: convertToOriginal(original, config),
        writes: [
          write('x', combine([Math.sqrt(previous), { h: 1 }], [1, scale(direction, epsilon)], [deviation, { n: 1 }]))
        ],
        draws: eta > 0 ? 1 : 0
      }
    })
  }

  /** √ᾱ·noise − √(1 − ᾱ)·x. */
  getVelocity(x: ArrayLike<number>, noise: ArrayLike<number>, timestep: number): Float32Array {
    return velocity(this.noiseLevel(timestep), x, noise)
  }
}
