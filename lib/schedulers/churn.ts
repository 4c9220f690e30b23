/** Stochastic churn (Karras et al. 2022, algorithm 2): noise put in before a step, to σ̂ = σ(1 + γ). */
import type { PlanOptions } from './plan-options.js'

export interface Churn {
  readonly sigmaHat: number
  /** x̂ = x + noise · n. */
  readonly noise: number
  readonly draws: 0 | 1
}

export const churn = (sigma: number, steps: number, options: PlanOptions): Churn => {
  const { sChurn = 0, sTmin = 0, sTmax = Infinity, sNoise = 1 } = options
  const gamma = sigma >= sTmin && sigma <= sTmax ? Math.min(sChurn / steps, Math.SQRT2 - 1) : 0
  const sigmaHat = sigma * (gamma + 1)
  return gamma > 0
    ? { sigmaHat, noise: sNoise * Math.sqrt(sigmaHat ** 2 - sigma ** 2), draws: 1 }
    : { sigmaHat, noise: 0, draws: 0 }
}
