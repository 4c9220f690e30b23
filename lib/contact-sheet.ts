/** Several pictures as one. */
import sharp from 'sharp'
import { invalidArgument } from './errors.js'
import { DiffusionImage } from './image.js'

/** Options of contactSheet(). */
export interface ContactSheetOptions {
  /** Pictures per row; default: as square as it goes. */
  columns?: number
  /** Pixels between pictures and around them, default 4. */
  gap?: number
  /** One line of text below each picture. (Drawn with the system's fonts: without any, the space stays empty.) */
  labels?: readonly string[]
}

const labelHeight = 16
const background = 255

const escapeXml = (text: string): string => text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`)

const labelSvg = (text: string, width: number): Buffer =>
  Buffer.from(
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${labelHeight}">` +
      `<text x="${width / 2}" y="12" font-family="sans-serif" font-size="11" text-anchor="middle">${escapeXml(text)}</text></svg>`
  )

/** The pictures in rows on white; smaller ones lie in the upper left corner of their cell. */
export const contactSheet = async (
  images: readonly DiffusionImage[],
  options: ContactSheetOptions = {}
): Promise<DiffusionImage> => {
  if (images.length === 0) throw invalidArgument('images', 'at least one picture', images)
  const { columns = Math.ceil(Math.sqrt(images.length)), gap = 4, labels } = options
  if (!Number.isInteger(columns) || columns < 1) throw invalidArgument('columns', 'a positive integer', columns)
  if (!Number.isInteger(gap) || gap < 0) throw invalidArgument('gap', 'an integer of at least 0', gap)
  if (labels && labels.length !== images.length)
    throw invalidArgument('labels', `as many labels as pictures (${images.length})`, labels)
  const cellWidth = Math.max(...images.map((image) => image.width))
  const pictureHeight = Math.max(...images.map((image) => image.height))
  const cellHeight = pictureHeight + (labels ? labelHeight : 0)
  const across = Math.min(columns, images.length)
  const width = gap + across * (cellWidth + gap)
  const height = gap + Math.ceil(images.length / columns) * (cellHeight + gap)
  const data = new Uint8Array(width * height * 3).fill(background)
  const left = (i: number): number => gap + (i % columns) * (cellWidth + gap)
  const top = (i: number): number => gap + Math.floor(i / columns) * (cellHeight + gap)
  images.forEach((image, i) => {
    for (let y = 0; y < image.height; y++) {
      const row = image.data.subarray(y * image.width * 3, (y + 1) * image.width * 3)
      data.set(row, ((top(i) + y) * width + left(i)) * 3)
    }
  })
  if (!labels) return new DiffusionImage({ data, width, height })
  const labelled = await sharp(data, { raw: { width, height, channels: 3 } })
    .composite(
      labels.map((text, i) => ({ input: labelSvg(text, cellWidth), left: left(i), top: top(i) + pictureHeight }))
    )
    .removeAlpha()
    .raw()
    .toBuffer()
  return new DiffusionImage({ data: new Uint8Array(labelled), width, height })
}
