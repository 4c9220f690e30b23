import { invalidArgument } from './errors.js'

/** Float32 values in row-major order; pictures and latents are NCHW, as in diffusers. */
export interface Tensor {
  readonly data: Float32Array
  readonly shape: readonly number[]
}

/** Checks that `value` is a tensor whose shape matches; null in `shape` stands for any size. */
export const checkTensor = (name: string, value: unknown, shape: readonly (number | null)[]): Tensor => {
  const text = `[${shape.map((n) => n ?? 'any').join(', ')}]`
  const t = value as Partial<Tensor> | null | undefined
  if (!t || !(t.data instanceof Float32Array) || !Array.isArray(t.shape))
    throw invalidArgument(name, `a tensor { data: Float32Array, shape: ${text} }`, value)
  const fits =
    t.shape.length === shape.length && t.shape.every((n, i) => Number.isInteger(n) && n > 0 && (shape[i] ?? n) === n)
  if (!fits) throw invalidArgument(`${name}.shape`, text, `[${t.shape.join(', ')}]`)
  const count = (t.shape as readonly number[]).reduce((a, b) => a * b, 1)
  if (t.data.length !== count)
    throw invalidArgument(`${name}.data`, `${count} values for shape [${t.shape.join(', ')}]`, t.data.length)
  return t as Tensor
}
