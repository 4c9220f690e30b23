/** Pictures in and out: what a pipeline returns, and what it takes. Encoding and decoding are sharp's. */
import { extname } from 'node:path'
import sharp, {
  type Colour,
  type JpegOptions,
  type OutputInfo,
  type PngOptions,
  type Sharp,
  type WebpOptions
} from 'sharp'
import { replaceFile } from './atomic-write.js'
import { DiffusionError, invalidArgument } from './errors.js'
import { writePngText } from './png-metadata.js'

export type ImageFormat = 'png' | 'jpeg' | 'webp'

const formatOfExtension: Readonly<Record<string, ImageFormat>> = {
  '.png': 'png',
  '.jpg': 'jpeg',
  '.jpeg': 'jpeg',
  '.webp': 'webp'
}

/** sharp's output options of each format. */
export interface ImageOptions {
  png: PngOptions
  jpeg: JpegOptions
  webp: WebpOptions
}

/** Pixels of 8 bits, rows from the top. */
export interface RawImage {
  data: Uint8Array | Uint8ClampedArray
  width: number
  height: number
  /** 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha. */
  channels: 1 | 2 | 3 | 4
}

/** A picture: path, encoded file, sharp instance, pixels, or a picture that a pipeline made. */
export type ImageInput = string | Uint8Array | Sharp | RawImage | DiffusionImage

const checkSize = (name: string, value: number): void => {
  if (!Number.isInteger(value) || value < 1) throw invalidArgument(name, 'a positive integer', value)
}

/** An 8-bit RGB picture. */
export class DiffusionImage implements RawImage {
  readonly channels = 3
  readonly width: number
  readonly height: number
  /** Rows from the top, three bytes a pixel. */
  readonly data: Uint8Array
  /** AUTOMATIC1111's `parameters` text, which PNG files carry along. */
  parameters: string | undefined

  constructor(image: { data: Uint8Array; width: number; height: number; parameters?: string | undefined }) {
    checkSize('width', image.width)
    checkSize('height', image.height)
    if (!(image.data instanceof Uint8Array) || image.data.length !== image.width * image.height * 3)
      throw invalidArgument('data', `a Uint8Array of ${image.width} × ${image.height} × 3 bytes`, image.data)
    this.width = image.width
    this.height = image.height
    this.data = image.data
    this.parameters = image.parameters
  }

  /** Pixels as height × width × 3 numbers of 0..1. */
  toFloat32(): Float32Array {
    return Float32Array.from(this.data, (byte) => byte / 255)
  }

  /** A sharp instance over the pixels, for anything that sharp can do. */
  toSharp(): Sharp {
    return sharp(this.data, { raw: { width: this.width, height: this.height, channels: 3 } })
  }

  /** The encoded file. Only PNG carries `parameters`. */
  async toBuffer<F extends ImageFormat>(format: F, options: ImageOptions[F] = {}): Promise<Buffer> {
    switch (format) {
      case 'png': {
        const png = await this.toSharp().png(options).toBuffer()
        return this.parameters === undefined ? png : writePngText(png, 'parameters', this.parameters)
      }
      case 'jpeg':
        return this.toSharp().jpeg(options).toBuffer()
      case 'webp':
        return this.toSharp().webp(options).toBuffer()
      default:
        throw invalidArgument('format', "'png', 'jpeg' or 'webp'", format)
    }
  }

  /**
   * Writes the file in the format of its extension (.png, .jpg, .jpeg, .webp). It is written beside its place and
   * renamed, so that nobody sees half a file.
   */
  async save(path: string, options: ImageOptions[ImageFormat] = {}): Promise<void> {
    await writeAtomically(path, await this.toBuffer(imageFormat(path), options))
  }
}

/** The format that a path's extension asks for. @throws DiffusionError ERR_ND_INVALID_ARGUMENT */
export const imageFormat = (path: string): ImageFormat => {
  if (typeof path !== 'string') throw invalidArgument('path', 'a string', path)
  const format = formatOfExtension[extname(path).toLowerCase()]
  if (!format) throw invalidArgument('path', `a file name ending in ${Object.keys(formatOfExtension).join(', ')}`, path)
  return format
}

/** A file that is there as a whole or not at all. @throws DiffusionError ERR_ND_INVALID_ARGUMENT */
export const writeAtomically = (path: string, bytes: Uint8Array): Promise<void> =>
  replaceFile(path, bytes).catch((cause: Error) => {
    throw new DiffusionError('ERR_ND_INVALID_ARGUMENT', `Cannot write ${path}: ${cause.message}`, { cause })
  })

export interface LoadedImage {
  /** RGB, rows from the top. */
  data: Uint8Array
  width: number
  height: number
  /** One byte a pixel, where the picture has an alpha channel that was not flattened. */
  alpha?: Uint8Array
}

export interface LoadOptions {
  /**
   * Lay the picture over this colour. By default the colours stay as stored and alpha is returned beside them, which for
   * RGB alone is what PIL's convert("RGB"), and so diffusers, does.
   */
  flatten?: Colour
}

const isSharp = (input: object): input is Sharp => 'clone' in input && 'toColourspace' in input

const isRaw = (input: object): input is RawImage => 'data' in input && 'width' in input && 'height' in input

const fromRaw = (input: RawImage): Sharp => {
  const { data, width, height, channels } = input
  checkSize('image.width', width)
  checkSize('image.height', height)
  if (![1, 2, 3, 4].includes(channels)) throw invalidArgument('image.channels', '1, 2, 3 or 4', channels)
  if (!(data instanceof Uint8Array || data instanceof Uint8ClampedArray) || data.length !== width * height * channels)
    throw invalidArgument('image.data', `a Uint8Array of ${width} × ${height} × ${channels} bytes`, data)
  return sharp(data, { raw: { width, height, channels } })
}

const open = (input: ImageInput): { source: Sharp; name: string } => {
  if (typeof input === 'string') return { source: sharp(input), name: input }
  if (input instanceof Uint8Array) return { source: sharp(input), name: 'the encoded picture' }
  if (typeof input === 'object' && input !== null) {
    if (isSharp(input)) return { source: input.clone(), name: 'the sharp instance' }
    if (isRaw(input)) return { source: fromRaw(input), name: 'the pixels' }
  }
  throw invalidArgument(
    'image',
    'a path, an encoded file, a sharp instance or { data, width, height, channels }',
    input
  )
}

/**
 * Reads a picture as 8-bit sRGB: turned as its EXIF orientation says, grey and 16-bit pictures converted; of an animation
 * the first frame.
 * @throws DiffusionError ERR_ND_INVALID_ARGUMENT where it cannot be read
 */
export const loadImage = async (input: ImageInput, options: LoadOptions = {}): Promise<LoadedImage> => {
  const { source, name } = open(input)
  let pixels: { data: Buffer; info: OutputInfo }
  try {
    let picture = source.autoOrient()
    if (options.flatten !== undefined) picture = picture.flatten({ background: options.flatten })
    pixels = await picture.toColourspace('srgb').raw({ depth: 'uchar' }).toBuffer({ resolveWithObject: true })
  } catch (cause) {
    throw new DiffusionError(
      'ERR_ND_INVALID_ARGUMENT',
      `Cannot read ${name} as a picture: ${(cause as Error).message}`,
      {
        cause
      }
    )
  }
  const { width, height, channels } = pixels.info
  const count = width * height
  const grey = channels < 3
  if (channels === 3) return { data: new Uint8Array(pixels.data), width, height }
  const data = new Uint8Array(count * 3)
  for (let i = 0; i < count; i++)
    for (let c = 0; c < 3; c++) data[i * 3 + c] = pixels.data[i * channels + (grey ? 0 : c)]!
  if (channels === 1) return { data, width, height }
  const alpha = new Uint8Array(count)
  for (let i = 0; i < count; i++) alpha[i] = pixels.data[i * channels + channels - 1]!
  return { data, width, height, alpha }
}
