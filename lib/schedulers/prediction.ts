/** What the model predicts, and how the predicted original x₀ and noise ε follow from it, given x = α·x₀ + σ·ε. */
import type { PlanRow } from '../step-plan.js'
import type { Terms } from './plan-rows.js'
import { choice, flag, number } from './options.js'

export type PredictionType = 'epsilon' | 'v_prediction' | 'sample' | 'flow_prediction'
export const predictionOption = <const T extends PredictionType>(...types: readonly [T, ...T[]]) =>
  choice<T>(types[0], types)

export const thresholdOptions = {
  /** Dynamic thresholding (Imagen, section 2.3): only for models in pixel space. */
  thresholding: flag(false),
  /** The quantile of |x₀| per image that becomes the scale. */
  dynamicThresholdingRatio: number(0.995),
  /** Largest scale. */
  sampleMaxValue: number(1)
}
export const clipOptions = (initial: boolean) => ({ clipSample: flag(initial), clipSampleRange: number(1) })

/** x₀ and ε over {x, m}. */
export interface Prediction {
  readonly original: Terms
  readonly noise: Terms
}

/** epsilon: m = ε. v (Salimans and Ho 2022): m = αε − σx₀. sample: m = x₀. flow: m = ε − x₀ with α = 1 − σ. */
export const predict = (type: PredictionType, alpha: number, sigma: number): Prediction => {
  switch (type) {
    case 'epsilon':
      return { original: { x: 1 / alpha, m: -sigma / alpha }, noise: { m: 1 } }
    case 'v_prediction':
      return { original: { x: alpha, m: -sigma }, noise: { x: sigma, m: alpha } }
    case 'sample':
      return { original: { m: 1 }, noise: { x: 1 / sigma, m: -alpha / sigma } }
    case 'flow_prediction':
      return { original: { x: 1, m: -sigma }, noise: { x: 1, m: 1 - sigma } }
  }
}

/** The same for x = x₀ + σ·ε (Karras et al. 2022), whose model sees x/√(σ² + 1). */
export const predictKarras = (type: PredictionType, sigma: number): Prediction => {
  const norm = sigma * sigma + 1
  switch (type) {
    case 'v_prediction':
      return {
        original: { x: 1 / norm, m: -sigma / Math.sqrt(norm) },
        noise: { x: sigma / norm, m: 1 / Math.sqrt(norm) }
      }
    case 'sample':
      return { original: { m: 1 }, noise: { x: 1 / sigma, m: -1 / sigma } }
    default:
      return { original: { x: 1, m: -sigma }, noise: { m: 1 } }
  }
}

export interface LimitConfig {
  readonly clipSample?: boolean
  readonly clipSampleRange?: number
  readonly thresholding?: boolean
  readonly dynamicThresholdingRatio?: number
  readonly sampleMaxValue?: number
}

/** p = x₀, limited as the config asks; h = p. Thresholding goes before clipping, as in diffusers. */
export const convertToOriginal = (original: Terms, limit: LimitConfig = {}): PlanRow['convert'] => ({
  a: original.x ?? 0,
  b: original.m ?? 0,
  c: 0,
  d: 1,
  ...(limit.thresholding
    ? { threshold: { ratio: limit.dynamicThresholdingRatio ?? 0.995, maxValue: limit.sampleMaxValue ?? 1 } }
    : limit.clipSample
      ? { clip: limit.clipSampleRange ?? 1 }
      : {})
})

/** p = x₀, limited; h = (x − α·p)/σ, the noise that the limited x₀ implies. */
export const convertToNoise = (
  original: Terms,
  alpha: number,
  sigma: number,
  limit: LimitConfig = {}
): PlanRow['convert'] => ({ ...convertToOriginal(original, limit), c: 1 / sigma, d: -alpha / sigma })
