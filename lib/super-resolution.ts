/** The options of superResolution: their meaning, defaults and checks, beyond txt2img's. */
import type { NativeGenerateJob } from './binding.js'
import { controlOptionNames, type ControlOptions } from './control-options.js'
import { invalidArgument, unsupported } from './errors.js'
import { loadImage, type ImageInput } from './image.js'
import type { PictureInput } from './img2img-options.js'
import { perturbedAttentionNames } from './perturbed-attention.js'
import { Scheduler } from './schedulers/index.js'
import { checkTensor, type Tensor } from './tensor.js'
import { resolveOptions, type PipelineTraits, type ResolvedOptions, type Txt2ImgOptions } from './txt2img-options.js'
import { integerIn } from './validate.js'
import { variationNames, type VariationOptions } from './variation.js'

/** Options of txt2img that speak of an autoencoder, or of a UNet as Stable Diffusion's is built. */
const latentOptions = [
  'hires',
  'freeU',
  'vaeTiling',
  'vaeSlicing',
  'attentionMaps',
  ...perturbedAttentionNames
] as const

/** @throws DiffusionError ERR_ND_UNSUPPORTED where txt2img is asked for what models that paint pixels have not */
export const checkPixelOptions = (o: ResolvedOptions): void => {
  if (o.hires) throw unsupported('hires is for models with an autoencoder; a cascade has superResolution for it')
  for (const name of latentOptions)
    if (o[name] !== undefined && o[name] !== false) throw unsupported(`${name} is not for models that paint pixels`)
}

/**
 * diffusers' IFSuperResolutionPipeline: a small picture is painted anew at the model's size. Sizes default to the model's.
 */
export interface SuperResolutionOptions extends Omit<
  Txt2ImgOptions,
  (typeof latentOptions)[number] | keyof ControlOptions | keyof VariationOptions
> {
  /** One for all, or one per prompt: pictures of one size, or a tensor [n, 3, h, w] in −1..1 such as a first stage's `latents`. */
  image: PictureInput | Tensor
  /** How much noise the enlarged picture gets, as a timestep: 0..999; default 250. */
  noiseLevel?: number
}

export interface ResolvedSuperResolution {
  readonly options: ResolvedOptions
  readonly upscale: NonNullable<NativeGenerateJob['upscale']>
}

const isTensor = (value: unknown): value is Tensor => typeof value === 'object' && value !== null && 'shape' in value

/** RGB bytes as [n, 3, h, w] in −1..1. */
const smallPictures = async (input: PictureInput | Tensor): Promise<Tensor> => {
  if (isTensor(input)) return checkTensor('image', input, [null, 3, null, null])
  if (input === undefined || input === null) throw invalidArgument('image', 'a picture', input)
  const list = Array.isArray(input) ? (input as readonly ImageInput[]) : [input as ImageInput]
  if (list.length === 0) throw invalidArgument('image', 'at least one picture', input)
  const pictures = await Promise.all(list.map((one) => loadImage(one)))
  const { width, height } = pictures[0]!
  if (pictures.some((p) => p.width !== width || p.height !== height))
    throw invalidArgument('image', `pictures of one size (${width} × ${height})`, pictures.length)
  const pixels = width * height
  const data = new Float32Array(pictures.length * 3 * pixels)
  pictures.forEach((picture, n) => {
    for (let i = 0; i < pixels; i++)
      for (let c = 0; c < 3; c++) data[(n * 3 + c) * pixels + i] = Math.fround(picture.data[i * 3 + c]! / 127.5) - 1
  })
  return { data, shape: [pictures.length, 3, height, width] }
}

export const resolveSuperResolution = async (
  o: SuperResolutionOptions,
  traits: PipelineTraits,
  noising: Scheduler
): Promise<ResolvedSuperResolution> => {
  if (typeof o !== 'object' || o === null) throw invalidArgument('options', 'an object', o)
  const options = resolveOptions(o, traits, {
    name: 'superResolution',
    extra: ['image', 'noiseLevel'],
    without: [...latentOptions, ...controlOptionNames, ...variationNames]
  })
  const noiseLevel = integerIn('noiseLevel', o.noiseLevel ?? 250, 0, 999)
  const low = await smallPictures(o.image)
  const count = low.shape[0]!
  if (count !== 1 && count !== options.prompts.length)
    throw invalidArgument('image', `one picture, or one per prompt (${options.prompts.length})`, count)
  const unit = (value: number): Float32Array => Float32Array.of(value)
  const level = (x: number, noise: number): number => noising.addNoise(unit(x), unit(noise), noiseLevel)[0]!
  return { options, upscale: { low, alpha: level(1, 0), sigma: level(0, 1), noiseLevel } }
}
