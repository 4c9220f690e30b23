/** Inputs from inputs: bytes flipped, cut, copied, spliced; of JSON, values replaced and members moved. Reproducible by its seed. */
const interesting = [
  ...[null, true, false, 0, 1, -1, 2, 3, 4, 8, 32, 77, 0.5, 1e-9, 1e9, 1e300, -1e300, 2 ** 31, 2 ** 32, 2 ** 53],
  ...[
    '',
    'a',
    '0',
    'none',
    'relu',
    'gelu',
    'silu',
    'constructor',
    '__proto__',
    'toString',
    '\u0000',
    '\ud800',
    '</w>',
    '../../x'
  ],
  ...[[], [[]], [1], [-1, 0], [4, 8, 16, 16], ['a', 1], {}, { a: 1 }, { content: 'x' }, { __number: 'NaN' }]
]
const pieces = [
  '"',
  '{',
  '}',
  '[',
  ']',
  ':',
  ',',
  '\\',
  '\\u0000',
  '\n',
  '\r\n',
  ' ',
  '(',
  ')',
  '<',
  '>',
  '|',
  '\u00ff',
  '\u0000',
  '🎈',
  'NaN'
]

export class Mutator {
  constructor(seed, { json = false, mend = (bytes) => bytes, words = [] } = {}) {
    this.state = seed >>> 0 || 1
    this.json = json
    this.mend = mend
    this.words = [...pieces, ...words].map((word) => Buffer.from(word))
  }

  /** xorshift32 (Marsaglia, 2003): an integer in 0..n−1. */
  below(n) {
    this.state ^= this.state << 13
    this.state ^= this.state >>> 17
    this.state ^= this.state << 5
    return (this.state >>> 0) % n
  }
  pick(list) {
    return list[this.below(list.length)]
  }

  /** A new input from one or two of the corpus. */
  mutate(corpus) {
    let bytes = Buffer.from(this.pick(corpus))
    for (let i = 1 + this.below(4); i > 0; i--)
      bytes = (this.json && this.below(4) && this.changeJson(bytes)) || this.changeBytes(bytes, corpus)
    return this.below(8) ? this.mend(bytes) : bytes
  }

  changeBytes(bytes, corpus) {
    const at = this.below(bytes.length + 1)
    const length = Math.min(bytes.length - at, 1 + this.below(this.below(2) ? 8 : 512))
    const [before, middle, after] = [
      bytes.subarray(0, at),
      bytes.subarray(at, at + length),
      bytes.subarray(at + length)
    ]
    switch (this.below(7)) {
      case 0:
        if (at < bytes.length) bytes[at] ^= 1 << this.below(8)
        return bytes
      case 1:
        if (at < bytes.length) bytes[at] = this.pick([0, 1, 0x7f, 0x80, 0xff, this.below(256)])
        return bytes
      case 2:
        return Buffer.concat([before, after])
      case 3:
        return Buffer.concat([
          before,
          ...Array.from({ length: 1 + this.below(this.below(4) ? 2 : 64) }, () => middle),
          middle,
          after
        ])
      case 4: {
        const other = this.pick(corpus)
        const from = this.below(other.length + 1)
        return Buffer.concat([before, other.subarray(from, from + 1 + this.below(256)), after])
      }
      case 5:
        return Buffer.concat([before, this.pick(this.words), middle, after])
      default: {
        const number = Buffer.alloc(4)
        number.writeInt32BE(this.pick([0, 1, -1, 0x7fffffff, -0x80000000, this.below(4096)]))
        return Buffer.concat([before, number, after])
      }
    }
  }

  /** Undefined where it is no JSON. */
  changeJson(bytes) {
    let value
    try {
      value = JSON.parse(bytes.toString())
    } catch {
      return undefined
    }
    const places = []
    const visit = (of, depth) => {
      if (typeof of !== 'object' || of === null || depth > 20) return
      for (const key of Object.keys(of)) {
        places.push([of, key])
        visit(of[key], depth + 1)
      }
    }
    visit(value, 0)
    if (places.length === 0) return Buffer.from(JSON.stringify(this.pick(interesting)))
    const [holder, key] = this.pick(places)
    const [otherHolder, otherKey] = this.pick(places)
    switch (this.below(6)) {
      case 0:
        delete holder[key]
        break
      case 1:
        holder[key] = structuredClone(otherHolder[otherKey])
        break
      case 2:
        if (typeof holder[key] === 'number')
          holder[key] = this.pick([-holder[key], holder[key] * 2, holder[key] + 1, holder[key] / 2])
        else holder[key] = this.pick(interesting)
        break
      case 3:
        if (Array.isArray(holder)) holder.push(structuredClone(holder[key]))
        else
          Object.defineProperty(holder, this.below(2) ? otherKey : String(this.pick(interesting)), {
            value: structuredClone(holder[key]),
            enumerable: true,
            configurable: true,
            writable: true
          })
        break
      default:
        holder[key] = structuredClone(this.pick(interesting))
    }
    return Buffer.from(JSON.stringify(value)).subarray(0, 1 << 16)
  }
}
