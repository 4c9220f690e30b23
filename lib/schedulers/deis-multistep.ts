/** DEIS, log-ρ multistep (Zhang and Chen 2022): the ε-form ODE with polynomials in log ρ, ρ = σ/α. diffusers: DEISMultistepScheduler. */
import { firstOrder, usableOrder, type Level } from './dpm-solver.js'
import { solverOutput } from './dpm-solver-multistep.js'
import { choice, flag, integer, type ConfigOf } from './options.js'
import type { PlanOptions } from './plan-options.js'
import { combine, History, registers, write, type RowSpec, type Terms } from './plan-rows.js'
import { spacingOptions } from './spacing.js'
import { VariancePreservingScheduler, variancePreservingOptions, type SolverSchedule } from './variance-preserving.js'

export const deisMultistepOptions = {
  ...variancePreservingOptions,
  solverOrder: integer(2, 1),
  algorithmType: choice('deis', ['deis'], { dpmsolver: 'deis', 'dpmsolver++': 'deis' }),
  solverType: choice('logrho', ['logrho'], { midpoint: 'logrho', heun: 'logrho', bh1: 'logrho', bh2: 'logrho' }),
  lowerOrderFinal: flag(true),
  ...spacingOptions('linspace'),
  useDynamicShifting: flag(false),
  timeShiftType: choice('exponential', ['exponential', 'linear'])
}
/** Options of DEISMultistepScheduler, with diffusers' names and defaults. */
export type DEISMultistepConfig = ConfigOf<typeof deisMultistepOptions>

/**
 * diffusers' DEISMultistepScheduler as a step plan.
 * @throws DiffusionError ERR_ND_INVALID_ARGUMENT for options that are unknown or out of range
 */
export class DEISMultistepScheduler extends VariancePreservingScheduler<typeof deisMultistepOptions> {
  static override readonly className = 'DEISMultistepScheduler'
  static override readonly options = deisMultistepOptions

  protected schedule(steps: number, options: PlanOptions): SolverSchedule {
    return this.repeatedLast(steps, options)
  }

  protected rows({ timesteps, sigmas }: SolverSchedule, begin: number): RowSpec[] {
    const { config } = this
    const count = timesteps.length
    const short = config.lowerOrderFinal && count < 15
    const history = new History(registers(0, Math.min(config.solverOrder, 3)))
    return timesteps.slice(begin).map((timestep, k) => {
      const i = begin + k
      const most = short && i === count - 1 ? 1 : short && i === count - 2 ? 2 : 3
      const order = Math.min(config.solverOrder, k + 1, most)
      const levels = Array.from({ length: order }, (_, j) => this.level(sigmas[i - j]!))
      // ε is what x₀ implies; of flow prediction with the stored σ. They differ from the model's own only off α² + σ² = 1.
      const flow = config.predictionType === 'flow_prediction'
      const here = flow ? { ...levels[0]!, sigma: sigmas[i]! } : levels[0]!
      const { convert, kept } = solverOutput(config, false, sigmas[i]!, here, flow || config.useFlowSigmas)
      const push = history.push(kept)
      const outputs = levels.map((_, j) => history.ago(j))
      const to = this.level(sigmas[i + 1]!)
      return { timestep, convert, writes: [push, write('x', update(to, levels, outputs))] }
    })
  }
}

/** x/α moves by Σ ε_j · ∫ l_j dρ, l_j Lagrange's polynomial in log ρ over the known levels. */
const update = (to: Level, known: readonly Level[], outputs: readonly Terms[]): Terms => {
  const levels = known.slice(0, usableOrder(known.length, to, known))
  const from = levels[0]!
  if (levels.length === 1) return firstOrder('dpmsolver', from, to, outputs[0]!)
  const [start, end] = [-from.lambda, -to.lambda] // log ρ
  const nodes = levels.map((l) => -l.lambda)
  const weights = nodes.map((node, j) => {
    const others = nodes.filter((_, k) => k !== j)
    const norm = others.reduce((p, other) => p * (node - other), 1)
    return (integral(end, others) - integral(start, others)) / norm
  })
  return combine([to.alpha / from.alpha, { x: 1 }], ...weights.map((w, j) => [to.alpha * w, outputs[j]!] as const))
}

/** ∫ Π (log ρ − u) dρ over one or two roots u, at log ρ = l. */
const integral = (l: number, [b, c]: readonly number[]): number =>
  Math.exp(l) * (c === undefined ? l - 1 - b! : l * l - 2 * l + 2 - (b! + c) * (l - 1) + b! * c)
