/**
 * SA-Solver (Xue et al. 2023): stochastic Adams, a predictor (Bashforth) and a corrector (Moulton) on the SDE whose
 * noise is scaled by τ(t). The corrector repeats the last step with the same noise. diffusers: SASolverScheduler.
 */
import { unsupported } from '../errors.js'
import { checkFlow, dpmSolverOptions, solverOutput } from './dpm-solver-multistep.js'
import type { Level } from './dpm-solver.js'
import { choice, flag, fn, integer, type ConfigOf } from './options.js'
import type { PlanOptions } from './plan-options.js'
import { combine, History, registers, write, type RowSpec, type Terms } from './plan-rows.js'
import { spacingOptions } from './spacing.js'
import { VariancePreservingScheduler, variancePreservingOptions, type SolverSchedule } from './variance-preserving.js'

export const saSolverOptions = {
  ...variancePreservingOptions,
  predictorOrder: integer(2, 1),
  correctorOrder: integer(2, 1),
  /** τ(t) ≥ 0: 0 is the ODE, 1 the SDE. Null: 1 from t = 200 to 800, else 0. */
  tauFunc: fn,
  algorithmType: choice('data_prediction', ['data_prediction', 'noise_prediction']),
  lowerOrderFinal: flag(true),
  lambdaMinClipped: dpmSolverOptions.lambdaMinClipped,
  varianceType: dpmSolverOptions.varianceType,
  ...spacingOptions('linspace')
}
/** Options of SASolverScheduler, with diffusers' names and defaults. */
export type SASolverConfig = ConfigOf<typeof saSolverOptions>

const defaultTau = (t: number): number => (t >= 200 && t <= 800 ? 1 : 0)

/**
 * diffusers' SASolverScheduler as a step plan.
 * @throws DiffusionError ERR_ND_INVALID_ARGUMENT for options that are unknown or out of range
 */
export class SASolverScheduler extends VariancePreservingScheduler<typeof saSolverOptions> {
  static override readonly className = 'SASolverScheduler'
  static override readonly options = saSolverOptions

  constructor(config: SASolverConfig = {}) {
    super(config)
    const { predictorOrder, correctorOrder, algorithmType, predictionType } = this.config
    if (Math.max(predictorOrder, correctorOrder) > 4)
      throw unsupported(
        'SASolverScheduler with an order above 4 is not supported: lower predictorOrder and correctorOrder'
      )
    checkFlow({ algorithmType: algorithmType === 'data_prediction' ? 'dpmsolver++' : 'dpmsolver', predictionType })
  }

  protected schedule(steps: number, options: PlanOptions): SolverSchedule {
    return this.repeatedLast(steps, options)
  }

  protected rows({ timesteps, sigmas }: SolverSchedule, begin: number): RowSpec[] {
    const { config } = this
    const data = config.algorithmType === 'data_prediction'
    const size = Math.max(config.predictorOrder, config.correctorOrder - 1)
    const history = new History(registers(0, size))
    const last = 'r7' as const
    const tau = config.tauFunc ?? defaultTau
    let correctorOrder = 0
    return timesteps.slice(begin).map((timestep, k) => {
      const i = begin + k
      const at = (index: number): Level => this.level(sigmas[index]!)
      const { convert, kept } = solverOutput(config, data, sigmas[i]!, at(i), true)
      const writes = []
      if (k > 0) {
        // the step from i − 1 to i again, now with the output at its end and the noise it had
        const outputs = Array.from({ length: correctorOrder }, (_, j) => (j === 0 ? kept : history.ago(j - 1)))
        const nodes = outputs.map((_, j) => at(i - j))
        const t = tau(timesteps[i - 1]!)
        writes.push(write('x', adams(data, at(i - 1), at(i), nodes, outputs, t, true, { [last]: 1 }, 'nPrev')))
      }
      writes.push(history.push(kept), write(last, { x: 1 }))
      const left = timesteps.length - i
      const cap = config.lowerOrderFinal ? left : Infinity
      const known = Math.min(k, size)
      const order = Math.min(config.predictorOrder, cap, known + 1)
      correctorOrder = Math.min(config.correctorOrder, cap + 1, known + 2)
      const outputs = Array.from({ length: order }, (_, j) => history.ago(j))
      const nodes = outputs.map((_, j) => at(i - j))
      writes.push(write('x', adams(data, at(i), at(i + 1), nodes, outputs, tau(timestep), false, { x: 1 }, 'n')))
      return { timestep, convert, writes, draws: 1 }
    })
  }

  /** ᾱ of the training timestep, whatever the sigmas, as diffusers' add_noise of this class. */
  protected override levelOf(_: SolverSchedule, timestep: number): readonly [number, number] {
    return this.trainingLevel(timestep)
  }
  protected override levelAt({ timesteps }: SolverSchedule, index: number): readonly [number, number] {
    return this.trainingLevel(timesteps[index]!)
  }
}

/**
 * x at `to` from x at `from` (proposition 4.2, 4.3): Σ outputsⱼ · (1 + τ²)·α_t ∫ e^{c(λ − λ_t)} lⱼ dλ over the step with
 * c = 1 + τ², or −(1 + τ²)·σ_t and c = −1 for the noise form; lⱼ is Lagrange's polynomial over the nodes' λ.
 */
const adams = (
  data: boolean,
  from: Level,
  to: Level,
  known: readonly Level[],
  knownOutputs: readonly Terms[],
  tau: number,
  corrector: boolean,
  x: Terms,
  noise: 'n' | 'nPrev'
): Terms => {
  const h = to.lambda - from.lambda
  const c = data ? 1 + tau ** 2 : -1
  // equal neighbours (rounded timesteps) have no polynomial through them
  const distinct = known.map((node, j) => j === 0 || node.lambda !== known[j - 1]!.lambda)
  const nodes = known.filter((_, j) => distinct[j])
  const outputs = knownOutputs.filter((_, j) => distinct[j])
  const shifted = nodes.map((node) => node.lambda - to.lambda)
  const integrals = shifted.map((_, j) => lagrangeIntegral(shifted, j, c, -h))
  if (data && outputs.length === 2) {
    // the second-order coefficients of the paper's code: the linear term's integral is replaced by h²/2
    const excess = h ** 2 / 2 - (h * c - 1 + Math.exp(-c * h)) / c ** 2
    const share = corrector ? (h === 0 ? 0 : excess / h) : excess / (nodes[0]!.lambda - nodes[1]!.lambda)
    integrals[0]! += share
    integrals[1]! -= share
  }
  const factor = (1 + tau ** 2) * (data ? to.alpha : -to.sigma)
  const decay = data ? Math.exp(-(tau ** 2) * h) * (to.sigma / from.sigma) : to.alpha / from.alpha
  const deviation = data
    ? to.sigma * Math.sqrt(-Math.expm1(-2 * tau ** 2 * h))
    : tau * to.sigma * Math.sqrt(Math.expm1(2 * h))
  return combine([decay, x], ...integrals.map((v, j) => [factor * v, outputs[j]!] as const), [
    deviation,
    { [noise]: 1 }
  ])
}

/** ∫ from `start` to 0 of e^{cv}·lⱼ(v) dv, lⱼ = Π (v − vₖ)/(vⱼ − vₖ). */
const lagrangeIntegral = (nodes: readonly number[], j: number, c: number, start: number): number => {
  // lⱼ as a polynomial, lowest power first
  let poly = [1]
  nodes.forEach((node, k) => {
    if (k === j) return
    const gap = nodes[j]! - node
    const next = new Array<number>(poly.length + 1).fill(0)
    poly.forEach((p, power) => {
      next[power]! -= (p * node) / gap
      next[power + 1]! += p / gap
    })
    poly = next
  })
  // ∫ v^p·e^{cv} by parts
  let moment = -Math.expm1(c * start) / c
  let sum = poly[0]! * moment
  for (let power = 1; power < poly.length; power++) {
    moment = -(start ** power * Math.exp(c * start) + power * moment) / c
    sum += poly[power]! * moment
  }
  return sum
}
