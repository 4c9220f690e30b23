/** CRC-32 of ISO 3309, bit by bit: not the table of the code under test. */
export const crc32 = (bytes) => {
  let c = 0xffffffff
  for (const byte of bytes) {
    c ^= byte
    for (let i = 0; i < 8; i++) c = c & 1 ? 0xedb88320 ^ (c >>> 1) : c >>> 1
  }
  return (c ^ 0xffffffff) >>> 0
}
