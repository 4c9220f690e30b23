/** Denoising Diffusion Probabilistic Models (Ho, Jain and Abbeel 2020, algorithm 2). diffusers: DDPMScheduler. */
import { unsupported } from '../errors.js'
import { AlphaScheduler } from './alphas.js'
import { betaOptions, type BetaSchedule } from './betas.js'
import { choice, flag, type ConfigOf } from './options.js'
import { checkFalling, refuseCustom, type PlanOptions } from './plan-options.js'
import { write, type RowSpec } from './plan-rows.js'
import { clipOptions, convertToOriginal, predict, predictionOption, thresholdOptions } from './prediction.js'
import { velocity, type Schedule } from './scheduler.js'
import { spacedTimesteps, spacingOptions } from './spacing.js'

export const ddpmOptions = {
  ...betaOptions,
  betaSchedule: choice<BetaSchedule>('linear', ['linear', 'scaled_linear', 'squaredcos_cap_v2', 'laplace', 'sigmoid']),
  varianceType: choice('fixed_small', [
    'fixed_small',
    'fixed_small_log',
    'fixed_large',
    'fixed_large_log',
    'learned',
    'learned_range'
  ]),
  ...clipOptions(true),
  predictionType: predictionOption('epsilon', 'sample', 'v_prediction'),
  ...thresholdOptions,
  ...spacingOptions('leading'),
  rescaleBetasZeroSnr: flag(false)
}
/** Options of DDPMScheduler, with diffusers' names and defaults. */
export type DDPMConfig = ConfigOf<typeof ddpmOptions>

/**
 * diffusers' DDPMScheduler as a step plan.
 * @throws DiffusionError ERR_ND_INVALID_ARGUMENT for options that are unknown or out of range
 */
export class DDPMScheduler extends AlphaScheduler<typeof ddpmOptions> {
  static override readonly className = 'DDPMScheduler'
  static override readonly options = ddpmOptions

  protected schedule(steps: number, options: PlanOptions): Schedule {
    refuseCustom(this.className, options, 'sigmas')
    if (options.timesteps) checkFalling(options.timesteps, this.config.numTrainTimesteps)
    return { timesteps: options.timesteps?.slice() ?? spacedTimesteps(this.config, steps) }
  }

  protected rows({ timesteps }: Schedule, begin: number): RowSpec[] {
    const { config } = this
    if (config.varianceType === 'learned')
      throw unsupported(
        "DDPMScheduler with varianceType 'learned' (a variance that the model predicts directly) is not supported: use 'learned_range'"
      )
    return timesteps.slice(begin).map((t, i) => {
      const alphaBar = this.alpha(t)
      const previous = this.alpha(timesteps[begin + i + 1] ?? -1, 1)
      const alpha = alphaBar / previous
      const beta = 1 - alpha
      // β̃ of equation 7, kept above 0 for its logarithm
      const small = Math.max(((1 - previous) / (1 - alphaBar)) * beta, 1e-20)
      const large = config.varianceType === 'fixed_large' || config.varianceType === 'fixed_large_log'
      const learned = config.varianceType === 'learned_range'
      const { original } = predict(config.predictionType, Math.sqrt(alphaBar), Math.sqrt(1 - alphaBar))
      const deviation = t > 0 ? (learned ? 1 : Math.sqrt(large ? beta : small)) : 0
      return {
        timestep: t,
        convert: convertToOriginal(original, config),
        writes: [
          write('x', {
            h: (Math.sqrt(previous) * beta) / (1 - alphaBar),
            x: (Math.sqrt(alpha) * (1 - previous)) / (1 - alphaBar),
            n: deviation
          })
        ],
        draws: t > 0 ? 1 : 0,
        // Nichol and Dhariwal 2021, equation 15
        learnedRange: learned ? ([Math.log(small), Math.log(beta)] as const) : undefined
      }
    })
  }

  /** √ᾱ·noise − √(1 − ᾱ)·x. */
  getVelocity(x: ArrayLike<number>, noise: ArrayLike<number>, timestep: number): Float32Array {
    return velocity(this.noiseLevel(timestep), x, noise)
  }
}
