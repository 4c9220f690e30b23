/** Heun's second-order method (Karras et al. 2022, algorithm 1): two model evaluations per step. diffusers: HeunDiscreteScheduler. */
import { betaOptions, type BetaSchedule } from './betas.js'
import { doubled, inputNorm, KarrasScheduler, type KarrasSchedule } from './karras.js'
import { f32 } from './numerics.js'
import { choice, number, type ConfigOf } from './options.js'
import { refuseCustom, type PlanOptions } from './plan-options.js'
import { combine, write, type RowSpec } from './plan-rows.js'
import { clipOptions, convertToOriginal, predictionOption, predictKarras } from './prediction.js'
import { sigmaScheduleOptions } from './sigmas.js'
import { spacingOptions } from './spacing.js'

export const heunDiscreteOptions = {
  ...betaOptions,
  betaStart: number(0.00085),
  betaEnd: number(0.012),
  betaSchedule: choice<BetaSchedule>('linear', ['linear', 'scaled_linear', 'squaredcos_cap_v2', 'exp']),
  predictionType: predictionOption('epsilon', 'sample', 'v_prediction'),
  ...sigmaScheduleOptions,
  ...clipOptions(false),
  ...spacingOptions('linspace')
}
/** Options of HeunDiscreteScheduler, with diffusers' names and defaults. */
export type HeunDiscreteConfig = ConfigOf<typeof heunDiscreteOptions>

/**
 * diffusers' HeunDiscreteScheduler as a step plan.
 * @throws DiffusionError ERR_ND_INVALID_ARGUMENT for options that are unknown or out of range
 */
export class HeunDiscreteScheduler extends KarrasScheduler<typeof heunDiscreteOptions> {
  static override readonly className = 'HeunDiscreteScheduler'
  static override readonly options = heunDiscreteOptions
  override readonly order = 2

  protected schedule(steps: number, options: PlanOptions): KarrasSchedule {
    refuseCustom(this.className, options, 'sigmas')
    const { timesteps, sigmas } = this.spaced(steps, options.timesteps)
    return {
      timesteps: doubled(timesteps.map(f32)),
      sigmas: [...doubled(sigmas), 0],
      initNoiseSigma: this.initialSigma(sigmas)
    }
  }

  /** Even rows: Euler from σ to σ'. Odd rows: the same step with the mean of both ends' derivatives. */
  protected rows({ timesteps, sigmas }: KarrasSchedule, begin: number): RowSpec[] {
    const { config } = this
    return timesteps.slice(begin).map((timestep, k) => {
      const i = begin + k
      const second = i % 2 === 1
      const from = sigmas[second ? i - 1 : i]!
      const to = sigmas[second ? i : i + 1]!
      const here = second ? to : from
      const { original, noise } = predictKarras(config.predictionType, here)
      const slope = config.clipSample ? { x: 1 / here, h: -1 / here } : noise
      const last = i === timesteps.length - 1
      return {
        timestep,
        inputScale: 1 / inputNorm(here),
        convert: convertToOriginal(original, config),
        writes: second
          ? [write('x', combine([1, { r0: 1 }], [(to - from) / 2, { r1: 1 }], [(to - from) / 2, slope]))]
          : [
              ...(last ? [] : [write('r0', { x: 1 }), write('r1', slope)]),
              write('x', combine([1, { x: 1 }], [to - from, slope]))
            ],
        step: second || last
      }
    })
  }
}
