/**
 * The updates of DPM-Solver (Lu et al. 2022a), DPM-Solver++ (Lu et al. 2022b) and their SDE forms, shared by the
 * multistep, single-step, inverse and EDM classes. With x = α·x₀ + σ·ε and λ = ln(α/σ), one step goes from s to t with
 * h = λ_t − λ_s over D₀ (the output at s) and its divided differences D₁, D₂.
 */
import { unsupported } from '../errors.js'
import { combine, type Terms } from './plan-rows.js'
import { choice } from './options.js'

export type DpmAlgorithm = 'dpmsolver' | 'dpmsolver++' | 'sde-dpmsolver' | 'sde-dpmsolver++'
export type DpmSolverType = 'midpoint' | 'heun'

export const dpmSolverTypeOption = choice<DpmSolverType>('midpoint', ['midpoint', 'heun'], {
  logrho: 'midpoint',
  bh1: 'midpoint',
  bh2: 'midpoint'
})

/** α, σ and λ = ln α − ln σ of a noise level. */
export interface Level {
  readonly alpha: number
  readonly sigma: number
  readonly lambda: number
}

/** From σ/α as the `sigmas` store it; rectified flow has α = 1 − σ instead. */
export const level = (stored: number, flow: boolean): Level => {
  const alpha = flow ? 1 - stored : 1 / Math.sqrt(stored ** 2 + 1)
  const sigma = flow ? stored : stored * alpha
  return { alpha, sigma, lambda: Math.log(alpha) - Math.log(sigma) }
}

export const isData = (algorithm: DpmAlgorithm): boolean => algorithm.endsWith('++')
export const isStochastic = (algorithm: DpmAlgorithm): boolean => algorithm.startsWith('sde')

interface Weights {
  readonly x: number
  readonly n: number
  readonly d0: number
  /** D₁ of the second-order midpoint rule. */
  readonly midpoint: number
  /** D₁ and D₂ of the Taylor expansion (the second-order 'heun' rule and the third order). */
  readonly d1: number
  readonly d2: number
}

/** Integrals of the exponential weights over the step; `expm1` keeps small h exact. */
const weights = (algorithm: DpmAlgorithm, from: Level, to: Level): Weights => {
  const h = to.lambda - from.lambda
  const { alpha, sigma } = to
  switch (algorithm) {
    case 'dpmsolver++': {
      const e = Math.expm1(-h)
      return {
        x: sigma / from.sigma,
        n: 0,
        d0: -alpha * e,
        midpoint: -0.5 * alpha * e,
        d1: alpha * (e / h + 1),
        d2: -alpha * ((e + h) / h ** 2 - 0.5)
      }
    }
    case 'dpmsolver': {
      const e = Math.expm1(h)
      const d0 = sigma - (alpha * from.sigma) / from.alpha // −σ_t(e^h − 1), finite at σ_t = 0 too
      return {
        x: alpha / from.alpha,
        n: 0,
        d0,
        midpoint: 0.5 * d0,
        d1: -sigma * (e / h - 1),
        d2: -sigma * ((e - h) / h ** 2 - 0.5)
      }
    }
    case 'sde-dpmsolver++': {
      const e = -Math.expm1(-2 * h)
      return {
        x: (sigma / from.sigma) * Math.exp(-h),
        n: sigma * Math.sqrt(e),
        d0: alpha * e,
        midpoint: 0.5 * alpha * e,
        d1: alpha * (e / (-2 * h) + 1),
        // the sign of ½ is diffusers', whose numbers are the specification
        d2: alpha * ((e - 2 * h) / (2 * h) ** 2 - 0.5)
      }
    }
    case 'sde-dpmsolver': {
      const e = Math.expm1(h)
      return {
        x: alpha / from.alpha,
        n: sigma * Math.sqrt(Math.expm1(2 * h)),
        d0: -2 * sigma * e,
        midpoint: -sigma * e,
        d1: -2 * sigma * (e / h - 1),
        d2: NaN
      }
    }
  }
}

/** First order: DDIM in disguise. `x` is the sample the step starts from. */
export const firstOrder = (algorithm: DpmAlgorithm, from: Level, to: Level, d0: Terms, x: Terms = { x: 1 }): Terms => {
  const w = weights(algorithm, from, to)
  return combine([w.x, x], [w.d0, d0], [1, { n: w.n }])
}

export const secondOrder = (
  algorithm: DpmAlgorithm,
  solver: DpmSolverType,
  from: Level,
  to: Level,
  d0: Terms,
  d1: Terms,
  x: Terms = { x: 1 }
): Terms => {
  const w = weights(algorithm, from, to)
  return combine([w.x, x], [w.d0, d0], [solver === 'midpoint' ? w.midpoint : w.d1, d1], [1, { n: w.n }])
}

/** `d2` is left out by the single-step midpoint rule. */
export const thirdOrder = (
  algorithm: DpmAlgorithm,
  from: Level,
  to: Level,
  d0: Terms,
  d1: Terms,
  d2: Terms | undefined,
  x: Terms = { x: 1 }
): Terms => {
  if (algorithm === 'sde-dpmsolver')
    throw unsupported(
      "There is no third-order 'sde-dpmsolver': set solverOrder to 2, or algorithmType to 'sde-dpmsolver++'"
    )
  const w = weights(algorithm, from, to)
  return combine([w.x, x], [w.d0, d0], [w.d1, d1], [d2 ? w.d2 : 0, d2 ?? {}], [1, { n: w.n }])
}

/**
 * How many of the known levels (newest first) a step can use: rounding makes two timesteps equal where there are nearly as
 * many steps as training timesteps, and equal levels have no divided difference (diffusers: NaN).
 */
export const usableOrder = (order: number, to: Level, levels: readonly Level[]): number => {
  if (to.lambda === levels[0]!.lambda) return 1
  for (let j = 1; j < order; j++) if (levels[j]!.lambda === levels[j - 1]!.lambda) return j
  return order
}

/** The multistep update over the outputs m₀ (newest), m₁, m₂ at levels s₀, s₁, s₂. */
export const multistep = (
  algorithm: DpmAlgorithm,
  solver: DpmSolverType,
  wanted: number,
  to: Level,
  levels: readonly Level[],
  m: readonly Terms[]
): Terms => {
  const order = usableOrder(wanted, to, levels)
  const [s0, s1, s2] = levels
  const [m0, m1, m2] = m
  if (order === 1) return firstOrder(algorithm, s0!, to, m0!)
  const h = to.lambda - s0!.lambda
  const r0 = (s0!.lambda - s1!.lambda) / h
  const d10 = combine([1 / r0, m0!], [-1 / r0, m1!])
  if (order === 2) return secondOrder(algorithm, solver, s0!, to, m0!, d10)
  const r1 = (s1!.lambda - s2!.lambda) / h
  const d11 = combine([1 / r1, m1!], [-1 / r1, m2!])
  const d1 = combine([1 + r0 / (r0 + r1), d10], [-r0 / (r0 + r1), d11])
  const d2 = combine([1 / (r0 + r1), d10], [-1 / (r0 + r1), d11])
  return thirdOrder(algorithm, s0!, to, m0!, d1, d2)
}
