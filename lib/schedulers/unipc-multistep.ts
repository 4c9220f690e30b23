/**
 * UniPC (Zhao et al. 2023): a predictor UniP-p and a corrector UniC-p of any order over B(h) = h (bh1) or e^h − 1 (bh2).
 * The corrector repeats the last step with the output at its end, before the predictor goes on from the corrected x.
 * diffusers: UniPCMultistepScheduler.
 */
import { invalidArgument, unsupported } from '../errors.js'
import { checkFlow, solverOutput } from './dpm-solver-multistep.js'
import { usableOrder, type Level } from './dpm-solver.js'
import { f32, linspace, solve } from './numerics.js'
import { choice, flag, integer, integers, maybe, number, type ConfigOf } from './options.js'
import { refuseCustom, type PlanOptions } from './plan-options.js'
import { combine, History, registers, write, type RowSpec, type Terms } from './plan-rows.js'
import { solverTimesteps, spacingOptions } from './spacing.js'
import { stretchToTerminal, timeShift } from './flow-shift.js'
import { VariancePreservingScheduler, variancePreservingOptions, type SolverSchedule } from './variance-preserving.js'

export const uniPCMultistepOptions = {
  ...variancePreservingOptions,
  solverOrder: integer(2, 1),
  /** Solve for x₀ (true) or ε. */
  predictX0: flag(true),
  solverType: choice('bh2', ['bh1', 'bh2'], { midpoint: 'bh2', heun: 'bh2', logrho: 'bh2' }),
  lowerOrderFinal: flag(true),
  /** Steps (from 0) after which the corrector is left out. */
  disableCorrector: integers,
  ...spacingOptions('linspace'),
  finalSigmasType: choice('zero', ['zero', 'sigma_min']),
  rescaleBetasZeroSnr: flag(false),
  useDynamicShifting: flag(false),
  timeShiftType: choice('exponential', ['exponential', 'linear']),
  sigmaMin: maybe(number(0)),
  sigmaMax: maybe(number(0)),
  shiftTerminal: maybe(number(0))
}
/** Options of UniPCMultistepScheduler, with diffusers' names and defaults. */
export type UniPCMultistepConfig = ConfigOf<typeof uniPCMultistepOptions>

/** Registers left for outputs: eight, less the sample that the corrector starts from. */
const largestOrder = 7

/**
 * diffusers' UniPCMultistepScheduler as a step plan.
 * @throws DiffusionError ERR_ND_INVALID_ARGUMENT for options that are unknown or out of range
 */
export class UniPCMultistepScheduler extends VariancePreservingScheduler<typeof uniPCMultistepOptions> {
  static override readonly className = 'UniPCMultistepScheduler'
  static override readonly options = uniPCMultistepOptions

  constructor(config: UniPCMultistepConfig = {}) {
    super(config)
    const { solverOrder, shiftTerminal, useFlowSigmas, predictX0, predictionType } = this.config
    if (solverOrder > largestOrder)
      throw unsupported(
        `UniPCMultistepScheduler with solverOrder ${solverOrder} is not supported: use at most ${largestOrder}`
      )
    if (shiftTerminal !== null && !useFlowSigmas)
      throw invalidArgument('shiftTerminal', 'null unless useFlowSigmas is set', shiftTerminal)
    checkFlow({ algorithmType: predictX0 ? 'dpmsolver++' : 'dpmsolver', predictionType })
  }

  protected schedule(steps: number, options: PlanOptions): SolverSchedule {
    refuseCustom(this.className, options, 'timesteps')
    const { config } = this
    if (options.sigmas && !config.useFlowSigmas)
      throw invalidArgument('sigmas', 'no custom sigmas unless useFlowSigmas is set', options.sigmas)
    const scheduled = config.useKarrasSigmas || config.useExponentialSigmas || config.useBetaSigmas
    const spaced =
      config.useFlowSigmas && !scheduled
        ? this.flow(steps, options)
        : this.spaced(steps, solverTimesteps(config, steps), options)
    if (config.useFlowSigmas && config.useKarrasSigmas) {
      // Karras sigmas of the diffusion parametrisation, turned into shares of noise
      const shares = this.karras(steps).map((s) => s / (s + 1))
      spaced.sigmas = shares.map(f32)
      spaced.timesteps = shares.map((s) => Math.trunc(s * config.numTrainTimesteps))
    }
    const cleanest = scheduled || config.useFlowSigmas ? spaced.sigmas[spaced.sigmas.length - 1]! : this.trained[0]!
    return { ...spaced, sigmas: [...spaced.sigmas, config.finalSigmasType === 'zero' ? 0 : cleanest] }
  }

  private karras(steps: number): number[] {
    const min = (this.sigmaBound('sigmaMin') ?? this.trained[0]!) ** (1 / 7)
    const max = (this.sigmaBound('sigmaMax') ?? this.trained[this.trained.length - 1]!) ** (1 / 7)
    return linspace(0, 1, steps).map((ramp) => (max + ramp * (min - max)) ** 7)
  }

  private flow(steps: number, options: PlanOptions): { timesteps: number[]; sigmas: number[] } {
    const { config } = this
    if (config.useDynamicShifting && options.mu === undefined)
      throw invalidArgument('mu', 'a number (useDynamicShifting is set)', options.mu)
    let sigmas = options.sigmas?.slice() ?? linspace(1, 1 / config.numTrainTimesteps, steps + 1).slice(0, -1)
    sigmas = config.useDynamicShifting
      ? sigmas.map((s) => timeShift(config.timeShiftType, options.mu!, s))
      : sigmas.map((s) => (config.flowShift * s) / (1 + (config.flowShift - 1) * s))
    if (config.shiftTerminal) sigmas = stretchToTerminal(sigmas, config.shiftTerminal)
    if (Math.abs(sigmas[0]! - 1) < 1e-6) sigmas[0]! -= 1e-6 // λ of pure noise would be infinite
    return { timesteps: sigmas.map((s) => Math.trunc(s * config.numTrainTimesteps)), sigmas: sigmas.map(f32) }
  }

  protected override sigmaBound(name: 'sigmaMin' | 'sigmaMax'): number | undefined {
    return this.config[name] ?? super.sigmaBound(name)
  }

  protected rows({ timesteps, sigmas }: SolverSchedule, begin: number): RowSpec[] {
    const { config } = this
    const history = new History(registers(0, config.solverOrder))
    const last = 'r7' as const
    let lastOrder = 0
    return timesteps.slice(begin).map((timestep, k) => {
      const i = begin + k
      const levels = Array.from({ length: k + 1 }, (_, back) => this.level(sigmas[i - back]!))
      const { convert, kept } = solverOutput(config, config.predictX0, sigmas[i]!, levels[0]!, true)
      const writes = []
      if (k > 0 && !config.disableCorrector.includes(i - 1)) {
        const outputs = Array.from({ length: lastOrder }, (_, back) => history.ago(back))
        writes.push(write('x', this.update(levels[0]!, levels.slice(1), outputs, { [last]: 1 }, kept)))
      }
      writes.push(history.push(kept), write(last, { x: 1 }))
      const most = config.lowerOrderFinal ? Math.min(config.solverOrder, timesteps.length - i) : config.solverOrder
      lastOrder = Math.min(most, k + 1)
      const outputs = Array.from({ length: lastOrder }, (_, back) => history.ago(back))
      writes.push(write('x', this.update(this.level(sigmas[i + 1]!), levels, outputs, { x: 1 })))
      return { timestep, convert, writes }
    })
  }

  /**
   * One step to `to` from levels[0], order outputs.length; with `end`, the output at `to`, the corrector (equation 5),
   * else the predictor (equation 8).
   */
  private update(to: Level, levels: readonly Level[], outputs: readonly Terms[], x: Terms, end?: Terms): Terms {
    const { predictX0, solverType } = this.config
    const from = levels[0]!
    const order = usableOrder(outputs.length, to, levels)
    const m0 = outputs[0]!
    const h = to.lambda - from.lambda
    const hh = predictX0 ? -h : h
    const phi1 = Math.expm1(hh)
    const B = solverType === 'bh1' ? hh : phi1
    // αₜ for x₀, σₜ for ε
    const target = predictX0 ? to.alpha : to.sigma
    // −σ_t(e^h − 1) is finite at σ_t = 0, where e^h is not
    const base = predictX0
      ? combine([to.sigma / from.sigma, x], [-to.alpha * phi1, m0])
      : combine([to.alpha / from.alpha, x], [to.sigma - (to.alpha * from.sigma) / from.alpha, m0])
    if (order === 1 && !end) return base
    const r = Array.from({ length: order - 1 }, (_, j) => (levels[j + 1]!.lambda - from.lambda) / h)
    const differences: Terms[] = r.map((rk, j) => combine([1 / rk, outputs[j + 1]!], [-1 / rk, m0]))
    if (end) differences.push(combine([1, end], [-1, m0]))
    const rho = this.rho(end ? [...r, 1] : r, hh, B)
    return combine([1, base], ...differences.map((d, j) => [-target * B * rho[j]!, d] as const))
  }

  /** The weights of the differences: R·ρ = b, with φ-functions on the right (theorem 3.1). */
  private rho(r: readonly number[], hh: number, B: number): number[] {
    if (r.length === 1) return [0.5] // exact to the order, whatever B
    const b: number[] = []
    let phi = Math.expm1(hh) / hh - 1
    let factorial = 1
    for (let k = 1; k <= r.length; k++) {
      b.push((phi * factorial) / B)
      factorial *= k + 1
      phi = phi / hh - 1 / factorial
    }
    return solve(
      b.map((_, k) => r.map((rk) => rk ** k)),
      b
    )
  }
}
