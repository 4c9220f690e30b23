/** Euler's method in the preconditioning of EDM (Karras et al. 2022, table 1, last column). diffusers: EDMEulerScheduler. */
import { churn } from './churn.js'
import { f32, linspace, linspaceF32 } from './numerics.js'
import { choice, integer, positive, type ConfigOf, type Schema } from './options.js'
import { refuseCustom, type PlanOptions } from './plan-options.js'
import { combine, write, type RowSpec, type Terms } from './plan-rows.js'
import { convertToOriginal, predictionOption } from './prediction.js'
import { requireRow, Scheduler, type Schedule } from './scheduler.js'

export const edmOptions = {
  sigmaMin: positive(0.002),
  sigmaMax: positive(80),
  /** Standard deviation of the data. */
  sigmaData: positive(0.5),
  sigmaSchedule: choice('karras', ['karras', 'exponential']),
  numTrainTimesteps: integer(1000, 1),
  predictionType: predictionOption('epsilon', 'v_prediction'),
  rho: positive(7),
  finalSigmasType: choice('zero', ['zero', 'sigma_min'])
}
/** Options of EDMEulerScheduler, with diffusers' names and defaults. */
export type EDMEulerConfig = ConfigOf<typeof edmOptions>

export interface EDMSchedule extends Schedule {
  readonly sigmas: readonly number[]
}
interface EDMConfig {
  readonly sigmaMin: number
  readonly sigmaMax: number
  readonly sigmaData: number
  readonly sigmaSchedule: 'karras' | 'exponential'
  readonly numTrainTimesteps: number
  readonly predictionType: 'epsilon' | 'v_prediction'
  readonly rho: number
  readonly finalSigmasType: 'zero' | 'sigma_min'
}

/** Sigmas, c_noise = ¼ ln σ as the timestep, c_in, and x₀ = c_skip·x + c_out·m. */
export abstract class EDMScheduler<S extends Schema> extends Scheduler<S, EDMSchedule> {
  protected get edm(): EDMConfig {
    return this.config as unknown as EDMConfig
  }

  /** @param ramp 0 … 1, one per row: how far from sigmaMax to sigmaMin. */
  protected fromRamp(ramp: readonly number[], finalSigma: 'row' | 'config'): EDMSchedule {
    const { sigmaMin, sigmaMax, sigmaSchedule, rho, finalSigmasType } = this.edm
    const [low, high] = [sigmaMin ** (1 / rho), sigmaMax ** (1 / rho)]
    const sigmas =
      sigmaSchedule === 'karras'
        ? ramp.map((r) => f32((high + r * (low - high)) ** rho))
        : linspaceF32(Math.log(sigmaMin), Math.log(sigmaMax), ramp.length)
            .map((l) => f32(Math.exp(l)))
            .reverse()
    const cleanest = finalSigma === 'row' ? sigmas[sigmas.length - 1]! : f32(sigmaMin)
    return {
      timesteps: sigmas.map((s) => f32(0.25 * f32(Math.log(s)))),
      sigmas: [...sigmas, finalSigmasType === 'zero' ? 0 : cleanest],
      initNoiseSigma: Math.sqrt(sigmaMax ** 2 + 1)
    }
  }
  protected inputScale(sigma: number): number {
    return 1 / Math.sqrt(sigma ** 2 + this.edm.sigmaData ** 2)
  }
  protected original(sigma: number): Terms {
    const { sigmaData, predictionType } = this.edm
    const norm = sigma ** 2 + sigmaData ** 2
    const out = (sigma * sigmaData) / Math.sqrt(norm)
    return { x: sigmaData ** 2 / norm, m: predictionType === 'v_prediction' ? -out : out }
  }

  protected levelAt({ sigmas }: EDMSchedule, index: number): readonly [number, number] {
    return [1, sigmas[index]!]
  }
  protected levelOf(schedule: EDMSchedule, timestep: number): readonly [number, number] {
    return this.levelAt(schedule, requireRow(schedule.timesteps, timestep))
  }
  protected training(): EDMSchedule {
    return this.fromRamp(linspace(0, 1, this.edm.numTrainTimesteps + 1), 'row')
  }
}

/**
 * diffusers' EDMEulerScheduler as a step plan.
 * @throws DiffusionError ERR_ND_INVALID_ARGUMENT for options that are unknown or out of range
 */
export class EDMEulerScheduler extends EDMScheduler<typeof edmOptions> {
  static override readonly className = 'EDMEulerScheduler'
  static override readonly options = edmOptions

  protected schedule(steps: number, options: PlanOptions): EDMSchedule {
    refuseCustom(this.className, options, 'timesteps', 'sigmas')
    return this.fromRamp(linspace(0, 1, steps), 'row')
  }

  protected rows({ timesteps, sigmas }: EDMSchedule, begin: number, options: PlanOptions): RowSpec[] {
    return timesteps.slice(begin).map((timestep, k) => {
      const sigma = sigmas[begin + k]!
      const { sigmaHat, noise, draws } = churn(sigma, sigmas.length - 1, options)
      const original = this.original(sigmaHat)
      const hat = { x: 1, n: noise }
      const predicted = combine([original.x!, hat], [original.m!, { m: 1 }])
      const step = (sigmas[begin + k + 1]! - sigmaHat) / sigmaHat
      return {
        timestep,
        inputScale: this.inputScale(sigma),
        convert: convertToOriginal(original),
        writes: [write('x', combine([1 + step, hat], [-step, predicted]))],
        draws
      }
    })
  }
}
