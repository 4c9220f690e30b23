/** DDPM as unCLIP (Ramesh et al. 2022, DALL·E 2) uses it: cosine β, x₀ clipped, learned variance. diffusers: UnCLIPScheduler. */
import { AlphaScheduler } from './alphas.js'
import { alphaAt, makeBetas, type BetaSchedule } from './betas.js'
import { invalidArgument } from '../errors.js'
import { f32, roundHalfEven } from './numerics.js'
import { choice, integer, type ConfigOf } from './options.js'
import { refuseCustom, type PlanOptions } from './plan-options.js'
import { write, type RowSpec } from './plan-rows.js'
import { clipOptions, convertToOriginal, predict, predictionOption } from './prediction.js'
import type { Schedule } from './scheduler.js'

export const unCLIPOptions = {
  numTrainTimesteps: integer(1000, 1),
  varianceType: choice('fixed_small_log', ['fixed_small_log', 'learned_range']),
  ...clipOptions(true),
  predictionType: predictionOption('epsilon', 'sample'),
  betaSchedule: choice<BetaSchedule>('squaredcos_cap_v2', ['squaredcos_cap_v2'])
}
/** Options of UnCLIPScheduler, with diffusers' names and defaults. */
export type UnCLIPConfig = ConfigOf<typeof unCLIPOptions>

/**
 * diffusers' UnCLIPScheduler as a step plan.
 * @throws DiffusionError ERR_ND_INVALID_ARGUMENT for options that are unknown or out of range
 */
export class UnCLIPScheduler extends AlphaScheduler<typeof unCLIPOptions> {
  static override readonly className = 'UnCLIPScheduler'
  static override readonly options = unCLIPOptions

  protected schedule(steps: number, options: PlanOptions): Schedule {
    refuseCustom(this.className, options, 'timesteps', 'sigmas')
    if (steps < 2) throw invalidArgument('steps', 'at least 2 (UnCLIPScheduler spaces both ends)', steps)
    const ratio = (this.config.numTrainTimesteps - 1) / (steps - 1)
    return { timesteps: Array.from({ length: steps }, (_, i) => roundHalfEven((steps - 1 - i) * ratio)) }
  }

  protected rows({ timesteps }: Schedule, begin: number, { previousTimestep = 'adjacent' }: PlanOptions): RowSpec[] {
    const { config } = this
    const learned = config.varianceType === 'learned_range'
    const betas = makeBetas({ ...config, betaStart: 0, betaEnd: 0, trainedBetas: null })
    return timesteps.slice(begin).map((t, k) => {
      const next = timesteps[begin + k + 1]
      const previousT = previousTimestep === 'next' && next !== undefined ? next : t - 1
      const alphaBar = this.alpha(t)
      const previous = this.alpha(previousT, 1)
      const beta = previousT === t - 1 ? alphaAt(betas, t) : 1 - alphaBar / previous
      const alpha = previousT === t - 1 ? f32(1 - beta) : 1 - beta
      const variance = ((1 - previous) / (1 - alphaBar)) * beta
      const small = Math.max(variance, 1e-20)
      const { original } = predict(config.predictionType, Math.sqrt(alphaBar), Math.sqrt(1 - alphaBar))
      return {
        timestep: t,
        convert: convertToOriginal(original, config),
        writes: [
          write('x', {
            h: (Math.sqrt(previous) * beta) / (1 - alphaBar),
            x: (Math.sqrt(alpha) * (1 - previous)) / (1 - alphaBar),
            n: t > 0 ? (learned ? 1 : Math.sqrt(small)) : 0
          })
        ],
        draws: t > 0 ? 1 : 0,
        learnedRange: learned ? ([Math.log(small), Math.log(beta)] as const) : undefined
      }
    })
  }
}
