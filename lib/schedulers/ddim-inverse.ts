/** DDIM backwards, from a picture to its noise (Mokady et al. 2022, section 3.2). diffusers: DDIMInverseScheduler. */
import { AlphaScheduler } from './alphas.js'
import { betaOptions } from './betas.js'
import { arange, roundHalfEven } from './numerics.js'
import { choice, flag, integer, type ConfigOf } from './options.js'
import { refuseCustom, type PlanOptions } from './plan-options.js'
import { combine, write, type RowSpec } from './plan-rows.js'
import { clipOptions, convertToOriginal, predict, predictionOption } from './prediction.js'
import type { Schedule } from './scheduler.js'

export const ddimInverseOptions = {
  ...betaOptions,
  ...clipOptions(true),
  /** ᾱ before the first step: 1, or that of timestep 0. */
  setAlphaToOne: flag(true),
  stepsOffset: integer(0),
  predictionType: predictionOption('epsilon', 'sample', 'v_prediction'),
  timestepSpacing: choice('leading', ['leading', 'trailing']),
  rescaleBetasZeroSnr: flag(false)
}
/** Options of DDIMInverseScheduler, with diffusers' names and defaults. */
export type DDIMInverseConfig = ConfigOf<typeof ddimInverseOptions>

/**
 * diffusers' DDIMInverseScheduler as a step plan.
 * @throws DiffusionError ERR_ND_INVALID_ARGUMENT for options that are unknown or out of range
 */
export class DDIMInverseScheduler extends AlphaScheduler<typeof ddimInverseOptions> {
  static override readonly className = 'DDIMInverseScheduler'
  static override readonly options = ddimInverseOptions

  /** Timesteps rise. */
  protected schedule(steps: number, options: PlanOptions): Schedule {
    refuseCustom(this.className, options, 'timesteps', 'sigmas')
    const { numTrainTimesteps: T, timestepSpacing, stepsOffset } = this.config
    const stride = Math.floor(T / steps)
    const timesteps =
      timestepSpacing === 'leading'
        ? Array.from({ length: steps }, (_, i) => i * stride + stepsOffset)
        : arange(T, 0, -(T / steps))
            .map((t) => roundHalfEven(t) - 1)
            .filter((t) => t >= 0)
            .reverse()
    return { timesteps }
  }

  protected rows({ timesteps }: Schedule, begin: number): RowSpec[] {
    const { config } = this
    const T = config.numTrainTimesteps
    const initial = config.setAlphaToOne ? 1 : this.alphasCumprod[0]!
    const stride = Math.floor(T / timesteps.length)
    return timesteps.slice(begin).map((t) => {
      // the model is asked at the step's noisier end, x lies at the cleaner one
      const alpha = this.alpha(Math.min(t - stride, T - 1), initial)
      const next = this.alpha(t)
      const { original, noise } = predict(config.predictionType, Math.sqrt(alpha), Math.sqrt(1 - alpha))
      return {
        timestep: t,
        convert: convertToOriginal(original, config),
        writes: [write('x', combine([Math.sqrt(next), { h: 1 }], [Math.sqrt(1 - next), noise]))]
      }
    })
  }
}
