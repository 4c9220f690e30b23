/**
 * The step loop's specification: executes a plan in float64, readably. The native loop must give the same, in float32.
 * Guidance is the caller's: `model` returns the guided output.
 */
import { DiffusionError, invalidArgument } from './errors.js'
import type { Basis, PlanRow, StepPlan } from './step-plan.js'

export interface RunOptions {
  /** The initial noise n0, [B, …]; x starts as initNoiseSigma · n0. */
  readonly initial: ArrayLike<number>
  /** What x starts as instead (img2img: the noised original). */
  readonly start?: ArrayLike<number>
  /** Images in one tensor: dynamic thresholding takes its quantile per image. Default 1. */
  readonly batch?: number
  /** The UNet: inputScale · x and the timestep to the raw output; twice as long where the row has a `learnedRange`. */
  readonly model: (input: Float64Array, timestep: number, row: number) => ArrayLike<number>
  /** The generator: one draw, as long as x. */
  readonly noise?: () => ArrayLike<number>
  /** The clean latents of img2img and inpainting. */
  readonly orig?: ArrayLike<number>
  /** 1 where x is kept, 0 where `blend` puts the original back; as long as x. */
  readonly mask?: ArrayLike<number>
}

/** After each row: the latents, the raw output and the (limited) predicted original. */
export interface RowResult {
  readonly x: Float64Array
  readonly m: Float64Array
  readonly p: Float64Array
}

/** Runs every row. Arrays in the result are the caller's. */
export const runPlan = (plan: StepPlan, options: RunOptions): RowResult[] => {
  const n0 = Float64Array.from(options.initial)
  const length = n0.length
  const take = (values: ArrayLike<number>, name: string, count = length): Float64Array => {
    if (values.length !== count) throw invalidArgument(name, `${count} values`, Array.from(values))
    return Float64Array.from(values)
  }
  const start = options.start ? take(options.start, 'start') : n0.map((v) => v * plan.initNoiseSigma)
  const state: Partial<Record<Basis, Float64Array>> = { x: start, n0 }
  if (options.orig) state.orig = take(options.orig, 'orig')
  const get = (basis: Basis): Float64Array => {
    if (/^r[0-7]$|^n(Prev)?$/.test(basis)) return (state[basis] ??= new Float64Array(length)) // zero at the start
    const value = state[basis]
    if (!value)
      throw new DiffusionError(
        'ERR_ND_INVALID_ARGUMENT',
        `Expected ${basis} for the plan but received none: give it to runPlan`
      )
    return value
  }

  let drawn: Float64Array | undefined // the last noise of the rows before
  return plan.rows.map((row, index) => {
    const x = get('x')
    const output = options.model(
      x.map((v) => v * row.inputScale),
      row.timestep,
      index
    )
    const all = take(output, 'the model output', row.learnedRange ? 2 * length : length)
    state.m = all.slice(0, length)

    state.nPrev = drawn ?? new Float64Array(length)
    for (let d = 0; d < row.draws; d++) {
      if (!options.noise) throw invalidArgument('noise', 'a generator (the plan draws noise)', undefined)
      drawn = take(options.noise(), 'noise')
    }
    if (row.draws > 0) state.n = row.learnedRange ? learned(drawn!, all.subarray(length), row.learnedRange) : drawn!

    const p = limit(
      x.map((v, i) => row.convert.a * v + row.convert.b * state.m![i]!),
      row,
      options.batch ?? 1
    )
    state.h = x.map((v, i) => row.convert.c * v + row.convert.d * p[i]!)

    for (const { to, terms } of row.writes) {
      const sum = new Float64Array(length)
      for (const [basis, weight] of Object.entries(terms) as [Basis, number][]) {
        const values = get(basis)
        for (let i = 0; i < length; i++) sum[i]! += weight * values[i]!
      }
      state[to] = sum
    }

    if (row.blend && options.mask) {
      const [alpha, sigma] = row.blend
      const orig = get('orig')
      const kept = take(options.mask, 'mask')
      state.x = get('x').map((v, i) => kept[i]! * v + (1 - kept[i]!) * (alpha * orig[i]! + sigma * n0[i]!))
    }
    return { x: get('x').slice(), m: state.m.slice(), p }
  })
}

/** n · exp(½ (v'·max + (1 − v')·min)), v' = (v + 1)/2: the standard deviation that the model predicts. */
const learned = (n: Float64Array, v: Float64Array, [min, max]: readonly [number, number]): Float64Array =>
  n.map((value, i) => {
    const share = (v[i]! + 1) / 2
    return value * Math.exp(0.5 * (share * max + (1 - share) * min))
  })

/** Clipping to ±clip, or dynamic thresholding: per image s = quantile of |p|, at least 1, at most maxValue; p clipped to ±s and divided by it. */
const limit = (p: Float64Array, row: PlanRow, batch: number): Float64Array => {
  const { clip, threshold } = row.convert
  const clamp = (v: number, s: number): number => Math.min(Math.max(v, -s), s)
  if (clip !== undefined) return p.map((v) => clamp(v, clip))
  if (!threshold) return p
  const each = p.length / batch
  const result = new Float64Array(p.length)
  for (let b = 0; b < batch; b++) {
    const image = p.subarray(b * each, (b + 1) * each)
    const s = Math.min(Math.max(quantile(image.map(Math.abs), threshold.ratio), 1), threshold.maxValue)
    result.set(
      image.map((v) => clamp(v, s) / s),
      b * each
    )
  }
  return result
}

/** Linear between the two nearest of the sorted values. */
const quantile = (values: Float64Array, ratio: number): number => {
  const sorted = values.sort()
  const rank = ratio * (sorted.length - 1)
  const low = Math.floor(rank)
  return sorted[low]! + (rank - low) * (sorted[Math.min(low + 1, sorted.length - 1)]! - sorted[low]!)
}
