/** What inpainting does around its mask: options, checks, and names in `parameters` texts. */
import type { NativeRepaint } from './binding.js'
import { bool, finite, integerIn, oneOf } from './validate.js'

/** What inpainting does around its mask. */
export interface RepaintOptions {
  /** σ of a Gaussian feather of the mask, in its own pixels, as diffusers' VaeImageProcessor.blur; default 0. */
  maskBlur?: number
  /** Paint where the mask is black instead; default false. */
  invertMask?: boolean
  /**
   * Paint only the region around the mask, with so many pixels of padding, at width × height, and put it back into the
   * picture, whose size the result has (diffusers' padding_mask_crop, AUTOMATIC1111's "Only masked"). Default: the whole.
   */
  paddingMaskCrop?: number
  /**
   * Lay the picture itself over the result where the mask is black, mixed where it is grey (diffusers' apply_overlay).
   * Default: with maskBlur or paddingMaskCrop. Without it, what is outside the mask has gone through the autoencoder.
   */
  overlay?: boolean
  /**
   * What is under the mask before the first step (AUTOMATIC1111's "masked content"): the picture (default), the colours
   * around it, noise, or nothing. Strength 1 begins with noise alone, so that it has little to say there.
   */
  maskedContent?: 'original' | 'fill' | 'latentNoise' | 'latentNothing'
}

export const repaintNames = ['maskBlur', 'invertMask', 'paddingMaskCrop', 'overlay', 'maskedContent'] as const

export type ResolvedRepaint = NativeRepaint

export const resolveRepaint = (o: RepaintOptions): ResolvedRepaint => {
  const blur = finite('maskBlur', o.maskBlur ?? 0, 0, 1024)
  const region = o.paddingMaskCrop === undefined ? undefined : integerIn('paddingMaskCrop', o.paddingMaskCrop, 0, 8192)
  return {
    invert: bool('invertMask', o.invertMask ?? false),
    blur,
    region,
    overlay: bool('overlay', o.overlay ?? (blur > 0 || region !== undefined)),
    content: oneOf('maskedContent', o.maskedContent ?? 'original', ['original', 'fill', 'latentNoise', 'latentNothing'])
  }
}

const contents = { original: '', fill: 'fill', latentNoise: 'latent noise', latentNothing: 'latent nothing' }

export const repaintFields = (r: ResolvedRepaint): Record<string, string> => ({
  ...(r.blur > 0 ? { 'Mask blur': String(r.blur) } : {}),
  ...(r.invert ? { 'Mask mode': 'Inpaint not masked' } : {}),
  ...(r.content === 'original' ? {} : { 'Masked content': contents[r.content] }),
  ...(r.region === undefined ? {} : { 'Inpaint area': 'Only masked', 'Masked area padding': String(r.region) })
})
