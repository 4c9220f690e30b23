/**
 * The step plan: what a scheduler compiles to, one row per UNet evaluation, and what the native loop
 * (engine/denoise.cpp) and its TypeScript specification (interpreter.ts) execute. docs/design.md shows how every
 * solver maps onto it. Coefficients are float64; plans are immutable.
 */

/**
 * The basis that every update is linear over:
 * x latents · m raw model output after guidance · h what the row's `convert` made · n the last noise drawn in this row ·
 * nPrev the last noise drawn before this row (in an earlier row) · n0 the initial noise · orig the clean latents of
 * img2img and inpainting · r0..r7 registers (zero at the start).
 */
export type Basis = 'x' | 'm' | 'h' | 'n' | 'nPrev' | 'n0' | 'orig' | Register
/** A register of the step loop, which keeps what a solver needs again. */
export type Register = 'r0' | 'r1' | 'r2' | 'r3' | 'r4' | 'r5' | 'r6' | 'r7'

/** x or a register becomes Σ coefficient · basis. Later writes see earlier ones. Terms of weight 0 may be left out. */
export interface PlanWrite {
  readonly to: 'x' | Register
  readonly terms: Readonly<Partial<Record<Basis, number>>>
}

/** One evaluation of the UNet, and what is done with its output. */
export interface PlanRow {
  /** What the UNet is told, as the scheduler's `timesteps` has it. */
  readonly timestep: number
  /** UNet input = inputScale · x. */
  readonly inputScale: number
  /**
   * p = a·x + b·m, the predicted original; clipped to ±clip, or dynamically thresholded (Imagen, section 2.3) where asked;
   * h = c·x + d·p, what the solver keeps (the original itself, epsilon, a derivative …).
   */
  readonly convert: {
    readonly a: number
    readonly b: number
    readonly c: number
    readonly d: number
    readonly clip?: number
    readonly threshold?: { readonly ratio: number; readonly maxValue: number }
  }
  /** In order. History pushes, correctors and solver stages are explicit writes; nothing is pushed implicitly. */
  readonly writes: readonly PlanWrite[]
  /** Noises drawn from the generator after the model ran and before the writes, also where their weight is 0. */
  readonly draws: number
  /**
   * [min, max] log variance where the model predicts its variance: the output has twice the channels, v the second half,
   * and n is multiplied by exp(½ (v′·max + (1 − v′)·min)) with v′ = (v + 1)/2.
   */
  readonly learnedRange?: readonly [number, number]
  /** After the writes, where the mask is 0, x becomes α·orig + σ·n0. */
  readonly blend?: readonly [alpha: number, sigma: number]
  /** Predicted noise ε = noise[0]·x + noise[1]·m, whatever the model predicts; missing where x has no noise. For events. */
  readonly noise?: readonly [x: number, m: number]
  /** One weight per extra branch: m = m₀ + Σ wᵢ (mᵢ − m₀). Filled by the pipeline: plain guidance is [guidanceScale]. */
  readonly guidance?: readonly number[]
  /** Strength of each control (ControlNet, T2I-Adapter) in this row. Filled by the pipeline. */
  readonly controlScales?: readonly number[]
  /** Whether it counts for progress: false for the inner stages of a multi-stage solver. */
  readonly step: boolean
}

/** What a scheduler compiles to: rows that the native loop executes. Plain data. */
export interface StepPlan {
  /** x = initNoiseSigma · n0 before the first row (text to image). */
  readonly initNoiseSigma: number
  readonly rows: readonly PlanRow[]
}
