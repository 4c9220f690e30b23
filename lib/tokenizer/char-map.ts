/**
 * SentencePiece's compiled normalisation ("nmt_nfkc" and others): a trie of UTF-8 sequences (a double array, Aoe 1989, as
 * Darts lays it out) and the texts that they become. Layout: the trie's size in bytes (32 bits, little endian), its
 * units, the texts, each ended by a zero.
 */
export class CharMap {
  private readonly units: Uint32Array
  private readonly texts: Uint8Array

  /** @throws RangeError where the bytes are no such map */
  constructor(bytes: Uint8Array) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    const size = view.getUint32(0, true)
    if (size % 4 || 4 + size > bytes.length) throw new RangeError('no compiled character map')
    this.units = Uint32Array.from({ length: size / 4 }, (_, i) => view.getUint32(4 + 4 * i, true))
    this.texts = bytes.subarray(4 + size)
  }

  /** Every longest sequence that the map knows, replaced; others stay. */
  normalize(text: string): string {
    const bytes = new TextEncoder().encode(text)
    const out: number[] = []
    for (let at = 0; at < bytes.length;) {
      const found = this.longest(bytes, at)
      if (found) {
        for (let i = found.text; this.texts[i]; i++) out.push(this.texts[i]!)
        at += found.length
        continue
      }
      do out.push(bytes[at++]!)
      while (at < bytes.length && (bytes[at]! & 0xc0) === 0x80) // the rest of the character
    }
    return new TextDecoder().decode(Uint8Array.from(out))
  }

  private longest(bytes: Uint8Array, start: number): { length: number; text: number } | undefined {
    // A unit: bit 31 marks a value; else bits 10… are the offset to the children (times 256 where bit 9 is set), bit 8 says
    // that one of them holds a value, bits 0–7 are the byte that leads here.
    const offset = (unit: number): number => (unit >>> 10) << ((unit & (1 << 9)) >>> 6)
    let found: { length: number; text: number } | undefined
    let node = offset(this.units[0] ?? 0)
    for (let at = start; at < bytes.length; at++) {
      node ^= bytes[at]!
      const unit = this.units[node]
      if (unit === undefined || (unit & 0x800000ff) >>> 0 !== bytes[at]) break
      node ^= offset(unit)
      if ((unit >>> 8) & 1) found = { length: at + 1 - start, text: this.units[node]! & 0x7fffffff }
    }
    return found
  }
}
