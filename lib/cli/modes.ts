/** The command line's options of hires, variations, tiling, inpainting and outpainting. */
import { InvalidArgumentError, type Command } from 'commander'
import { invalidArgument } from '../errors.js'
import type { HiresOptions, OutpaintOptions, RepaintOptions, ResizeMode, VariationOptions } from '../index.js'
import { choiceArgument, given, integerArgument, numberArgument, seedArgument } from './arguments.js'

export interface ModeOptions {
  hires?: number
  hiresUpscaler?: string
  hiresSteps?: number
  hiresStrength?: number
  subseed?: bigint
  subseedStrength?: number
  seedResizeFrom?: { width: number; height: number }
  tiling?: true | 'x' | 'y'
  resizeMode?: ResizeMode
  maskBlur?: number
  maskedContent?: NonNullable<RepaintOptions['maskedContent']>
  invertMask?: true
  paddingMaskCrop?: number
  outpaint?: Pick<OutpaintOptions, 'left' | 'right' | 'top' | 'bottom'>
  outpaintFill?: NonNullable<OutpaintOptions['fill']>
  overlap?: number
}

const sizeArgument = (text: string): { width: number; height: number } => {
  const parts = /^(\d+)x(\d+)$/.exec(text)
  if (!parts) throw new InvalidArgumentError('Expected WIDTHxHEIGHT.')
  return { width: Number(parts[1]), height: Number(parts[2]) }
}

const marginsArgument = (text: string): Record<string, number> =>
  Object.fromEntries(
    text.split(',').map((part) => {
      const [name = '', value = ''] = part.split('=')
      if (!['left', 'right', 'top', 'bottom'].includes(name))
        throw new InvalidArgumentError('Expected margins such as left=32,top=16.')
      return [name, integerArgument(value)]
    })
  )

export const addModeOptions = (command: Command): Command =>
  command
    .option('--hires <scale>', 'a second pass at so many times the size', numberArgument)
    .option('--hires-upscaler <name>', 'latent, latentBicubic, lanczos … (default: latent)')
    .option('--hires-steps <number>', 'steps of the second pass (default: as many as the first)', integerArgument)
    .option('--hires-strength <number>', 'how much the second pass changes, 0 to 1 (default: 0.75)', numberArgument)
    .option('--subseed <number>', 'another seed, to vary the picture towards', seedArgument)
    .option('--subseed-strength <number>', 'how far, 0 to 1', numberArgument)
    .option('--seed-resize-from <size>', 'the size at which the seed was found, such as 512x512', sizeArgument)
    .option(
      '--tiling [axis]',
      'a picture that can be laid side by side without a seam, or along x or y alone',
      choiceArgument('x', 'y')
    )
    .option(
      '--resize-mode <mode>',
      'of --image: default (stretch), crop or fill',
      choiceArgument('default', 'crop', 'fill')
    )
    .option('--mask-blur <pixels>', 'feather the mask; outside it the picture is kept to the bit', numberArgument)
    .option(
      '--masked-content <what>',
      'under the mask at first: original, fill, latentNoise or latentNothing',
      choiceArgument('original', 'fill', 'latentNoise', 'latentNothing')
    )
    .option('--invert-mask', 'paint where the mask is black')
    .option('--padding-mask-crop <pixels>', 'paint only the region around the mask, at full size', integerArgument)
    .option('--outpaint <margins>', 'carry --image on beyond its edges, such as right=32,top=16', marginsArgument)
    .option('--outpaint-fill <what>', 'edge, reflect or noise', choiceArgument('edge', 'reflect', 'noise'))
    .option(
      '--overlap <pixels>',
      "with --outpaint: how much of the picture's edge goes over into the new (default: 16)",
      integerArgument
    )

/** txt2img's and every other task's. */
export const variationOptions = (o: ModeOptions): VariationOptions =>
  given({
    subseed: o.subseed,
    subseedStrength: o.subseedStrength,
    seedResizeFromWidth: o.seedResizeFrom?.width,
    seedResizeFromHeight: o.seedResizeFrom?.height,
    tiling: o.tiling
  })

export const hiresOptions = (o: ModeOptions): { hires?: HiresOptions } => {
  const options = given({
    scale: o.hires,
    upscaler: o.hiresUpscaler,
    steps: o.hiresSteps,
    denoisingStrength: o.hiresStrength
  })
  if (o.hires === undefined && Object.keys(options).length)
    throw invalidArgument('--hires', 'a scale for the second pass', o.hires)
  return o.hires === undefined ? {} : { hires: options }
}

export const resizeOptions = (o: ModeOptions): { resizeMode?: ResizeMode } => given({ resizeMode: o.resizeMode })

export const repaintOptions = (o: ModeOptions): Omit<RepaintOptions, 'overlay'> =>
  given({
    maskBlur: o.maskBlur,
    maskedContent: o.maskedContent,
    invertMask: o.invertMask,
    paddingMaskCrop: o.paddingMaskCrop
  })

export const marginOptions = (o: ModeOptions): Partial<OutpaintOptions> =>
  given({
    ...o.outpaint,
    fill: o.outpaintFill,
    overlap: o.overlap,
    maskBlur: o.maskBlur,
    maskedContent: o.maskedContent
  })
