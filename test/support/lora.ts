/** Adapter files for tests, and what they do to a weight, written down plainly. */
import type { Values } from './safetensors.js'

/** A small generator of numbers, the same everywhere. */
export const numbers = (seed: number): ((count: number, scale?: number) => Float32Array) => {
  let state = seed
  const next = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state / 2 ** 31 - 1
  }
  return (count, scale = 0.4) => Float32Array.from({ length: count }, () => next() * scale)
}

export const values = (random: ReturnType<typeof numbers>, ...shape: number[]): Values => ({
  shape,
  data: random(shape.reduce((a, b) => a * b, 1))
})

const at = (t: Values, ...index: number[]): number => {
  let offset = 0
  t.shape.forEach((n, i) => (offset = offset * n + (index[i] ?? 0)))
  return t.data[offset]!
}

const filled = (shape: readonly number[], value: (...index: number[]) => number): Values => {
  const [rows, columns, taps] = [shape[0]!, shape[1]!, shape.slice(2).reduce((a, b) => a * b, 1)]
  const data = new Float64Array(rows * columns * taps)
  for (let r = 0, i = 0; r < rows; r++)
    for (let c = 0; c < columns; c++) for (let t = 0; t < taps; t++, i++) data[i] = value(r, c, t)
  return { shape, data }
}

const sum = (count: number, term: (i: number) => number): number => {
  let total = 0
  for (let i = 0; i < count; i++) total += term(i)
  return total
}

const flat = (t: Values): Values => ({ data: t.data, shape: [t.shape[0]!, t.data.length / t.shape[0]!] })

/** a [n, r] · b [r, …] as a weight of this shape. */
export const product = (a: Values, b: Values, shape: readonly number[]): Values => {
  const [left, right] = [flat(a), flat(b)]
  const taps = shape.slice(2).reduce((x, y) => x * y, 1)
  return filled(shape, (r, c, t) => sum(right.shape[0]!, (k) => at(left, r, k) * at(right, k, c * taps + t)))
}

/** Σ core[i, j, tap] left[i, n] right[j, k]: LyCORIS' rebuild_tucker. */
export const tucker = (core: Values, left: Values, right: Values, shape: readonly number[]): Values => {
  const taps = core.data.length / (core.shape[0]! * core.shape[1]!)
  const c3: Values = { data: core.data, shape: [core.shape[0]!, core.shape[1]!, taps] }
  return filled(shape, (r, c, t) =>
    sum(core.shape[0]!, (i) => sum(core.shape[1]!, (j) => at(c3, i, j, t) * at(left, i, r) * at(right, j, c)))
  )
}

export const transposed = (t: Values): Values => filled([t.shape[1]!, t.shape[0]!], (r, c) => at(flat(t), c, r))

export const times = (a: Values, b: Values): Values => ({
  shape: a.shape,
  data: Float64Array.from(a.data, (v, i) => v * b.data[i]!)
})

export const scaled = (a: Values, factor: number): Values => ({
  shape: a.shape,
  data: Float64Array.from(a.data, (v) => v * factor)
})

export const plus = (a: Values, b: Values): Values => ({
  shape: a.shape,
  data: Float64Array.from(a.data, (v, i) => v + b.data[i]!)
})

/** a ⊗ b, b with taps. */
export const kronecker = (a: Values, b: Values, shape: readonly number[]): Values => {
  const [rows, columns] = [b.shape[0]!, shape[1]! / a.shape[1]!]
  const taps = shape.slice(2).reduce((x, y) => x * y, 1)
  const b3: Values = { data: b.data, shape: [rows, columns, taps] }
  return filled(
    shape,
    (r, c, t) => at(a, Math.floor(r / rows), Math.floor(c / columns)) * at(b3, r % rows, c % columns, t)
  )
}

/** v · m / ‖v‖, norms over each row or, over rows and taps, each column. */
export const normalised = (v: Values, m: Values, perRow: boolean): Values => {
  const [rows, columns] = [v.shape[0]!, v.shape[1]!]
  const taps = v.data.length / (rows * columns)
  const v3: Values = { data: v.data, shape: [rows, columns, taps] }
  const over = (rs: number[], cs: number[]): number =>
    Math.sqrt(sum(rs.length, (i) => sum(cs.length, (j) => sum(taps, (t) => at(v3, rs[i]!, cs[j]!, t) ** 2))))
  const all = (n: number): number[] => Array.from({ length: n }, (_, i) => i)
  const norms = perRow ? all(rows).map((r) => over([r], all(columns))) : all(columns).map((c) => over(all(rows), [c]))
  return filled(v.shape, (r, c, t) => {
    const k = perRow ? r : c
    return (at(v3, r, c, t) * m.data[k]!) / norms[k]!
  })
}
