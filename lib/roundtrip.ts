/** A picture through the autoencoder and back: what its latents keep. */
import { DiffusionImage, loadImage, type ImageInput, type LoadedImage } from './image.js'
import type { Tensor } from './tensor.js'

/** A picture's way through the autoencoder and back: see Vae.roundtrip. */
export interface Roundtrip {
  /** The decoded picture, as large as the given one. */
  readonly image: DiffusionImage
  /** Peak signal-to-noise ratio over all RGB bytes in dB: 10·log₁₀(255² / mean squared error); Infinity where they are equal. */
  readonly psnr: number
  /** What the picture was in between: the mean of the encoder's distribution, [1, C, h, w]. */
  readonly latents: Tensor
}

/** RGB bytes as a tensor [1, 3, H, W] of −1..1; the edges repeat up to multiples of `multiple`. */
const padded = (image: LoadedImage, multiple: number): Tensor => {
  const width = Math.ceil(image.width / multiple) * multiple
  const height = Math.ceil(image.height / multiple) * multiple
  const data = new Float32Array(3 * width * height)
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const pixel = Math.min(y, image.height - 1) * image.width + Math.min(x, image.width - 1)
      for (let c = 0; c < 3; c++) data[(c * height + y) * width + x] = (image.data[3 * pixel + c]! / 255) * 2 - 1
    }
  return { data, shape: [1, 3, height, width] }
}

/** Number k rounded to the nearest integer, ties to even, as the engine rounds pixels. */
const rounded = (value: number): number => {
  const low = Math.floor(value)
  const part = value - low
  return part > 0.5 || (part === 0.5 && low % 2 === 1) ? low + 1 : low
}

const cropped = ({ data, shape }: Tensor, width: number, height: number): DiffusionImage => {
  const [, , rows, columns] = shape as [number, number, number, number]
  const bytes = new Uint8Array(3 * width * height)
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      for (let c = 0; c < 3; c++) {
        const value = data[(c * rows + y) * columns + x]! / 2 + 0.5
        bytes[3 * (y * width + x) + c] = rounded(Math.min(Math.max(value, 0), 1) * 255)
      }
  return new DiffusionImage({ data: bytes, width, height })
}

/** Peak signal-to-noise ratio of bytes, in dB. */
export const psnrOf = (a: ArrayLike<number>, b: ArrayLike<number>): number => {
  let sum = 0
  for (let i = 0; i < a.length; i++) sum += (a[i]! - b[i]!) ** 2
  return sum === 0 ? Infinity : 10 * Math.log10((255 * 255 * a.length) / sum)
}

/** @param codec encoder (to latents) and decoder of one autoencoder */
export const roundtrip = async (
  input: ImageInput,
  factor: number,
  codec: { encode(picture: Tensor): Promise<Tensor>; decode(latents: Tensor): Promise<Tensor> }
): Promise<Roundtrip> => {
  const picture = await loadImage(input)
  const latents = await codec.encode(padded(picture, factor))
  const image = cropped(await codec.decode(latents), picture.width, picture.height)
  return { image, psnr: psnrOf(image.data, picture.data), latents }
}
