/** Pictures one after another as one moving picture: the steps of a generation, or frames. */
import sharp from 'sharp'
import { invalidArgument } from './errors.js'
import type { DiffusionImage } from './image.js'
import { integerIn, knownKeys, oneOf } from './validate.js'

/** Options of animation(). */
export interface AnimationOptions {
  /** 'webp' (default) or 'gif', which has 256 colours. */
  format?: 'webp' | 'gif'
  /** Milliseconds that a picture is shown, default 100. */
  delay?: number
  /** Milliseconds for the last picture, default 1500. */
  lastDelay?: number
  /** How often it is shown; 0 (default): for ever. */
  loop?: number
  /** WebP: 1 to 100, default 90. */
  quality?: number
}

/**
 * An animated file of pictures of one size, in their order: of a generation, collect `event.image` of `onStep` (option
 * `preview`), and the result at the end. Equal neighbours may become one frame that is shown as long as both.
 * @throws DiffusionError ERR_ND_INVALID_ARGUMENT
 */
export const animation = async (images: readonly DiffusionImage[], options: AnimationOptions = {}): Promise<Buffer> => {
  knownKeys('animation', options, ['format', 'delay', 'lastDelay', 'loop', 'quality'])
  const [first] = images
  if (!first) throw invalidArgument('images', 'at least one picture', images)
  const { width, height } = first
  const other = images.find((image) => image.width !== width || image.height !== height)
  if (other)
    throw invalidArgument('images', `pictures of one size (${width} × ${height})`, `${other.width} × ${other.height}`)
  const format = oneOf('format', options.format ?? 'webp', ['webp', 'gif'])
  const duration = (name: 'delay' | 'lastDelay', standard: number): number =>
    integerIn(name, options[name] ?? standard, 10, 65_535)
  const [delay, lastDelay] = [duration('delay', 100), duration('lastDelay', 1500)]
  const loop = integerIn('loop', options.loop ?? 0, 0, 65_535)
  const quality = integerIn('quality', options.quality ?? 90, 1, 100)
  // sharp takes the frames as one tall picture.
  const data = new Uint8Array(images.length * first.data.length)
  images.forEach((image, i) => data.set(image.data, i * first.data.length))
  const tall = sharp(data, {
    raw: { width, height: height * images.length, channels: 3, pageHeight: height },
    limitInputPixels: false
  })
  const timing = { loop, delay: images.map((_, i) => (i === images.length - 1 ? lastDelay : delay)) }
  return (format === 'webp' ? tall.webp({ ...timing, quality }) : tall.gif(timing)).toBuffer()
}
