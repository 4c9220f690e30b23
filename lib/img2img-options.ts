/** The options of img2img, inpaint and edit: their meaning, defaults and checks, beyond txt2img's. */
import { controlOptionNames, usesControlNet, type ControlOptions } from './control-options.js'
import { invalidArgument } from './errors.js'
import { loadImage, type ImageInput, type LoadedImage } from './image.js'
import { checkTensor, type Tensor } from './tensor.js'
import { resolveOptions, type PipelineTraits, type ResolvedOptions, type Txt2ImgOptions } from './txt2img-options.js'
import { perturbedAttentionNames, type PerturbedAttentionOptions } from './perturbed-attention.js'
import { repaintNames, resolveRepaint, type RepaintOptions, type ResolvedRepaint } from './repaint-options.js'
import { finite, oneOf } from './validate.js'

/** One picture for all, or a number of them that divides the batch: image k takes number k mod n. */
export type PictureInput = ImageInput | readonly ImageInput[]

interface ResizeOptions {
  /**
   * How a picture of other proportions than width × height is resized, as in diffusers: 'default' stretches it, 'crop'
   * cuts what is too much, 'fill' goes on with the edge's colours.
   */
  resizeMode?: ResizeMode
}
/** How a picture comes to another size: stretched ('default'), cut ('crop') or with its edges carried on ('fill'). */
export type ResizeMode = 'default' | 'crop' | 'fill'
const resizeModes: readonly ResizeMode[] = ['default', 'crop', 'fill']
const resizeModeOf = ({ resizeMode = 'default' }: ResizeOptions): ResizeMode =>
  oneOf('resizeMode', resizeMode, resizeModes)

interface SdxlPictureOptions {
  /** SDXL: another model has done this share of the process (between 0 and 1); `image` is its result. Replaces `strength`. */
  denoisingStart?: number
  /** SDXL's refiner: LAION's aesthetic score, 1..10, that the picture (default 6) or the negative one (2.5) is to have. */
  aestheticScore?: number
  negativeAestheticScore?: number
}

/**
 * diffusers' StableDiffusionImg2ImgPipeline and StableDiffusionXLImg2ImgPipeline (SDEdit, Meng et al. 2021). `width` and
 * `height` default to the picture's own, rounded down to whole latents.
 */
export interface Img2ImgOptions extends Omit<Txt2ImgOptions, 'latents' | 'hires'>, SdxlPictureOptions, ResizeOptions {
  /** Where to begin: pictures, or latents [images, channels, h, w] as a result has them. */
  image: PictureInput | Tensor
  /**
   * How much to change, 0..1: the share of the steps that run. Default 0.8 (SDXL without ControlNets 0.3). 0 runs none: the picture through
   * the autoencoder and back.
   */
  strength?: number
}

/** diffusers' StableDiffusionInpaintPipeline and StableDiffusionXLInpaintPipeline. Sizes default to the model's. */
export interface InpaintOptions
  extends Omit<Txt2ImgOptions, 'hires'>, SdxlPictureOptions, ResizeOptions, RepaintOptions {
  image: PictureInput
  /** White (≥ 50 % luminance) is painted anew, black is kept; of any size. */
  mask: PictureInput
  /** 0..1; 1 (default; SDXL 0.9999) begins with pure noise where the mask is white. */
  strength?: number
}

/** diffusers' StableDiffusionInstructPix2PixPipeline (Brooks et al. 2023): the prompt says what to change. Default 100 steps. */
export interface EditOptions
  extends
    Omit<Txt2ImgOptions, 'guidanceRescale' | 'hires' | keyof ControlOptions | keyof PerturbedAttentionOptions>,
    ResizeOptions {
  image: PictureInput
  /** How strongly to keep to the picture, from 1; below, and with guidanceScale ≤ 1, there is no guidance. Default 1.5. */
  imageGuidanceScale?: number
}

/** The picture's part of a call, checked and decoded. */
export interface ResolvedPicture {
  readonly task: 'img2img' | 'inpaint' | 'edit'
  /** RGB, at their own sizes: resized natively. */
  readonly pictures: readonly LoadedImage[]
  readonly masks: readonly LoadedImage[]
  /** Instead of pictures. */
  readonly latents: Tensor | undefined
  /** 1 for edit. */
  readonly strength: number
  readonly denoisingStart: number | undefined
  readonly imageGuidanceScale: number
  /** Aesthetic scores of the prompt and of the negative prompt, where the model is conditioned on them. */
  readonly scores: readonly [number, number] | undefined
  readonly resizeMode: ResizeMode
  readonly repaint: ResolvedRepaint | undefined
}

export interface PictureTraits extends PipelineTraits {
  readonly latentChannels: number
  /** Whether the model is conditioned on an aesthetic score: SDXL's refiner. */
  readonly aestheticScores: boolean
}

export interface ResolvedCall {
  readonly options: ResolvedOptions
  readonly picture: ResolvedPicture
}

const isTensor = (value: unknown): value is Tensor => typeof value === 'object' && value !== null && 'shape' in value

const loadAll = async (name: string, input: PictureInput): Promise<LoadedImage[]> => {
  if (input === undefined || input === null) throw invalidArgument(name, 'a picture', input)
  const list = Array.isArray(input) ? (input as readonly ImageInput[]) : [input as ImageInput]
  if (list.length === 0) throw invalidArgument(name, 'at least one picture', input)
  return Promise.all(list.map((one) => loadImage(one)))
}

const checkCount = (name: string, count: number, batch: number): void => {
  if (batch % count !== 0)
    throw invalidArgument(name, `one picture, or a number that divides the batch (${batch} images)`, count)
}

const sdxlPart = (
  o: SdxlPictureOptions & { denoisingEnd?: number },
  traits: PictureTraits
): Pick<ResolvedPicture, 'denoisingStart' | 'scores'> => {
  const { denoisingStart, denoisingEnd } = o
  if (denoisingStart !== undefined) {
    if (!traits.xl) throw invalidArgument('denoisingStart', 'nothing (only SDXL pipelines have it)', denoisingStart)
    if (!(finite('denoisingStart', denoisingStart, 0, 1) > 0 && denoisingStart < (denoisingEnd ?? 1)))
      throw invalidArgument('denoisingStart', 'a number between 0 and 1, below denoisingEnd', denoisingStart)
  }
  for (const name of ['aestheticScore', 'negativeAestheticScore'] as const)
    if (o[name] !== undefined && !traits.aestheticScores)
      throw invalidArgument(name, "nothing (only SDXL's refiner has it)", o[name])
  const scores = [
    finite('aestheticScore', o.aestheticScore ?? 6),
    finite('negativeAestheticScore', o.negativeAestheticScore ?? 2.5)
  ] as const
  return { denoisingStart, scores: traits.aestheticScores ? scores : undefined }
}

const sdxlNames = ['denoisingStart', 'aestheticScore', 'negativeAestheticScore']

/** Sizes of the picture, rounded down to whole latents, as diffusers' VaeImageProcessor; `width` and `height` win. */
const sizeOf = (picture: { width: number; height: number }, factor: number): { width: number; height: number } => {
  if (picture.width < factor || picture.height < factor)
    throw invalidArgument('image', `at least ${factor} × ${factor} pixels`, `${picture.width} × ${picture.height}`)
  return {
    width: picture.width - (picture.width % factor),
    height: picture.height - (picture.height % factor)
  }
}

const checkObject = (o: unknown): void => {
  if (typeof o !== 'object' || o === null) throw invalidArgument('options', 'an object', o)
}

export const resolveImg2Img = async (o: Img2ImgOptions, traits: PictureTraits): Promise<ResolvedCall> => {
  checkObject(o)
  const strength = finite('strength', o.strength ?? (traits.xl && !usesControlNet(o) ? 0.3 : 0.8), 0, 1)
  const latents = isTensor(o.image)
    ? checkTensor('image', o.image, [null, traits.latentChannels, null, null])
    : undefined
  const pictures = latents ? [] : await loadAll('image', o.image as PictureInput)
  const size = latents
    ? { width: latents.shape[3]! * traits.factor, height: latents.shape[2]! * traits.factor }
    : sizeOf(pictures[0]!, traits.factor)
  const options = resolveOptions(
    o,
    { ...traits, defaultSize: size },
    {
      name: 'img2img',
      extra: ['image', 'strength', 'resizeMode', ...sdxlNames],
      without: ['latents', 'hires'],
      sizeMultiple: traits.factor
    }
  )
  if (latents && (options.width !== size.width || options.height !== size.height))
    throw invalidArgument(
      'width and height',
      `the latents' own (${size.width} × ${size.height})`,
      `${options.width} × ${options.height}`
    )
  checkCount('image', latents ? latents.shape[0]! : pictures.length, options.batch)
  return {
    options,
    picture: {
      task: 'img2img',
      pictures,
      masks: [],
      latents,
      strength,
      imageGuidanceScale: 1,
      resizeMode: resizeModeOf(o),
      repaint: undefined,
      ...sdxlPart(o, traits)
    }
  }
}

export const resolveInpaint = async (o: InpaintOptions, traits: PictureTraits): Promise<ResolvedCall> => {
  checkObject(o)
  const strength = finite('strength', o.strength ?? (traits.xl ? 0.9999 : 1), 0, 1)
  const options = resolveOptions(o, traits, {
    name: 'inpaint',
    extra: ['image', 'mask', 'strength', 'resizeMode', ...repaintNames, ...sdxlNames],
    without: ['hires'],
    guidanceScale: traits.xl && usesControlNet(o) ? traits.defaultGuidanceScale : 7.5
  })
  if (isTensor(o.image)) throw invalidArgument('image', 'a picture (latents are for img2img)', o.image)
  const [pictures, masks] = await Promise.all([loadAll('image', o.image), loadAll('mask', o.mask)])
  checkCount('image', pictures.length, options.batch)
  checkCount('mask', masks.length, options.batch)
  if (pictures.length > 1 && masks.length > 1 && pictures.length !== masks.length)
    throw invalidArgument('mask', `one mask or one per picture (${pictures.length})`, masks.length)
  const repaint = resolveRepaint(o)
  const first = pictures[0]!
  if (repaint.region !== undefined && pictures.some((p) => p.width !== first.width || p.height !== first.height))
    throw invalidArgument('image', 'pictures of one size where paddingMaskCrop is given', pictures.length)
  return {
    options,
    picture: {
      task: 'inpaint',
      pictures,
      masks,
      latents: undefined,
      strength,
      imageGuidanceScale: 1,
      resizeMode: resizeModeOf(o),
      repaint,
      ...sdxlPart(o, traits)
    }
  }
}

export const resolveEdit = async (o: EditOptions, traits: PictureTraits): Promise<ResolvedCall> => {
  checkObject(o)
  if (isTensor(o.image)) throw invalidArgument('image', 'a picture (latents are for img2img)', o.image)
  const pictures = await loadAll('image', o.image)
  const options = resolveOptions(
    o,
    { ...traits, defaultSize: sizeOf(pictures[0]!, traits.factor) },
    {
      name: 'edit',
      extra: ['image', 'imageGuidanceScale', 'resizeMode'],
      without: ['guidanceRescale', 'hires', ...controlOptionNames, ...perturbedAttentionNames],
      steps: 100,
      sizeMultiple: traits.factor
    }
  )
  checkCount('image', pictures.length, options.batch)
  return {
    options,
    picture: {
      task: 'edit',
      pictures,
      masks: [],
      latents: undefined,
      strength: 1,
      denoisingStart: undefined,
      imageGuidanceScale: finite('imageGuidanceScale', o.imageGuidanceScale ?? 1.5, 0),
      scores: undefined,
      resizeMode: resizeModeOf(o),
      repaint: undefined
    }
  }
}
