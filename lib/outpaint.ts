/** Outpainting: the picture on a larger canvas, whose margin is then inpainted. */
import sharp from 'sharp'
import { invalidArgument } from './errors.js'
import { loadImage, type ImageInput, type RawImage } from './image.js'
import type { InpaintOptions } from './img2img-options.js'
import { Generator } from './txt2img.js'
import { integerIn, oneOf } from './validate.js'

/**
 * inpaint's options but for the canvas, which follows from the margins. The picture itself comes back untouched outside
 * margins and overlaps (`overlay` is on by default), and `maskBlur` defaults to an eighth of the overlap.
 */
export interface OutpaintOptions extends Omit<
  InpaintOptions,
  'image' | 'mask' | 'width' | 'height' | 'paddingMaskCrop' | 'invertMask' | 'resizeMode'
> {
  image: ImageInput
  /** Margins in pixels, default 0, at least one above. The canvas grows to whole latents: multiples of 8. */
  left?: number
  right?: number
  top?: number
  bottom?: number
  /** What the margin holds before it is painted: the picture's edge (default), its reflection, or noise of the seed. */
  fill?: 'edge' | 'reflect' | 'noise'
  /** How many of the picture's own pixels next to a margin go over into what is painted; default 16. */
  overlap?: number
}

export interface Margins {
  readonly left: number
  readonly right: number
  readonly top: number
  readonly bottom: number
}

/** Margins of which `size` and both sides together are a multiple: the far one grows, or the only one there is. */
const rounded = (size: number, near: number, far: number, multiple: number): [near: number, far: number] => {
  const more = (multiple - ((size + near + far) % multiple)) % multiple
  return near > 0 && far === 0 ? [near + more, far] : [near, far + more]
}

/** White on the margins that were asked for and half the overlap beside them, so that its feather fits the whole. */
const marginMask = (width: number, height: number, m: Margins, overlap: number): RawImage => {
  const data = new Uint8Array(width * height).fill(255)
  const [left, right, top, bottom] = [m.left, m.right, m.top, m.bottom].map((n) =>
    n > 0 ? n + Math.ceil(overlap / 2) : 0
  ) as [number, number, number, number]
  for (let y = top; y < height - bottom; y++)
    if (width - right > left) data.fill(0, y * width + left, (y + 1) * width - right)
  return { data, width, height, channels: 1 }
}

/** The canvas and its mask, as inpaint's options. @param multiple that the canvas's sides must be multiples of */
export const outpaintOptions = async (o: OutpaintOptions, multiple: number): Promise<InpaintOptions> => {
  if (typeof o !== 'object' || o === null) throw invalidArgument('options', 'an object', o)
  for (const name of ['mask', 'width', 'height', 'paddingMaskCrop', 'invertMask', 'resizeMode'])
    if (name in o) throw invalidArgument(name, 'nothing (the margins say it)', (o as never)[name])
  const { image, left = 0, right = 0, top = 0, bottom = 0, fill = 'edge', overlap = 16, ...rest } = o
  for (const [name, value] of Object.entries({ left, right, top, bottom, overlap })) integerIn(name, value, 0, 8192)
  oneOf('fill', fill, ['edge', 'reflect', 'noise'])
  if (left + right + top + bottom === 0)
    throw invalidArgument('left, right, top and bottom', 'at least one margin', '0, 0, 0, 0')
  const picture = await loadImage(image)
  const [l, r] = rounded(picture.width, left, right, multiple)
  const [t, b] = rounded(picture.height, top, bottom, multiple)
  const margins: Margins = { left: l, right: r, top: t, bottom: b }
  const { data, info } = await sharp(picture.data, {
    raw: { width: picture.width, height: picture.height, channels: 3 }
  })
    .extend({ ...margins, extendWith: fill === 'reflect' ? 'mirror' : 'copy' })
    .raw()
    .toBuffer({ resolveWithObject: true })
  const { width, height } = info
  const canvas = new Uint8Array(data)
  if (fill === 'noise') {
    const seed = Array.isArray(o.seed) ? (o.seed[0] as number) : ((o.seed as number | bigint | undefined) ?? 0)
    const noise = new Generator(seed).randn([canvas.length]).data
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++) {
        if (x >= l && x < width - r && y >= t && y < height - b) continue
        for (let i = (y * width + x) * 3, end = i + 3; i < end; i++)
          canvas[i] = Math.min(Math.max(Math.round(127.5 + 64 * noise[i]!), 0), 255)
      }
  }
  return {
    overlay: true,
    maskBlur: overlap / 8,
    ...rest,
    image: { data: canvas, width, height, channels: 3 },
    mask: marginMask(width, height, margins, overlap),
    width,
    height
  }
}
