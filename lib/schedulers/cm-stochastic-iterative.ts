/** Consistency models, multistep (Song et al. 2023, algorithm 1). diffusers: CMStochasticIterativeScheduler. */
import { f32 } from './numerics.js'
import { flag, integer, number, positive, type ConfigOf } from './options.js'
import { checkFalling, refuseCustom, type PlanOptions } from './plan-options.js'
import { write, type RowSpec } from './plan-rows.js'
import { convertToOriginal } from './prediction.js'
import { requireRow, Scheduler, type Schedule } from './scheduler.js'

export const cmStochasticIterativeOptions = {
  numTrainTimesteps: integer(40, 2),
  sigmaMin: positive(0.002),
  sigmaMax: positive(80),
  sigmaData: positive(0.5),
  /** Scale of the noise put back between the steps. */
  sNoise: number(1),
  rho: positive(7),
  /** Clip x₀ to ±1. */
  clipDenoised: flag(true)
}
/** Options of CMStochasticIterativeScheduler, with diffusers' names and defaults. */
export type CMStochasticIterativeConfig = ConfigOf<typeof cmStochasticIterativeOptions>

interface CMSchedule extends Schedule {
  readonly sigmas: readonly number[]
}

/**
 * diffusers' CMStochasticIterativeScheduler as a step plan.
 * @throws DiffusionError ERR_ND_INVALID_ARGUMENT for options that are unknown or out of range
 */
export class CMStochasticIterativeScheduler extends Scheduler<typeof cmStochasticIterativeOptions, CMSchedule> {
  static override readonly className = 'CMStochasticIterativeScheduler'
  static override readonly options = cmStochasticIterativeOptions

  /** @param indices rising, 0 … T − 1: places in the schedule of the training. */
  private at(indices: readonly number[]): CMSchedule {
    const { numTrainTimesteps: T, sigmaMin, sigmaMax, rho } = this.config
    const [low, high] = [sigmaMin ** (1 / rho), sigmaMax ** (1 / rho)]
    const sigmas = indices.map((i) => (high + (i / (T - 1)) * (low - high)) ** rho)
    return {
      timesteps: sigmas.map((s) => 250 * Math.log(s + 1e-44)),
      sigmas: [...sigmas, sigmaMin].map(f32),
      initNoiseSigma: sigmaMax
    }
  }

  /** `timesteps` of the plan options are places in the training schedule, falling. */
  protected schedule(steps: number, options: PlanOptions): CMSchedule {
    refuseCustom(this.className, options, 'sigmas')
    const { numTrainTimesteps: T } = this.config
    if (options.timesteps) {
      checkFalling(options.timesteps, T)
      return this.at([...options.timesteps].reverse())
    }
    const stride = Math.floor(T / steps)
    return this.at(Array.from({ length: steps }, (_, i) => i * stride))
  }

  protected rows({ timesteps, sigmas }: CMSchedule, begin: number): RowSpec[] {
    const { sigmaMin, sigmaMax, sigmaData, sNoise, clipDenoised } = this.config
    const draws = timesteps.length > 1 ? 1 : 0
    return timesteps.slice(begin).map((timestep, k) => {
      const sigma = sigmas[begin + k]!
      // c_skip and c_out of equation 5: the identity at σ_min
      const skip = sigmaData ** 2 / ((sigma - sigmaMin) ** 2 + sigmaData ** 2)
      const out = ((sigma - sigmaMin) * sigmaData) / Math.sqrt(sigma ** 2 + sigmaData ** 2)
      const next = Math.min(Math.max(sigmas[begin + k + 1]!, sigmaMin), sigmaMax)
      return {
        timestep,
        inputScale: 1 / Math.sqrt(sigma ** 2 + sigmaData ** 2),
        convert: convertToOriginal({ x: skip, m: out }, { clipSample: clipDenoised }),
        writes: [write('x', { h: 1, n: draws * sNoise * Math.sqrt(next ** 2 - sigmaMin ** 2) })],
        draws
      }
    })
  }

  protected levelAt({ sigmas }: CMSchedule, index: number): readonly [number, number] {
    return [1, sigmas[index]!]
  }
  protected levelOf(schedule: CMSchedule, timestep: number): readonly [number, number] {
    return this.levelAt(schedule, requireRow(schedule.timesteps, timestep))
  }
  protected training(): CMSchedule {
    return this.at(Array.from({ length: this.config.numTrainTimesteps }, (_, i) => i))
  }
}
