/** Text in PNG files (PNG specification, third edition, section 11.3.3): tEXt, zTXt and iTXt chunks. */
import { inflateSync } from 'node:zlib'
import { invalidArgument, modelFormat } from './errors.js'

const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a])
const largestText = 16 << 20

const crcTable = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n
  for (let k = 0; k < 8; k++) c = c & 1 ? 0xedb88320 ^ (c >>> 1) : c >>> 1
  return c
})

/** CRC-32 of ISO 3309. (zlib.crc32 is younger than the oldest Node that this package runs on.) */
const crc32 = (bytes: Uint8Array): number => {
  let c = 0xffffffff
  for (const byte of bytes) c = crcTable[(c ^ byte) & 255]! ^ (c >>> 8)
  return (c ^ 0xffffffff) >>> 0
}

interface Chunk {
  type: string
  data: Buffer
}

const readChunks = (png: Uint8Array): Chunk[] => {
  const bytes = Buffer.from(png.buffer, png.byteOffset, png.byteLength)
  if (bytes.length < 8 || !bytes.subarray(0, 8).equals(signature))
    throw modelFormat('Expected a PNG file but its first eight bytes are not the PNG signature')
  const chunks: Chunk[] = []
  let at = 8
  while (at < bytes.length) {
    if (at + 12 > bytes.length) throw modelFormat(`Expected a PNG chunk at byte ${at} but the file ends there`)
    const length = bytes.readUInt32BE(at)
    const end = at + 12 + length
    const type = bytes.toString('latin1', at + 4, at + 8)
    if (!/^[A-Za-z]{4}$/.test(type)) throw modelFormat(`Expected a PNG chunk type at byte ${at + 4}`)
    if (end > bytes.length) throw modelFormat(`PNG chunk ${type} at byte ${at} has ${length} bytes, more than the file`)
    if (crc32(bytes.subarray(at + 4, end - 4)) !== bytes.readUInt32BE(end - 4))
      throw modelFormat(`PNG chunk ${type} at byte ${at} has a wrong checksum: the file is damaged`)
    chunks.push({ type, data: bytes.subarray(at + 8, end - 4) })
    at = end
    if (type === 'IEND') break
  }
  if (chunks[0]?.type !== 'IHDR' || chunks[0].data.length !== 13)
    throw modelFormat('Expected IHDR as the first PNG chunk')
  if (chunks.at(-1)?.type !== 'IEND') throw modelFormat('Expected IEND as the last PNG chunk: the file is cut off')
  return chunks
}

const writeChunk = ({ type, data }: Chunk): Buffer => {
  const bytes = Buffer.alloc(12 + data.length)
  bytes.writeUInt32BE(data.length, 0)
  bytes.write(type, 4, 'latin1')
  data.copy(bytes, 8)
  bytes.writeUInt32BE(crc32(bytes.subarray(4, 8 + data.length)), 8 + data.length)
  return bytes
}

const inflate = (data: Buffer, type: string): Buffer => {
  try {
    return inflateSync(data, { maxOutputLength: largestText })
  } catch (cause) {
    throw modelFormat(`Cannot unpack a ${type} chunk of the PNG file: ${(cause as Error).message}`)
  }
}

/** [keyword, text] of a text chunk, or null for other chunks. */
const textOf = ({ type, data }: Chunk): [string, string] | null => {
  if (type !== 'tEXt' && type !== 'zTXt' && type !== 'iTXt') return null
  const zero = (from: number): number => {
    const at = data.indexOf(0, from)
    if (at < 0) throw modelFormat(`A ${type} chunk of the PNG file lacks the zero that ends a field`)
    return at
  }
  const end = zero(0)
  const keyword = data.toString('latin1', 0, end)
  if (type === 'tEXt') return [keyword, data.toString('latin1', end + 1)]
  if (type === 'zTXt') return [keyword, inflate(data.subarray(end + 2), type).toString('latin1')]
  const text = data.subarray(zero(zero(end + 3) + 1) + 1)
  return [keyword, (data[end + 1] === 1 ? inflate(text, type) : text).toString('utf8')]
}

/** All texts of a PNG file by keyword. @throws DiffusionError ERR_ND_MODEL_FORMAT for a file that is broken */
export const readPngText = (png: Uint8Array): Record<string, string> =>
  Object.fromEntries(readChunks(png).flatMap((chunk) => [textOf(chunk) ?? []].filter((entry) => entry.length === 2)))

/**
 * The PNG file with `text` under `keyword`, in place of what was there: tEXt where Latin-1 holds it, else iTXt.
 * @throws DiffusionError ERR_ND_MODEL_FORMAT for a file that is broken, ERR_ND_INVALID_ARGUMENT for the keyword
 */
export const writePngText = (png: Uint8Array, keyword: string, text: string): Buffer => {
  if (!/^[!-~\xa1-\xff]([ -~\xa1-\xff]{0,77}[!-~\xa1-\xff])?$/.test(keyword) || keyword.includes('  '))
    throw invalidArgument('keyword', '1 to 79 Latin-1 characters without outer or double spaces', keyword)
  const clean = text.replaceAll('\0', '') // a zero would end the field
  // Latin-1 text of PNG has no control characters but the line feed.
  const latin = /^[\n\x20-\x7e\xa0-\xff]*$/.test(clean)
  const chunk: Chunk = latin
    ? { type: 'tEXt', data: Buffer.from(`${keyword}\0${clean}`, 'latin1') }
    : { type: 'iTXt', data: Buffer.concat([Buffer.from(`${keyword}\0\0\0\0\0`, 'latin1'), Buffer.from(clean, 'utf8')]) }
  const [header, ...rest] = readChunks(png)
  const kept = rest.filter((other) => textOf(other)?.[0] !== keyword)
  return Buffer.concat([signature, ...[header!, chunk, ...kept].map(writeChunk)])
}
