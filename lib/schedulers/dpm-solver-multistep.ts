/**
 * DPM-Solver and DPM-Solver++, multistep (Lu et al. 2022a, 2022b), orders 1 to 3, ODE and SDE.
 * diffusers: DPMSolverMultistepScheduler.
 */
import { invalidArgument } from '../errors.js'
import {
  dpmSolverTypeOption,
  isData,
  isStochastic,
  multistep,
  type DpmAlgorithm,
  type DpmSolverType,
  type Level
} from './dpm-solver.js'
import { choice, extended, flag, integer, maybe, type ConfigOf, type Schema } from './options.js'
import { refuseCustom, type PlanOptions } from './plan-options.js'
import { History, registers, write, type RowSpec, type Terms } from './plan-rows.js'
import { convertToNoise, convertToOriginal, predict, type LimitConfig, type PredictionType } from './prediction.js'
import { solverTimesteps, spacingOptions } from './spacing.js'
import { VariancePreservingScheduler, variancePreservingOptions, type SolverSchedule } from './variance-preserving.js'

export const dpmSolverOptions = {
  ...variancePreservingOptions,
  solverOrder: integer(2, 1),
  /** '++' solves for x₀ (stable under guidance), without for ε; 'sde-' adds noise in every step. */
  algorithmType: choice<DpmAlgorithm>('dpmsolver++', ['dpmsolver', 'dpmsolver++', 'sde-dpmsolver', 'sde-dpmsolver++'], {
    deis: 'dpmsolver++'
  }),
  solverType: dpmSolverTypeOption,
  /** First order in the last step, second in the one before, below 15 steps. */
  lowerOrderFinal: flag(true),
  eulerAtFinal: flag(false),
  lambdaMinClipped: extended(-Infinity),
  /** Where the model also predicts a variance: it is not used. */
  varianceType: maybe(choice('learned', ['learned', 'learned_range'])),
  ...spacingOptions('linspace')
}
export const dpmSolverMultistepOptions = {
  ...dpmSolverOptions,
  useLuLambdas: flag(false),
  finalSigmasType: choice('zero', ['zero', 'sigma_min']),
  rescaleBetasZeroSnr: flag(false),
  useDynamicShifting: flag(false),
  timeShiftType: choice('exponential', ['exponential', 'linear'])
}
/** Options of DPMSolverMultistepScheduler, with diffusers' names and defaults. */
export type DPMSolverMultistepConfig = ConfigOf<typeof dpmSolverMultistepOptions>

export interface MultistepConfig extends LimitConfig {
  readonly predictionType: PredictionType
  readonly solverOrder: number
  readonly algorithmType: DpmAlgorithm
  readonly solverType: DpmSolverType
  readonly lowerOrderFinal: boolean
  readonly eulerAtFinal: boolean
  readonly finalSigmasType?: 'zero' | 'sigma_min'
}

/** Which order row `index` of `count` has, `known` outputs before it. */
export const multistepOrder = (config: MultistepConfig, index: number, count: number, known: number): number => {
  const short = config.lowerOrderFinal && count < 15
  const final = index === count - 1 && (config.eulerAtFinal || short || config.finalSigmasType === 'zero')
  if (final) return 1
  return Math.min(config.solverOrder, known + 1, index === count - 2 && short ? 2 : 3)
}

/**
 * What the solver keeps of the model's output: x₀ or ε; `convert` for the row and the terms of the kept value. With
 * `xChanges` (a corrector replaces x before the value is used) these terms do not hold x.
 */
export const solverOutput = (
  config: LimitConfig & { readonly predictionType: PredictionType },
  data: boolean,
  stored: number,
  { alpha, sigma }: Level,
  xChanges = false
): { convert: RowSpec['convert']; kept: Terms } => {
  // flow prediction is defined on the stored σ, whatever α is
  const { original, noise } = predict(
    config.predictionType,
    alpha,
    config.predictionType === 'flow_prediction' ? stored : sigma
  )
  if (data) return { convert: convertToOriginal(original, config), kept: { h: 1 } }
  // straight from the model where nothing is limited: (x − α·x₀)/σ would lose digits at small σ
  return config.thresholding || config.predictionType === 'flow_prediction' || (xChanges && noise.x !== undefined)
    ? { convert: convertToNoise(original, alpha, sigma, config), kept: { h: 1 } }
    : { convert: convertToOriginal(original), kept: noise }
}

export abstract class DPMSolverBase<S extends Schema> extends VariancePreservingScheduler<S> {
  protected rows({ timesteps, sigmas }: SolverSchedule, begin: number): RowSpec[] {
    const config = this.config as unknown as MultistepConfig
    const { algorithmType: algorithm } = config
    const history = new History(registers(0, Math.min(config.solverOrder, 3)))
    return timesteps.slice(begin).map((timestep, k) => {
      const i = begin + k
      const levels = [i, i - 1, i - 2].filter((j) => j >= 0).map((j) => this.level(sigmas[j]!))
      const order = multistepOrder(config, i, timesteps.length, k)
      const { convert, kept } = solverOutput(config, isData(algorithm), sigmas[i]!, levels[0]!)
      const single = config.solverOrder === 1
      const writes = single ? [] : [history.push(kept)]
      const outputs = single ? [kept] : Array.from({ length: order }, (_, back) => history.ago(back))
      writes.push(
        write('x', multistep(algorithm, config.solverType, order, this.level(sigmas[i + 1]!), levels, outputs))
      )
      return { timestep, convert, writes, draws: isStochastic(algorithm) ? 1 : 0 }
    })
  }
}

/**
 * diffusers' DPMSolverMultistepScheduler as a step plan.
 * @throws DiffusionError ERR_ND_INVALID_ARGUMENT for options that are unknown or out of range
 */
export class DPMSolverMultistepScheduler extends DPMSolverBase<typeof dpmSolverMultistepOptions> {
  static override readonly className: string = 'DPMSolverMultistepScheduler'
  static override readonly options = dpmSolverMultistepOptions

  constructor(config: DPMSolverMultistepConfig = {}) {
    super(config)
    checkFinalSigma(this.config.algorithmType, this.config.finalSigmasType)
    checkFlow(this.config)
  }

  protected schedule(steps: number, options: PlanOptions): SolverSchedule {
    refuseCustom(this.className, options, 'sigmas')
    const { config } = this
    const custom = options.timesteps?.map(Math.trunc)
    const spaced = this.spaced(steps, custom ?? solverTimesteps(config, steps, this.unclipped()), options, {
      custom,
      round: config.betaSchedule !== 'squaredcos_cap_v2'
    })
    return { ...spaced, sigmas: [...spaced.sigmas, config.finalSigmasType === 'zero' ? 0 : this.trained[0]!] }
  }
}

/** The ε-form solvers divide by σ at the end. */
export const checkFinalSigma = (algorithm: DpmAlgorithm, final: string): void => {
  if (!isData(algorithm) && final === 'zero')
    throw invalidArgument('finalSigmasType', `'sigma_min' with algorithmType '${algorithm}'`, final)
}
/** Only the x₀-form solvers take flow prediction. */
export const checkFlow = (config: { algorithmType: DpmAlgorithm; predictionType: PredictionType }): void => {
  if (!isData(config.algorithmType) && config.predictionType === 'flow_prediction')
    throw invalidArgument(
      'predictionType',
      `epsilon, sample or v_prediction with algorithmType '${config.algorithmType}'`,
      config.predictionType
    )
}
