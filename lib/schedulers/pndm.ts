/**
 * Pseudo Numerical Methods for Diffusion Models on Manifolds (Liu et al. 2022): three Runge-Kutta steps (PRK) and then
 * the linear multistep method, or, with skipPrkSteps, the latter alone (PLMS). diffusers: PNDMScheduler.
 */
import { invalidArgument } from '../errors.js'
import { AlphaScheduler } from './alphas.js'
import { betaOptions } from './betas.js'
import { flag, type ConfigOf } from './options.js'
import { refuseCustom, type PlanOptions } from './plan-options.js'
import { combine, History, registers, scale, write, type RowSpec, type Terms } from './plan-rows.js'
import { convertToOriginal, predict, predictionOption } from './prediction.js'
import type { Schedule } from './scheduler.js'
import { spacedTimesteps, spacingOptions } from './spacing.js'

export const pndmOptions = {
  ...betaOptions,
  /** Stable Diffusion: true. */
  skipPrkSteps: flag(false),
  setAlphaToOne: flag(false),
  predictionType: predictionOption('epsilon', 'v_prediction'),
  ...spacingOptions('leading')
}
/** Options of PNDMScheduler, with diffusers' names and defaults. */
export type PNDMConfig = ConfigOf<typeof pndmOptions>

interface PNDMSchedule extends Schedule {
  readonly steps: number
  /** How many of the rows are Runge-Kutta stages. */
  readonly prk: number
}

/**
 * diffusers' PNDMScheduler as a step plan.
 * @throws DiffusionError ERR_ND_INVALID_ARGUMENT for options that are unknown or out of range
 */
export class PNDMScheduler extends AlphaScheduler<typeof pndmOptions, PNDMSchedule> {
  static override readonly className = 'PNDMScheduler'
  static override readonly options = pndmOptions

  protected schedule(steps: number, options: PlanOptions): PNDMSchedule {
    refuseCustom(this.className, options, 'timesteps', 'sigmas')
    const spaced = spacedTimesteps(this.config, steps)
    if (this.config.skipPrkSteps) {
      // the second timestep twice: the first step is taken again with a better ε
      const timesteps = spaced.length > 1 ? [spaced[0]!, spaced[1]!, ...spaced.slice(1)] : spaced
      return { timesteps, steps, prk: 0 }
    }
    if (spaced.length < 4) throw invalidArgument('steps', 'at least 4 (PNDMScheduler with skipPrkSteps false)', steps)
    const half = Math.floor(Math.floor(this.config.numTrainTimesteps / steps) / 2)
    // from t₀ over the midpoint (twice) to t₁, and so on, three times
    const stages = [0, 1, 2].flatMap((i) => {
      const middle = spaced[i + 1]! + half
      return [spaced[i]!, middle, middle, spaced[i + 1]!]
    })
    return { timesteps: [...stages, ...spaced.slice(3)], steps, prk: stages.length }
  }

  protected rows({ timesteps, steps, prk }: PNDMSchedule, begin: number): RowSpec[] {
    const { config } = this
    const stride = Math.floor(config.numTrainTimesteps / steps)
    const history = new History(registers(0, 4))
    const [start, sum] = ['r4', 'r5'] as const
    const rows: RowSpec[] = []
    // counted from where the run begins, as diffusers' `counter`
    for (let counter = 0; begin + counter < timesteps.length; counter++) {
      const t = timesteps[begin + counter]!
      const writes = []
      let step = true
      // begun within the stages (img2img), diffusers still counts the full number of them
      if (counter < prk) {
        const stage = counter % 4
        const from = timesteps[Math.floor(counter / 4) * 4]!
        const to = t - (stage % 2 ? 0 : Math.floor(stride / 2))
        if (stage === 0) writes.push(write(sum, { m: 1 / 6 }), history.push({ m: 1 }), write(start, { x: 1 }))
        else if (stage < 3) writes.push(write(sum, { [sum]: 1, m: 1 / 3 }))
        const output: Terms = stage < 3 ? { m: 1 } : { [sum]: 1, m: 1 / 6 }
        writes.push(write('x', this.transfer(from, to, { [start]: 1 }, output)))
        step = stage === 3
      } else if (counter === 1) {
        // the first step once more from its start, with the mean of both ends
        writes.push(
          write('x', this.transfer(t + stride, t, { [start]: 1 }, combine([0.5, { m: 1 }], [0.5, history.ago(0)])))
        )
      } else {
        writes.push(history.push({ m: 1 }))
        if (counter === 0) {
          writes.push(write(start, { x: 1 }))
          step = timesteps.length === 1
        }
        writes.push(write('x', this.transfer(t, t - stride, { x: 1 }, adamsBashforth(history))))
      }
      const alpha = this.alpha(t)
      const { original } = predict(config.predictionType, Math.sqrt(alpha), Math.sqrt(1 - alpha))
      rows.push({ timestep: t, convert: convertToOriginal(original), writes, step })
    }
    return rows
  }

  /** φ of equation 11: x at `from` moved to `to` along the model's `output`. */
  private transfer(from: number, to: number, x: Terms, output: Terms): Terms {
    const final = this.config.setAlphaToOne ? 1 : this.alphasCumprod[0]!
    const alpha = this.alpha(from)
    const previous = this.alpha(to, final)
    const [root, rootBeta] = [Math.sqrt(alpha), Math.sqrt(1 - alpha)]
    const epsilon = this.config.predictionType === 'v_prediction' ? combine([root, output], [rootBeta, x]) : output
    const denominator = alpha * Math.sqrt(1 - previous) + Math.sqrt(alpha * (1 - alpha) * previous)
    return combine([Math.sqrt(previous / alpha), x], [-(previous - alpha) / denominator, epsilon])
  }
}

/** Adams-Bashforth over the outputs held, order 1 to 4 (equation 12). */
export const adamsBashforth = (history: History): Terms => {
  const weights = [[1], [3 / 2, -1 / 2], [23 / 12, -16 / 12, 5 / 12], [55 / 24, -59 / 24, 37 / 24, -9 / 24]][
    Math.min(history.length, 4) - 1
  ]!
  return combine(...weights.map((w, i) => [1, scale(w, history.ago(i))] as const))
}
