/** The options of superResolution: their meaning, defaults and checks, beyond txt2img's. */
import type { NativeGenerateJob } from './binding.js'
import { controlOptionNames, type ControlOptions } from './control-options.js'
import { invalidArgument, unsupported } from './errors.js'
import { loadImage, type ImageInput, type LoadedImage } from './image.js'
import type { PictureInput } from './img2img-options.js'
import type { ModelFolder } from './models/folder.js'
import { partsOf } from './models/pipeline-classes.js'
import { perturbedAttentionNames } from './perturbed-attention.js'
import { createScheduler } from './schedulers/index.js'
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

/** And those that are not for an upscaler with an autoencoder, whose own options are allowed. */
const upscalerWithout = latentOptions.filter((name) => name !== 'vaeTiling' && name !== 'vaeSlicing')

/**
 * diffusers' IFSuperResolutionPipeline: a small picture is painted anew at the model's size (width and height default to it). And
 * StableDiffusionUpscalePipeline: pictures become as many times larger as its autoencoder's factor says, four; they have
 * no width and height (sides that the factor does not divide are made smaller), guidanceScale is 9 and steps 75 by default.
 */
export interface SuperResolutionOptions extends Omit<
  Txt2ImgOptions,
  (typeof upscalerWithout)[number] | keyof ControlOptions | keyof VariationOptions
> {
  /** One for all, or one per prompt: pictures of one size, or a tensor [n, 3, h, w] in −1..1 such as a first stage's `latents`. */
  image: PictureInput | Tensor
  /** How much noise the small picture gets, as a timestep: 0..999, default 250; ×4: 0..350, default 20. */
  noiseLevel?: number
}

export interface ResolvedSuperResolution {
  readonly options: ResolvedOptions
  readonly upscale: NonNullable<NativeGenerateJob['upscale']>
}

const isTensor = (value: unknown): value is Tensor => typeof value === 'object' && value !== null && 'shape' in value

interface SmallPictures {
  readonly tensor?: Tensor
  readonly pictures?: readonly LoadedImage[]
  readonly count: number
  readonly width: number
  readonly height: number
}

const loadSmall = async (input: PictureInput | Tensor): Promise<SmallPictures> => {
  if (isTensor(input)) {
    const tensor = checkTensor('image', input, [null, 3, null, null])
    return { tensor, count: tensor.shape[0]!, height: tensor.shape[2]!, width: tensor.shape[3]! }
  }
  if (input === undefined || input === null) throw invalidArgument('image', 'a picture', input)
  const list = Array.isArray(input) ? (input as readonly ImageInput[]) : [input as ImageInput]
  if (list.length === 0) throw invalidArgument('image', 'at least one picture', input)
  const pictures = await Promise.all(list.map((one) => loadImage(one)))
  const { width, height } = pictures[0]!
  if (pictures.some((p) => p.width !== width || p.height !== height))
    throw invalidArgument('image', `pictures of one size (${width} × ${height})`, pictures.length)
  return { pictures, count: pictures.length, width, height }
}

/** RGB bytes as [n, 3, h, w] in −1..1. */
const asTensor = ({ tensor, pictures = [], width, height }: SmallPictures): Tensor => {
  if (tensor) return tensor
  const pixels = width * height
  const data = new Float32Array(pictures.length * 3 * pixels)
  pictures.forEach((picture, n) => {
    for (let i = 0; i < pixels; i++)
      for (let c = 0; c < 3; c++) data[(n * 3 + c) * pixels + i] = Math.fround(picture.data[i * 3 + c]! / 127.5) - 1
  })
  return { data, shape: [pictures.length, 3, height, width] }
}

/** Width and height of what is painted, the options' or of the small picture. */
const sizeOptions = (
  o: SuperResolutionOptions,
  small: SmallPictures,
  enlarges: boolean,
  factor: number
): Pick<SuperResolutionOptions, 'width' | 'height'> => {
  if (enlarges) return {}
  for (const name of ['width', 'height'] as const)
    if (o[name] !== undefined)
      throw invalidArgument(name, `nothing, as pictures become ${factor} times as large,`, o[name])
  const side = (name: 'width' | 'height'): number => {
    const length = small[name]
    const whole = length - (length % factor)
    if (whole === 0 || (small.tensor && whole !== length))
      throw invalidArgument('image', `a ${name} that is a multiple of ${factor}`, length)
    return whole * factor
  }
  return { width: side('width'), height: side('height') }
}

export const resolveSuperResolution = async (
  o: SuperResolutionOptions,
  traits: PipelineTraits,
  folder: Pick<ModelFolder, 'className' | 'noisingScheduler' | 'maxNoiseLevel'>
): Promise<ResolvedSuperResolution> => {
  if (typeof o !== 'object' || o === null) throw invalidArgument('options', 'an object', o)
  const upscaling = partsOf(folder.className).upscaling!
  const { enlarges } = upscaling
  const small = await loadSmall(o.image)
  const options = resolveOptions({ ...o, ...sizeOptions(o, small, enlarges, traits.factor) }, traits, {
    name: 'superResolution',
    extra: ['image', 'noiseLevel'],
    without: [...(enlarges ? latentOptions : upscalerWithout), ...controlOptionNames, ...variationNames]
  })
  const noiseLevel = integerIn('noiseLevel', o.noiseLevel ?? upscaling.noiseLevel, 0, folder.maxNoiseLevel)
  if (small.count !== 1 && small.count !== options.prompts.length)
    throw invalidArgument('image', `one picture, or one per prompt (${options.prompts.length})`, small.count)
  const { className, config } = folder.noisingScheduler!
  const noising = createScheduler({ ...config, _class_name: className })
  const unit = (value: number): Float32Array => Float32Array.of(value)
  const level = (x: number, noise: number): number => noising.addNoise(unit(x), unit(noise), noiseLevel)[0]!
  const pictures = enlarges || small.tensor ? { low: asTensor(small) } : { pictures: small.pictures }
  return { options, upscale: { enlarges, ...pictures, alpha: level(1, 0), sigma: level(0, 1), noiseLevel } }
}
