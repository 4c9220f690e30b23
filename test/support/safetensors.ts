/** A plain reader of safetensors for tests: independent of the engine's, so that both cannot be wrong alike. */
import { readFileSync, writeFileSync } from 'node:fs'

export interface TestTensor {
  data: Float32Array | Int32Array | BigInt64Array | Uint8Array
  shape: number[]
  dtype: string
}

const halfToFloat = (h: number): number => {
  const sign = h & 0x8000 ? -1 : 1
  const exponent = (h >> 10) & 31
  const fraction = h & 1023
  if (exponent === 0) return sign * fraction * 2 ** -24
  if (exponent === 31) return fraction ? NaN : sign * Infinity
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15)
}

export class TestFile {
  private readonly bytes: Buffer
  private readonly header: Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }>
  private readonly start: number

  constructor(path: string) {
    this.bytes = readFileSync(path)
    const length = Number(this.bytes.readBigUInt64LE(0))
    this.header = JSON.parse(this.bytes.toString('utf8', 8, 8 + length))
    this.start = 8 + length
  }

  get names(): string[] {
    return Object.keys(this.header).filter((n) => n !== '__metadata__')
  }
  has(name: string): boolean {
    return name in this.header
  }
  get(name: string): TestTensor {
    const entry = this.header[name]
    if (!entry) throw new Error(`no tensor ${name}`)
    const [from, to] = entry.data_offsets
    const raw = this.bytes.subarray(this.start + from, this.start + to)
    const copy = raw.buffer.slice(raw.byteOffset, raw.byteOffset + raw.byteLength) as ArrayBuffer
    const view = (): TestTensor['data'] => {
      switch (entry.dtype) {
        case 'F32':
          return new Float32Array(copy)
        case 'F16':
          return Float32Array.from(new Uint16Array(copy), halfToFloat)
        case 'I64':
          return new BigInt64Array(copy)
        case 'I32':
          return new Int32Array(copy)
        case 'U8':
          return new Uint8Array(copy)
        default:
          throw new Error(`dtype ${entry.dtype}`)
      }
    }
    return { data: view(), shape: entry.shape, dtype: entry.dtype }
  }
  /** As float32 numbers, whatever the dtype. */
  floats(name: string): Float32Array {
    const { data } = this.get(name)
    return data instanceof Float32Array ? data : Float32Array.from(data as ArrayLike<number | bigint>, Number)
  }
}

/** A tensor to write: float32 values and their shape. */
export interface Values {
  data: ArrayLike<number>
  shape: readonly number[]
}

/** Writes a safetensors file of float32 tensors. */
export const writeTensors = (
  path: string,
  tensors: Record<string, Values>,
  metadata?: Record<string, string>
): void => {
  let offset = 0
  const header: Record<string, unknown> = metadata ? { __metadata__: metadata } : {}
  const parts: Buffer[] = []
  for (const [name, { data, shape }] of Object.entries(tensors)) {
    const bytes = Buffer.from(Float32Array.from(data).buffer)
    header[name] = { dtype: 'F32', shape, data_offsets: [offset, (offset += bytes.length)] }
    parts.push(bytes)
  }
  let text = JSON.stringify(header)
  while (text.length % 8) text += ' '
  const size = Buffer.alloc(8)
  size.writeBigUInt64LE(BigInt(Buffer.byteLength(text)))
  writeFileSync(path, Buffer.concat([size, Buffer.from(text), ...parts]))
}
