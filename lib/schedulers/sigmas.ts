/** Noise levels σ = √((1 − ᾱ)/ᾱ) and the schedules over them: Karras, exponential, beta, Lu, flow. */
import { inverseIncompleteBeta } from './beta-distribution.js'
import { invalidArgument } from '../errors.js'
import { f32, linspace, logF32 } from './numerics.js'
import { flag } from './options.js'

export const sigmaScheduleOptions = {
  /** Karras et al. 2022, equation 5, ρ = 7. */
  useKarrasSigmas: flag(false),
  useExponentialSigmas: flag(false),
  /** "Beta Sampling is All You Need" (Lee et al. 2024), α = β = 0.6. */
  useBetaSigmas: flag(false)
}

export interface SigmaScheduleConfig {
  readonly useKarrasSigmas: boolean
  readonly useExponentialSigmas: boolean
  readonly useBetaSigmas: boolean
}

export const checkSigmaSchedule = (className: string, config: SigmaScheduleConfig): void => {
  const set = [config.useKarrasSigmas, config.useExponentialSigmas, config.useBetaSigmas].filter(Boolean).length
  if (set > 1)
    throw invalidArgument(
      `the options of ${className}`,
      'at most one of useKarrasSigmas, useExponentialSigmas, useBetaSigmas',
      `${set} of them`
    )
}

/** σ of every training timestep, rising, float32. */
export const trainingSigmas = (alphasCumprod: readonly number[]): number[] =>
  alphasCumprod.map((a) => f32(Math.sqrt(f32(f32(1 - a) / a))))

export const logSigmas = (sigmas: readonly number[]): number[] => sigmas.map(logF32)

/** The fractional training timestep whose σ this is, linear in log σ. `logs` rises. */
export const sigmaToTimestep = (sigma: number, logs: readonly number[]): number => {
  const log = Math.log(Math.max(sigma, 1e-10))
  let low = 0
  for (let i = logs.length - 1; i > 0; i--) {
    if (log >= logs[i]!) {
      low = i
      break
    }
  }
  low = Math.min(low, logs.length - 2)
  const w = Math.min(Math.max((logs[low]! - log) / (logs[low]! - logs[low + 1]!), 0), 1)
  return (1 - w) * low + w * (low + 1)
}

/** σ from max to min, evenly spaced in σ^(1/ρ). */
export const karrasSigmas = (min: number, max: number, steps: number, rho = 7): number[] => {
  const low = min ** (1 / rho)
  const high = max ** (1 / rho)
  return linspace(0, 1, steps).map((ramp) => (high + ramp * (low - high)) ** rho)
}

/** σ from max to min, evenly spaced in log σ. */
export const exponentialSigmas = (min: number, max: number, steps: number): number[] =>
  linspace(Math.log(max), Math.log(min), steps).map(Math.exp)

/** σ at the quantiles of a beta distribution: dense at both ends. */
export const betaSigmas = (min: number, max: number, steps: number, alpha = 0.6, beta = 0.6): number[] =>
  linspace(0, 1, steps).map((u) => min + inverseIncompleteBeta(1 - u, alpha, beta) * (max - min))

/** Evenly spaced in λ (Lu et al. 2022, DPM-Solver): `logs` is log σ of the training timesteps, rising. */
export const luSigmas = (logs: readonly number[], steps: number): number[] => {
  const high = logs[logs.length - 1]!
  const low = logs[0]!
  return linspace(0, 1, steps).map((ramp) => Math.exp(high + ramp * (low - high)))
}

/** σ of rectified flow, falling from just below 1, with the resolution shift of Esser et al. 2024. */
export const flowSigmas = (numTrain: number, shift: number, steps: number): number[] =>
  linspace(1, 1 / numTrain, steps + 1)
    .map((alpha) => 1 - alpha)
    .map((s) => (shift * s) / (1 + (shift - 1) * s))
    .reverse()
    .slice(0, -1)

/** The chosen schedule between two σ, or undefined where none of the three is asked for. */
export const scheduledSigmas = (
  config: SigmaScheduleConfig,
  min: number,
  max: number,
  steps: number
): number[] | undefined =>
  config.useKarrasSigmas
    ? karrasSigmas(min, max, steps)
    : config.useExponentialSigmas
      ? exponentialSigmas(min, max, steps)
      : config.useBetaSigmas
        ? betaSigmas(min, max, steps)
        : undefined
