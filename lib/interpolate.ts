/** torch.nn.functional.interpolate of [B, C, H, W] to a size, with align_corners false. */
import type { Tensor } from './tensor.js'

export interface Interpolation {
  readonly mode: 'nearest' | 'nearestExact' | 'bilinear' | 'bicubic'
  /** Wider filters when shrinking, Pillow's bicubic, and weights that leave out what is beyond the edges. */
  readonly antialias?: boolean
}

interface Tap {
  readonly from: number
  readonly weight: number
}

/** Keys' cubic convolution. */
const cubic = (x: number, a: number): number => {
  const d = Math.abs(x)
  if (d <= 1) return ((a + 2) * d - (a + 3)) * d * d + 1
  return d < 2 ? ((a * d - 5 * a) * d + 8 * a) * d - 4 * a : 0
}
const triangle = (x: number): number => Math.max(1 - Math.abs(x), 0)

/** What output i of `out` is made of, among `size` inputs. */
const taps = (i: number, size: number, out: number, { mode, antialias }: Interpolation): Tap[] => {
  const scale = size / out
  // torch computes these in float32
  if (mode === 'nearest')
    return [{ from: Math.min(Math.floor(Math.fround(i * Math.fround(scale))), size - 1), weight: 1 }]
  if (mode === 'nearestExact')
    return [{ from: Math.min(Math.floor(Math.fround((i + 0.5) * Math.fround(scale))), size - 1), weight: 1 }]
  const bicubic = mode === 'bicubic'
  if (antialias) {
    const widening = Math.max(scale, 1)
    const reach = (bicubic ? 2 : 1) * widening
    const center = (i + 0.5) * scale
    const first = Math.max(Math.trunc(center - reach + 0.5), 0)
    const last = Math.min(Math.trunc(center + reach + 0.5), size)
    const all = Array.from({ length: last - first }, (_, k) => {
      const x = (first + k - center + 0.5) / widening
      return { from: first + k, weight: bicubic ? cubic(x, -0.5) : triangle(x) }
    })
    const sum = all.reduce((s, t) => s + t.weight, 0)
    return all.map(({ from, weight }) => ({ from, weight: weight / sum }))
  }
  const place = (i + 0.5) * scale - 0.5
  if (!bicubic) {
    const x = Math.max(place, 0)
    const from = Math.min(Math.floor(x), size - 1)
    return [
      { from, weight: 1 - (x - from) },
      { from: Math.min(from + 1, size - 1), weight: x - from }
    ]
  }
  const base = Math.floor(place)
  return [-1, 0, 1, 2].map((k) => ({
    from: Math.min(Math.max(base + k, 0), size - 1),
    weight: cubic(place - base - k, -0.75)
  }))
}

/** Lines of `inner` values each: `size` of them become `out`, `outer` times over. */
const resample = (
  data: Float32Array,
  outer: number,
  size: number,
  inner: number,
  out: number,
  how: Interpolation
): Float32Array => {
  const result = new Float32Array(outer * out * inner)
  for (let i = 0; i < out; i++)
    for (const { from, weight } of taps(i, size, out, how))
      for (let o = 0; o < outer; o++) {
        const to = (o * out + i) * inner
        const at = (o * size + from) * inner
        for (let k = 0; k < inner; k++) result[to + k]! += weight * data[at + k]!
      }
  return result
}

export const interpolate = (x: Tensor, height: number, width: number, how: Interpolation): Tensor => {
  const [batch, channels, h, w] = x.shape as [number, number, number, number]
  const rows = resample(x.data, batch * channels * h, w, 1, width, how)
  const data = resample(rows, batch * channels, h, width, height, how)
  return { data, shape: [batch, channels, height, width] }
}

/** The middle height × width of [B, C, H, W]. */
export const cropMiddle = (x: Tensor, height: number, width: number): Tensor => {
  const [batch, channels, h, w] = x.shape as [number, number, number, number]
  const top = Math.floor((h - height) / 2)
  const left = Math.floor((w - width) / 2)
  const data = new Float32Array(batch * channels * height * width)
  for (let map = 0; map < batch * channels; map++)
    for (let y = 0; y < height; y++) {
      const at = (map * h + top + y) * w + left
      data.set(x.data.subarray(at, at + width), (map * height + y) * width)
    }
  return { data, shape: [batch, channels, height, width] }
}
