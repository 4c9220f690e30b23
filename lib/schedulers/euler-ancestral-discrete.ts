/** Euler's method with ancestral noise (k-diffusion's sample_euler_ancestral, η = 1). diffusers: EulerAncestralDiscreteScheduler. */
import { betaOptions } from './betas.js'
import { inputNorm, KarrasScheduler, type KarrasSchedule } from './karras.js'
import { flag, type ConfigOf } from './options.js'
import { refuseCustom, type PlanOptions } from './plan-options.js'
import { combine, write, type RowSpec } from './plan-rows.js'
import { convertToOriginal, predictionOption, predictKarras } from './prediction.js'
import { spacingOptions } from './spacing.js'

export const eulerAncestralDiscreteOptions = {
  ...betaOptions,
  predictionType: predictionOption('epsilon', 'v_prediction'),
  ...spacingOptions('linspace'),
  rescaleBetasZeroSnr: flag(false)
}
/** Options of EulerAncestralDiscreteScheduler, with diffusers' names and defaults. */
export type EulerAncestralDiscreteConfig = ConfigOf<typeof eulerAncestralDiscreteOptions>

/** From σ to σ': down to σ_down without noise, then noise σ_up back up, σ_up² + σ_down² = σ'². */
export const ancestral = (from: number, to: number): { up: number; down: number } => {
  const up = Math.sqrt((to ** 2 * (from ** 2 - to ** 2)) / from ** 2)
  return { up, down: to ** 2 / from } // √(σ'² − σ_up²) without its cancellation
}

/**
 * diffusers' EulerAncestralDiscreteScheduler as a step plan.
 * @throws DiffusionError ERR_ND_INVALID_ARGUMENT for options that are unknown or out of range
 */
export class EulerAncestralDiscreteScheduler extends KarrasScheduler<typeof eulerAncestralDiscreteOptions> {
  static override readonly className = 'EulerAncestralDiscreteScheduler'
  static override readonly options = eulerAncestralDiscreteOptions

  protected schedule(steps: number, options: PlanOptions): KarrasSchedule {
    refuseCustom(this.className, options, 'timesteps', 'sigmas')
    const { timesteps, sigmas } = this.spaced(steps)
    return { timesteps, sigmas: [...sigmas, 0], initNoiseSigma: this.initialSigma(sigmas) }
  }

  protected rows({ timesteps, sigmas }: KarrasSchedule, begin: number): RowSpec[] {
    return timesteps.slice(begin).map((timestep, k) => {
      const sigma = sigmas[begin + k]!
      const { up, down } = ancestral(sigma, sigmas[begin + k + 1]!)
      const { original, noise } = predictKarras(this.config.predictionType, sigma)
      return {
        timestep,
        inputScale: 1 / inputNorm(sigma),
        convert: convertToOriginal(original),
        // dx/dσ is the predicted noise
        writes: [write('x', combine([1, { x: 1, n: up }], [down - sigma, noise]))],
        draws: 1
      }
    })
  }
}
