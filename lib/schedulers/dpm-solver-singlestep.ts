/**
 * DPM-Solver and DPM-Solver++, single-step (Lu et al. 2022a, 2022b): the steps come in groups of growing order, the
 * later ones of a group starting again from its first sample. diffusers: DPMSolverSinglestepScheduler.
 */
import {
  firstOrder,
  isData,
  isStochastic,
  secondOrder,
  thirdOrder,
  usableOrder,
  type DpmAlgorithm
} from './dpm-solver.js'
import { checkFinalSigma, checkFlow, dpmSolverOptions, solverOutput } from './dpm-solver-multistep.js'
import { unsupported } from '../errors.js'
import { choice, flag, type ConfigOf } from './options.js'
import { refuseCustom, type PlanOptions } from './plan-options.js'
import { combine, History, registers, write, type RowSpec, type Terms } from './plan-rows.js'
import { solverTimesteps } from './spacing.js'
import { VariancePreservingScheduler, variancePreservingOptions, type SolverSchedule } from './variance-preserving.js'

export const dpmSolverSinglestepOptions = {
  ...variancePreservingOptions,
  solverOrder: dpmSolverOptions.solverOrder,
  algorithmType: choice<DpmAlgorithm>('dpmsolver++', ['dpmsolver', 'dpmsolver++', 'sde-dpmsolver++'], {
    deis: 'dpmsolver++'
  }),
  solverType: dpmSolverOptions.solverType,
  lowerOrderFinal: flag(false),
  finalSigmasType: choice('zero', ['zero', 'sigma_min']),
  lambdaMinClipped: dpmSolverOptions.lambdaMinClipped,
  varianceType: dpmSolverOptions.varianceType,
  useDynamicShifting: flag(false),
  timeShiftType: choice('exponential', ['exponential', 'linear'])
}
/** Options of DPMSolverSinglestepScheduler, with diffusers' names and defaults. */
export type DPMSolverSinglestepConfig = ConfigOf<typeof dpmSolverSinglestepOptions>

/** The order of every step. The groups end so that the last steps have low orders, unless all groups are whole. */
const orders = (steps: number, order: number, lowerFinal: boolean, finalZero: boolean): number[] => {
  const groups = (count: number, upTo: number): number[] =>
    Array.from({ length: Math.max(count, 0) }, () => Array.from({ length: upTo }, (_, i) => i + 1)).flat()
  // diffusers lowers the final orders by itself where the groups do not come out even, or σ ends at 0
  const lower = lowerFinal || steps % order !== 0 || finalZero
  const rest = steps % order
  const list = !lower
    ? groups(steps / order, order)
    : order === 3
      ? rest === 0
        ? [...groups(steps / 3 - 1, 3), 1, 2, 1]
        : [...groups((steps - rest) / 3, 3), ...(rest === 1 ? [1] : [1, 2])]
      : order === 2
        ? rest === 0
          ? [...groups(steps / 2 - 1, 2), 1, 1]
          : [...groups((steps - 1) / 2, 2), 1]
        : groups(steps, 1)
  if (finalZero) list[list.length - 1] = 1
  return list
}

/**
 * diffusers' DPMSolverSinglestepScheduler as a step plan.
 * @throws DiffusionError ERR_ND_INVALID_ARGUMENT for options that are unknown or out of range
 */
export class DPMSolverSinglestepScheduler extends VariancePreservingScheduler<typeof dpmSolverSinglestepOptions> {
  static override readonly className = 'DPMSolverSinglestepScheduler'
  static override readonly options = dpmSolverSinglestepOptions

  constructor(config: DPMSolverSinglestepConfig = {}) {
    super(config)
    if (this.config.solverOrder > 3)
      throw unsupported(
        `DPMSolverSinglestepScheduler with solverOrder ${this.config.solverOrder} is not supported: use at most 3`
      )
    checkFinalSigma(this.config.algorithmType, this.config.finalSigmasType)
    checkFlow(this.config)
  }

  protected schedule(steps: number, options: PlanOptions): SolverSchedule {
    refuseCustom(this.className, options, 'sigmas')
    const { config } = this
    const custom = options.timesteps?.map(Math.trunc)
    const all = { ...config, timestepSpacing: 'linspace', stepsOffset: 0 } as const
    const spaced = this.spaced(steps, custom ?? solverTimesteps(all, steps, this.unclipped()), options, { custom })
    return { ...spaced, sigmas: [...spaced.sigmas, config.finalSigmasType === 'zero' ? 0 : this.trained[0]!] }
  }

  protected rows({ timesteps, sigmas }: SolverSchedule, begin: number): RowSpec[] {
    const { config } = this
    const { algorithmType: algorithm, solverOrder } = config
    const list = orders(timesteps.length, solverOrder, config.lowerOrderFinal, config.finalSigmasType === 'zero')
    const history = new History(registers(0, solverOrder))
    const sample = 'r7' as const
    return timesteps.slice(begin).map((timestep, k) => {
      const i = begin + k
      const { convert, kept } = solverOutput(config, isData(algorithm), sigmas[i]!, this.level(sigmas[i]!))
      const writes = [history.push(kept)]
      const order = Math.min(list[i]!, history.length)
      if (order === 1) writes.push(write(sample, { x: 1 }))
      writes.push(write('x', this.update(order, sigmas, i, history, { [sample]: 1 })))
      return { timestep, convert, writes, draws: isStochastic(algorithm) ? 1 : 0 }
    })
  }

  /** The step of this order from the group's sample, which lies order − 1 levels back. */
  private update(order: number, sigmas: readonly number[], i: number, history: History, x: Terms): Terms {
    const { algorithmType: algorithm, solverType } = this.config
    const to = this.level(sigmas[i + 1]!)
    const [s0, s1, s2] = Array.from({ length: order }, (_, j) => this.level(sigmas[i - j]!))
    const [m0, m1, m2] = Array.from({ length: order }, (_, j) => history.ago(j))
    const levels = [s0!, s1!, s2!].slice(0, order)
    if (usableOrder(order, to, levels) < order) return firstOrder(algorithm, s0!, to, m0!)
    if (order === 1) return firstOrder(algorithm, s0!, to, m0!)
    const from = order === 2 ? s1! : s2!
    const h = to.lambda - from.lambda
    const r0 = (s0!.lambda - from.lambda) / h
    if (order === 2) return secondOrder(algorithm, solverType, from, to, m1!, combine([1 / r0, m0!], [-1 / r0, m1!]), x)
    const r1 = (s1!.lambda - from.lambda) / h
    const d10 = combine([1 / r1, m1!], [-1 / r1, m2!])
    const d11 = combine([1 / r0, m0!], [-1 / r0, m2!])
    if (solverType === 'midpoint') return thirdOrder(algorithm, from, to, m2!, d11, undefined, x)
    const d1 = combine([r0 / (r0 - r1), d10], [-r1 / (r0 - r1), d11])
    const d2 = combine([2 / (r0 - r1), d11], [-2 / (r0 - r1), d10])
    return thirdOrder(algorithm, from, to, m2!, d1, d2, x)
  }
}
