/** The float32 and NumPy arithmetic that decides diffusers' timesteps and sigmas. */

/** Nearest float32: where torch keeps a table in single precision, so must we, or 1 − ᾱ of the first timesteps differs by 1e-4. */
export const f32 = Math.fround

/** torch.linspace in float32: both halves are counted from their own end, each value one fused multiply-add. */
export const linspaceF32 = (start: number, end: number, count: number): number[] => {
  const from = f32(start)
  const to = f32(end)
  if (count === 1) return [from]
  const step = f32(f32(to - from) / (count - 1))
  const half = Math.floor(count / 2)
  return Array.from({ length: count }, (_, i) => f32(i < half ? from + step * i : to - step * (count - 1 - i)))
}

/** numpy.linspace in float64; `endpoint` false leaves the end out. */
export const linspace = (start: number, end: number, count: number, endpoint = true): number[] => {
  const parts = endpoint ? count - 1 : count
  const step = parts > 0 ? (end - start) / parts : end - start
  return Array.from({ length: count }, (_, i) => (endpoint && i > 0 && i === count - 1 ? end : i * step + start))
}

/** numpy.arange(start, stop, step) for a falling range: the second value fixes the difference. */
export const arange = (start: number, stop: number, step: number): number[] => {
  const delta = start + step - start
  return Array.from({ length: Math.max(0, Math.ceil((stop - start) / step)) }, (_, i) => start + i * delta)
}

/** numpy.round: halves go to the even neighbour. */
export const roundHalfEven = (value: number): number => {
  const down = Math.floor(value)
  const rest = value - down
  return rest > 0.5 || (rest === 0.5 && down % 2 !== 0) ? down + 1 : down
}

/** numpy.interp over the points (0, y₀), (1, y₁) …, constant outside. */
export const interpolate = (t: number, y: readonly number[]): number => {
  const last = y.length - 1
  if (t <= 0) return y[0]!
  if (t >= last) return y[last]!
  const low = Math.floor(t)
  return (y[low + 1]! - y[low]!) * (t - low) + y[low]!
}

/**
 * numpy.log in float32, to the bit: x = 2ᵉ·m with m from √½ to √2, a rational approximation in m − 1 and e·ln 2, every
 * operation a single-precision (fused) one. A correctly rounded logarithm differs in the last digit of every fifth value,
 * and that digit decides whether a truncated timestep is 998 or 999.
 */
export const logF32 = (x: number): number => {
  let exponent = Math.floor(Math.log2(x))
  let mantissa = x / 2 ** exponent
  if (mantissa > f32(Math.SQRT2)) {
    mantissa /= 2
    exponent++
  }
  const m = f32(mantissa - 1)
  const horner = (c: readonly number[]): number => c.reduceRight((sum, k) => f32(sum * m + k))
  return f32(exponent * f32(Math.LN2) + f32(horner(logNumerator) / horner(logDenominator)))
}
const logNumerator = [
  0, 0.9999999999999987, 2.112677543073053, 1.4800006335765066, 0.3808837741388408, 0.025899791179079226
].map(f32)
const logDenominator = [
  1, 2.6126775430731093, 2.453006071784736, 0.9864942958519419, 0.15464763749839067, 0.005875095403124574
].map(f32)

/** x of the square system A·x = b, by elimination with pivoting: the few unknowns of UniPC. */
export const solve = (matrix: readonly (readonly number[])[], right: readonly number[]): number[] => {
  const n = right.length
  const rows = matrix.map((r, i) => [...r, right[i]!])
  for (let col = 0; col < n; col++) {
    let pivot = col
    for (let r = col + 1; r < n; r++) if (Math.abs(rows[r]![col]!) > Math.abs(rows[pivot]![col]!)) pivot = r
    ;[rows[col], rows[pivot]] = [rows[pivot]!, rows[col]!]
    for (let r = 0; r < n; r++) {
      if (r === col) continue
      const factor = rows[r]![col]! / rows[col]![col]!
      for (let k = col; k <= n; k++) rows[r]![k]! -= factor * rows[col]![k]!
    }
  }
  return rows.map((r, i) => r[n]! / r[i]!)
}
