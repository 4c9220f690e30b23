/**
 * torch.randn on the CPU generator for tests, independent of the engine's: mt19937 and PyTorch's normal_fill, which
 * turns 16 uniform numbers at a time into 16 normal ones (Box-Muller, both halves). Only its path for 16 or more values.
 */
export class TorchRandom {
  private readonly state = new Uint32Array(624)
  private index = 624

  constructor(seed: number | bigint) {
    let value = Number(BigInt.asUintN(32, BigInt(seed)))
    for (let i = 0; i < 624; i++) {
      this.state[i] = value
      value = (Math.imul(1812433253, value ^ (value >>> 30)) + i + 1) >>> 0
    }
  }

  /** The next 32 bits of mt19937. */
  private next(): number {
    const s = this.state
    if (this.index === 624) {
      for (let i = 0; i < 624; i++) {
        const y = (s[i]! & 0x80000000) | (s[(i + 1) % 624]! & 0x7fffffff)
        s[i] = s[(i + 397) % 624]! ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0)
      }
      this.index = 0
    }
    let y = s[this.index++]!
    y ^= y >>> 11
    y ^= (y << 7) & 0x9d2c5680
    y ^= (y << 15) & 0xefc60000
    return (y ^ (y >>> 18)) >>> 0
  }
  private uniform(): number {
    return (this.next() & 0xffffff) / 2 ** 24
  }

  randn(count: number): Float32Array {
    if (count < 16) throw new Error('only the path for 16 or more values')
    const data = Float32Array.from({ length: count }, () => this.uniform())
    for (let i = 0; i + 16 <= count; i += 16) boxMuller(data, i)
    if (count % 16) {
      // the last 16 are drawn again as a whole
      for (let i = count - 16; i < count; i++) data[i] = this.uniform()
      boxMuller(data, count - 16)
    }
    return data
  }
}

const boxMuller = (data: Float32Array, from: number): void => {
  for (let j = from; j < from + 8; j++) {
    const radius = Math.sqrt(-2 * Math.log(1 - data[j]!))
    const angle = 2 * Math.PI * data[j + 8]!
    data[j] = radius * Math.cos(angle)
    data[j + 8] = radius * Math.sin(angle)
  }
}
