/**
 * diffusers' tiled autoencoding written down a second time, over whatever encodes or decodes one tile: AutoencoderKL's
 * tiled_decode and _tiled_encode, AutoencoderTiny's _tiled_decode and _tiled_encode. All tensors [1, C, H, W].
 */
import type { Tensor } from 'node-diffusion'

type Work = (tile: Tensor) => Promise<Tensor>

const at = (t: Tensor, c: number, y: number, x: number): number => (c * t.shape[2]! + y) * t.shape[3]! + x

const part = (t: Tensor, top: number, left: number, height: number, width: number): Tensor => {
  const h = Math.min(height, t.shape[2]! - top)
  const w = Math.min(width, t.shape[3]! - left)
  const out = { data: new Float32Array(t.shape[1]! * h * w), shape: [1, t.shape[1]!, h, w] }
  for (let c = 0; c < t.shape[1]!; c++)
    for (let y = 0; y < h; y++)
      for (let x = 0; x < w; x++) out.data[at(out, c, y, x)] = t.data[at(t, c, top + y, left + x)]!
  return out
}

const beside = (parts: Tensor[], axis: 2 | 3): Tensor => {
  const [, channels] = parts[0]!.shape as [number, number]
  const total = parts.reduce((n, t) => n + t.shape[axis]!, 0)
  const shape = axis === 2 ? [1, channels, total, parts[0]!.shape[3]!] : [1, channels, parts[0]!.shape[2]!, total]
  const out = { data: new Float32Array(shape.reduce((a, b) => a * b)), shape }
  let begin = 0
  for (const t of parts) {
    for (let c = 0; c < channels; c++)
      for (let y = 0; y < t.shape[2]!; y++)
        for (let x = 0; x < t.shape[3]!; x++)
          out.data[at(out, c, y + (axis === 2 ? begin : 0), x + (axis === 3 ? begin : 0))] = t.data[at(t, c, y, x)]!
    begin += t.shape[axis]!
  }
  return out
}

/** blend_v (axis 2) and blend_h (axis 3): changes b. */
const blend = (a: Tensor, b: Tensor, extent: number, axis: 2 | 3): void => {
  const reach = Math.min(a.shape[axis]!, b.shape[axis]!, extent)
  const across = b.shape[axis === 2 ? 3 : 2]!
  for (let c = 0; c < b.shape[1]!; c++)
    for (let i = 0; i < reach; i++)
      for (let k = 0; k < across; k++) {
        const from = a.shape[axis]! - reach + i
        const old = axis === 2 ? at(a, c, from, k) : at(a, c, k, from)
        const now = axis === 2 ? at(b, c, i, k) : at(b, c, k, i)
        b.data[now] = a.data[old]! * (1 - i / reach) + b.data[now]! * (i / reach)
      }
}

/** @param tile, overlap in pixels of x; the result is `scale` times as large (or a share of it) */
export const tiledKl = async (x: Tensor, tile: number, overlap: number, scale: number, work: Work): Promise<Tensor> => {
  const step = Math.trunc(tile * (1 - overlap))
  const extent = Math.trunc(tile * scale * overlap)
  const limit = tile * scale - extent
  const rows: Tensor[][] = []
  for (let i = 0; i < x.shape[2]!; i += step) {
    const row: Tensor[] = []
    for (let j = 0; j < x.shape[3]!; j += step) row.push(await work(part(x, i, j, tile, tile)))
    rows.push(row)
  }
  const joined = rows.map((row, i) => {
    const parts = row.map((t, j) => {
      if (i > 0) blend(rows[i - 1]![j]!, t, extent, 2)
      if (j > 0) blend(row[j - 1]!, t, extent, 3)
      return part(t, 0, 0, limit, limit)
    })
    return beside(parts, 3)
  })
  return beside(joined, 2)
}

export const tiledTiny = async (
  x: Tensor,
  tile: number,
  overlap: number,
  scale: number,
  channels: number,
  work: Work
): Promise<Tensor> => {
  const blended = Math.trunc(tile * overlap)
  const step = tile - blended
  const shape = [1, channels, x.shape[2]! * scale, x.shape[3]! * scale]
  const out = { data: new Float32Array(shape.reduce((a, b) => a * b)), shape }
  const mask = (first: boolean, i: number): number => (first ? 1 : Math.min(Math.max(i / (blended * scale - 1), 0), 1))
  for (let i = 0; i < x.shape[2]!; i += step)
    for (let j = 0; j < x.shape[3]!; j += step) {
      const t = await work(part(x, i, j, tile, tile))
      for (let c = 0; c < channels; c++)
        for (let y = 0; y < t.shape[2]!; y++)
          for (let k = 0; k < t.shape[3]!; k++) {
            const m = mask(i === 0, y) * mask(j === 0, k)
            const to = at(out, c, i * scale + y, j * scale + k)
            out.data[to] = m * t.data[at(t, c, y, k)]! + (1 - m) * out.data[to]!
          }
    }
  return out
}
