/** Fourth-order improved PNDM (k-diffusion's sample_plms for v-diffusion models), x = α·x₀ + σ·ε with σ = sin²(πt/2). diffusers: IPNDMScheduler. */
import { invalidArgument } from '../errors.js'
import { f32, linspaceF32 } from './numerics.js'
import { integer, maybe, numbers, type ConfigOf } from './options.js'
import { refuseCustom, type PlanOptions } from './plan-options.js'
import { combine, History, registers, write, type RowSpec } from './plan-rows.js'
import { adamsBashforth } from './pndm.js'
import { requireRow, Scheduler, type Schedule } from './scheduler.js'

export const ipndmOptions = {
  numTrainTimesteps: integer(1000, 1),
  /** σ of every row and of the end: as many as steps + 1. */
  trainedBetas: maybe(numbers)
}
/** Options of IPNDMScheduler, with diffusers' names and defaults. */
export type IPNDMConfig = ConfigOf<typeof ipndmOptions>

interface IPNDMSchedule extends Schedule {
  readonly alpha: readonly number[]
  readonly sigma: readonly number[]
}

/**
 * diffusers' IPNDMScheduler as a step plan.
 * @throws DiffusionError ERR_ND_INVALID_ARGUMENT for options that are unknown or out of range
 */
export class IPNDMScheduler extends Scheduler<typeof ipndmOptions, IPNDMSchedule> {
  static override readonly className = 'IPNDMScheduler'
  static override readonly options = ipndmOptions

  protected schedule(steps: number, options: PlanOptions): IPNDMSchedule {
    refuseCustom(this.className, options, 'timesteps', 'sigmas')
    const { trainedBetas } = this.config
    if (trainedBetas && trainedBetas.length !== steps + 1)
      throw invalidArgument('steps', `${trainedBetas.length - 1}, one less than trainedBetas`, steps)
    const sigma =
      trainedBetas?.map(f32) ??
      [...linspaceF32(1, 0, steps + 1).slice(0, -1), 0].map((s) => f32(f32(Math.sin(f32((s * Math.PI) / 2))) ** 2))
    const alpha = sigma.map((s) => f32(Math.sqrt(f32(1 - f32(s * s)))))
    const timesteps = sigma.slice(0, -1).map((s, i) => f32((Math.atan2(s, alpha[i]!) / Math.PI) * 2))
    return { timesteps, alpha, sigma }
  }

  protected rows({ timesteps, alpha, sigma }: IPNDMSchedule, begin: number): RowSpec[] {
    const history = new History(registers(0, 4))
    return timesteps.slice(begin).map((timestep, k) => {
      const i = begin + k
      const [a, s] = [alpha[i]!, sigma[i]!]
      const push = history.push({ x: s, m: a }) // the noise that the predicted velocity implies
      const newest = history.ago(0)
      // the newest output over {x, m}: at t = 1 the two big weights of x cancel exactly only here, not in registers
      const slope = combine(
        ...Object.entries(adamsBashforth(history)).map(
          ([name, w]) => [1, name in newest ? { x: w * s, m: w * a } : { [name]: w }] as const
        )
      )
      const scale = alpha[i + 1]! / Math.max(a, 1e-8)
      return {
        timestep,
        convert: { a, b: -s, c: 0, d: 1 },
        writes: [push, write('x', combine([scale, { x: 1 }], [-scale * s, slope], [sigma[i + 1]!, slope]))]
      }
    })
  }

  protected levelAt({ alpha, sigma }: IPNDMSchedule, index: number): readonly [number, number] {
    return [alpha[index]!, sigma[index]!]
  }
  protected levelOf(schedule: IPNDMSchedule, timestep: number): readonly [number, number] {
    return this.levelAt(schedule, requireRow(schedule.timesteps, timestep))
  }
  protected training(): IPNDMSchedule {
    return this.schedule(
      this.config.trainedBetas ? this.config.trainedBetas.length - 1 : this.config.numTrainTimesteps,
      {}
    )
  }
}
