/** Heun's second-order method on rectified flow. diffusers: FlowMatchHeunDiscreteScheduler. */
import { churn } from './churn.js'
import { FlowMatchScheduler, shifted, type FlowSchedule } from './flow-match-euler-discrete.js'
import { doubled } from './karras.js'
import { f32 } from './numerics.js'
import { integer, positive, type ConfigOf } from './options.js'
import { refuseCustom, type PlanOptions } from './plan-options.js'
import { combine, write, type RowSpec } from './plan-rows.js'
import { convertToOriginal } from './prediction.js'

export const flowMatchHeunDiscreteOptions = {
  numTrainTimesteps: integer(1000, 1),
  shift: positive(1)
}
/** Options of FlowMatchHeunDiscreteScheduler, with diffusers' names and defaults. */
export type FlowMatchHeunDiscreteConfig = ConfigOf<typeof flowMatchHeunDiscreteOptions>

/**
 * diffusers' FlowMatchHeunDiscreteScheduler as a step plan.
 * @throws DiffusionError ERR_ND_INVALID_ARGUMENT for options that are unknown or out of range
 */
export class FlowMatchHeunDiscreteScheduler extends FlowMatchScheduler<typeof flowMatchHeunDiscreteOptions> {
  static override readonly className = 'FlowMatchHeunDiscreteScheduler'
  static override readonly options = flowMatchHeunDiscreteOptions
  override readonly order = 2

  protected schedule(steps: number, options: PlanOptions): FlowSchedule {
    refuseCustom(this.className, options, 'timesteps', 'sigmas')
    const sigmas = this.evenSigmas(steps).map((s) => f32(shifted(this.config.shift, s)))
    return {
      timesteps: doubled(sigmas.map((s) => f32(s * this.config.numTrainTimesteps))),
      sigmas: [...doubled(sigmas), 0]
    }
  }

  protected rows({ timesteps, sigmas }: FlowSchedule, begin: number, options: PlanOptions): RowSpec[] {
    return timesteps.slice(begin).map((timestep, k) => {
      const i = begin + k
      const second = i % 2 === 1
      const sigma = sigmas[second ? i - 1 : i]!
      const next = sigmas[second ? i : i + 1]!
      const { sigmaHat, noise, draws } = churn(sigma, sigmas.length - 1, options)
      const dt = next - sigmaHat
      const slope = { m: sigma / sigmaHat }
      const hat = { x: 1, n: noise }
      const last = i === timesteps.length - 1
      return {
        timestep,
        convert: convertToOriginal({ x: 1, m: -(second ? next : sigma) }),
        level: second ? [1 - next, next] : [1 - sigma, sigma],
        // the churn of the second stage has no effect on x: its slope is m itself; only the generator moves on
        writes: second
          ? [write('x', combine([1, { r0: 1 }], [dt / 2, { r1: 1 }], [dt / 2, { m: 1 }]))]
          : [...(last ? [] : [write('r0', hat), write('r1', slope)]), write('x', combine([1, hat], [dt, slope]))],
        draws,
        step: second || last
      }
    })
  }
}
