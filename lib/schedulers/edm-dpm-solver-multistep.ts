/** DPM-Solver++ multistep in the preconditioning of EDM (α = 1). diffusers: EDMDPMSolverMultistepScheduler. */
import { unsupported } from '../errors.js'
import { dpmSolverOptions, multistepOrder } from './dpm-solver-multistep.js'
import { isStochastic, multistep, type DpmAlgorithm, type Level } from './dpm-solver.js'
import { edmOptions, EDMScheduler, type EDMSchedule } from './edm-euler.js'
import { linspaceF32 } from './numerics.js'
import { choice, type ConfigOf } from './options.js'
import { refuseCustom, type PlanOptions } from './plan-options.js'
import { History, registers, write, type RowSpec } from './plan-rows.js'
import { convertToOriginal, thresholdOptions } from './prediction.js'

export const edmDPMSolverMultistepOptions = {
  ...edmOptions,
  solverOrder: dpmSolverOptions.solverOrder,
  ...thresholdOptions,
  algorithmType: choice<DpmAlgorithm>('dpmsolver++', ['dpmsolver++', 'sde-dpmsolver++'], { deis: 'dpmsolver++' }),
  solverType: dpmSolverOptions.solverType,
  lowerOrderFinal: dpmSolverOptions.lowerOrderFinal,
  eulerAtFinal: dpmSolverOptions.eulerAtFinal
}
/** Options of EDMDPMSolverMultistepScheduler, with diffusers' names and defaults. */
export type EDMDPMSolverMultistepConfig = ConfigOf<typeof edmDPMSolverMultistepOptions>

const level = (sigma: number): Level => ({ alpha: 1, sigma, lambda: -Math.log(sigma) })

/**
 * diffusers' EDMDPMSolverMultistepScheduler as a step plan.
 * @throws DiffusionError ERR_ND_INVALID_ARGUMENT for options that are unknown or out of range
 */
export class EDMDPMSolverMultistepScheduler extends EDMScheduler<typeof edmDPMSolverMultistepOptions> {
  static override readonly className = 'EDMDPMSolverMultistepScheduler'
  static override readonly options = edmDPMSolverMultistepOptions

  constructor(config: EDMDPMSolverMultistepConfig = {}) {
    super(config)
    if (this.config.solverOrder > 2 && isStochastic(this.config.algorithmType))
      throw unsupported("EDMDPMSolverMultistepScheduler has no third-order 'sde-dpmsolver++': set solverOrder to 2")
  }

  protected schedule(steps: number, options: PlanOptions): EDMSchedule {
    refuseCustom(this.className, options, 'timesteps', 'sigmas')
    return this.fromRamp(linspaceF32(0, 1, steps), 'config')
  }

  protected rows({ timesteps, sigmas }: EDMSchedule, begin: number): RowSpec[] {
    const { config } = this
    const history = new History(registers(0, Math.min(config.solverOrder, 3)))
    return timesteps.slice(begin).map((timestep, k) => {
      const i = begin + k
      const order = multistepOrder(config, i, timesteps.length, k)
      const levels = Array.from({ length: order }, (_, j) => level(sigmas[i - j]!))
      const push = history.push({ h: 1 })
      const outputs = levels.map((_, j) => history.ago(j))
      return {
        timestep,
        inputScale: this.inputScale(sigmas[i]!),
        convert: convertToOriginal(this.original(sigmas[i]!), config),
        writes: [
          push,
          write('x', multistep(config.algorithmType, config.solverType, order, level(sigmas[i + 1]!), levels, outputs))
        ],
        draws: isStochastic(config.algorithmType) ? 1 : 0
      }
    })
  }
}
