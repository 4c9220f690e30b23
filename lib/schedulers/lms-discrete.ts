/** Linear multistep on the probability flow ODE (k-diffusion's sample_lms; Adams-Bashforth in σ). diffusers: LMSDiscreteScheduler. */
import { betaOptions } from './betas.js'
import { inputNorm, KarrasScheduler, type KarrasSchedule } from './karras.js'
import type { ConfigOf } from './options.js'
import { refuseCustom, type PlanOptions } from './plan-options.js'
import { combine, History, registers, write, type RowSpec } from './plan-rows.js'
import { convertToOriginal, predictionOption, predictKarras } from './prediction.js'
import { sigmaScheduleOptions } from './sigmas.js'
import { spacingOptions } from './spacing.js'

export const lmsDiscreteOptions = {
  ...betaOptions,
  ...sigmaScheduleOptions,
  predictionType: predictionOption('epsilon', 'sample', 'v_prediction'),
  ...spacingOptions('linspace')
}
/** Options of LMSDiscreteScheduler, with diffusers' names and defaults. */
export type LMSDiscreteConfig = ConfigOf<typeof lmsDiscreteOptions>

/**
 * diffusers' LMSDiscreteScheduler as a step plan.
 * @throws DiffusionError ERR_ND_INVALID_ARGUMENT for options that are unknown or out of range
 */
export class LMSDiscreteScheduler extends KarrasScheduler<typeof lmsDiscreteOptions> {
  static override readonly className = 'LMSDiscreteScheduler'
  static override readonly options = lmsDiscreteOptions

  protected schedule(steps: number, options: PlanOptions): KarrasSchedule {
    refuseCustom(this.className, options, 'timesteps', 'sigmas')
    const { timesteps, sigmas } = this.spaced(steps)
    return { timesteps, sigmas: [...sigmas, 0], initNoiseSigma: this.initialSigma(sigmas) }
  }

  protected rows({ timesteps, sigmas }: KarrasSchedule, begin: number, { order: most = 4 }: PlanOptions): RowSpec[] {
    const history = new History(registers(0, most))
    return timesteps.slice(begin).map((timestep, k) => {
      const i = begin + k
      const sigma = sigmas[i]!
      const { original, noise } = predictKarras(this.config.predictionType, sigma)
      const push = history.push(noise)
      // begun later (img2img), the weights are those of the full order although fewer derivatives are known, as in diffusers
      const nodes = Array.from({ length: Math.min(i + 1, most) }, (_, j) => sigmas[i - j]!)
      const known = nodes.slice(0, history.length)
      return {
        timestep,
        inputScale: 1 / inputNorm(sigma),
        convert: convertToOriginal(original),
        writes: [
          push,
          write(
            'x',
            combine(
              [1, { x: 1 }],
              ...known.map((_, j) => [lmsWeight(nodes, j, sigma, sigmas[i + 1]!), history.ago(j)] as const)
            )
          )
        ]
      }
    })
  }
}

/** Four-point Gauss-Legendre on [−1, 1]: exact up to degree 7, and Lagrange's polynomials here have at most 6. */
const gauss = [
  [0.3399810435848563, 0.6521451548625461],
  [0.8611363115940526, 0.3478548451374538]
].flatMap(([u, w]) => [[-u!, w!] as const, [u!, w!] as const])

/** ∫ of Lagrange's polynomial `j` over the nodes, between two σ. */
const lmsWeight = (nodes: readonly number[], j: number, from: number, to: number): number => {
  const half = (to - from) / 2
  return gauss.reduce((sum, [u, w]) => {
    const tau = from + half * (1 + u)
    return sum + half * w * nodes.reduce((p, s, k) => (k === j ? p : (p * (tau - s)) / (nodes[j]! - s)), 1)
  }, 0)
}
