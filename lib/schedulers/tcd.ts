/** Trajectory Consistency Distillation (Zheng et al. 2024, algorithm 4: strategic stochastic sampling). diffusers: TCDScheduler. */
import { invalidArgument } from '../errors.js'
import { AlphaScheduler } from './alphas.js'
import { distilledTimesteps } from './distilled.js'
import { lcmOptions } from './lcm.js'
import { f32 } from './numerics.js'
import type { ConfigOf } from './options.js'
import { refuseCustom, type PlanOptions } from './plan-options.js'
import { combine, write, type RowSpec } from './plan-rows.js'
import { convertToOriginal, predict } from './prediction.js'
import { velocity, type Schedule } from './scheduler.js'

/** LCM's. The clipping, thresholding, spacing and scaling options are kept for their configs; the method does not use them. */
export const tcdOptions = lcmOptions
/** Options of TCDScheduler, with diffusers' names and defaults. */
export type TCDConfig = ConfigOf<typeof tcdOptions>

/**
 * diffusers' TCDScheduler as a step plan.
 * @throws DiffusionError ERR_ND_INVALID_ARGUMENT for options that are unknown or out of range
 */
export class TCDScheduler extends AlphaScheduler<typeof tcdOptions> {
  static override readonly className = 'TCDScheduler'
  static override readonly options = tcdOptions

  protected schedule(steps: number, options: PlanOptions): Schedule {
    refuseCustom(this.className, options, 'sigmas')
    const { originalInferenceSteps: asked } = options
    const original = asked ?? this.config.originalInferenceSteps
    return {
      timesteps: distilledTimesteps(this.config.numTrainTimesteps, original, steps, options, asked !== undefined)
    }
  }

  /** From t to s = (1 − γ)·t' along the trajectory, then noise from s up to t'. */
  protected rows({ timesteps }: Schedule, begin: number, { eta: gamma = 0.3 }: PlanOptions): RowSpec[] {
    if (gamma > 1) throw invalidArgument('eta', 'a number from 0 to 1 (TCD’s γ)', gamma)
    return timesteps.slice(begin).map((t, k) => {
      const last = begin + k === timesteps.length - 1
      const next = last ? 0 : timesteps[begin + k + 1]!
      const s = Math.floor(f32(f32(1 - gamma) * next)) // float32, as torch multiplies: decides which timestep
      const alpha = this.alpha(t)
      const alphaS = this.alpha(s)
      const ratio = this.alpha(next) / alphaS
      const { original, noise } = predict(this.config.predictionType, Math.sqrt(alpha), Math.sqrt(1 - alpha))
      const noised = combine([Math.sqrt(alphaS), { h: 1 }], [Math.sqrt(1 - alphaS), noise])
      const renoise = gamma > 0 && !last
      return {
        timestep: t,
        convert: convertToOriginal(original),
        writes: [write('x', renoise ? combine([Math.sqrt(ratio), noised], [Math.sqrt(1 - ratio), { n: 1 }]) : noised)],
        draws: renoise ? 1 : 0
      }
    })
  }

  /** √ᾱ·noise − √(1 − ᾱ)·x. */
  getVelocity(x: ArrayLike<number>, noise: ArrayLike<number>, timestep: number): Float32Array {
    return velocity(this.noiseLevel(timestep), x, noise)
  }
}
