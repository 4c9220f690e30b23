/** The options of txt2img: their meaning, defaults and checks. */
import type { CallLora } from './adapters/loras.js'
import { controlOptionNames, type ControlOptions } from './control-options.js'
import { invalidArgument } from './errors.js'
import type { DiffusionImage } from './image.js'
import type { IpAdapterInput } from './ip-adapter.js'
import {
  perturbedAttentionNames,
  resolvePag,
  type PerturbedAttentionOptions,
  type ResolvedPag
} from './perturbed-attention.js'
import type { Scheduler } from './schedulers/index.js'
import { checkFreeU, type FreeU } from './free-u.js'
import { resolveHires, type HiresOptions, type ResolvedHires } from './hires-options.js'
import type { Tensor } from './tensor.js'
import type { VaeTilingOption } from './vae-tiling.js'
import { resolveVariation, variationNames, type ResolvedVariation, type VariationOptions } from './variation.js'
import { bool, finite, integerIn, knownKeys, oneOf, pairOfIntegers, seedOf } from './validate.js'

/** diffusers' arguments in camelCase (num_inference_steps is `steps`, num_images_per_prompt is `count`, generator is `seed`). */
export interface Txt2ImgOptions extends VariationOptions, ControlOptions, IpAdapterInput, PerturbedAttentionOptions {
  /** Several prompts make one batch. */
  prompt?: string | readonly string[]
  /** One for all, or one per prompt; default empty. */
  negativePrompt?: string | readonly string[]
  /** SDXL: the prompt of the second text encoder; default `prompt`. */
  prompt2?: string | readonly string[]
  negativePrompt2?: string | readonly string[]
  /** Multiples of 8; default: what the model was trained on. */
  width?: number
  height?: number
  /** UNet evaluations that count, 1..1000; default 50. */
  steps?: number
  /** Own timesteps or sigmas instead of `steps`, for schedulers that take them. */
  timesteps?: readonly number[]
  sigmas?: readonly number[]
  /** How strongly to follow the prompt; ≤ 1 is without guidance; default 7.5 (SDXL 5). */
  guidanceScale?: number
  /** Against over-exposure (Lin et al. 2023), 0..1; default 0. */
  guidanceRescale?: number
  /**
   * One seed is one generator continued over all images, as in diffusers; an array has one generator per image.
   * Default: a random one, to be read in the result.
   */
  seed?: number | bigint | readonly (number | bigint)[]
  /** Images per prompt; default 1. */
  count?: number
  /** How many of the last text layers to leave out; default none (SDXL always leaves one out and counts from there). */
  clipSkip?: number
  /** DDIM's η, 0..1. Schedulers without it ignore it, as in diffusers. */
  eta?: number
  /** For this call: an instance, a diffusers class name or an AUTOMATIC1111 label. Default: the pipeline's. */
  scheduler?: Scheduler | string
  /** Whose noise a seed means: PyTorch on the CPU (default) or on a CUDA device. */
  rng?: 'cpu' | 'cuda'
  /** The initial noise [images, channels, height / factor, width / factor] instead of a draw. */
  latents?: Tensor
  /** Text embeddings [prompts, tokens, width] instead of prompts; negative ones are needed with guidance. */
  promptEmbeds?: Tensor
  negativePromptEmbeds?: Tensor
  /** SDXL: they come with pooled ones, [prompts, width]. */
  pooledPromptEmbeds?: Tensor
  negativePooledPromptEmbeds?: Tensor
  /** AUTOMATIC1111's prompt syntax and prompts of any length; default false: diffusers cuts at 77 tokens. */
  promptWeighting?: boolean
  /**
   * For this call, instead of the pipeline's: names of loaded LoRAs (strength 1), `{ name, strength }`, or `{ path, strength }`,
   * a file that is loaded for this call alone. With promptWeighting, `<lora:name:0.8>` in the prompt does the same on top.
   */
  loras?: readonly CallLora[]
  /** SDXL's size conditions, [height, width] or [top, left] in pixels; default the picture's size and 0, 0. */
  originalSize?: readonly [number, number]
  cropsCoordsTopLeft?: readonly [number, number]
  targetSize?: readonly [number, number]
  negativeOriginalSize?: readonly [number, number]
  negativeCropsCoordsTopLeft?: readonly [number, number]
  negativeTargetSize?: readonly [number, number]
  /** SDXL: stop at this share (between 0 and 1) of the denoising, for a refiner to go on. */
  denoisingEnd?: number
  /** How the UNet's up blocks weigh backbone and skips; default as trained. */
  freeU?: FreeU
  /** A second pass at a larger size (AUTOMATIC1111's hires fix). */
  hires?: HiresOptions
  /** 'image' (default), or 'latent': only latents, no decoding. */
  outputType?: 'image' | 'latent'
  /** Ends the call within one UNet evaluation; its promise rejects with signal.reason. */
  signal?: AbortSignal
  /**
   * Decoded previews of the predicted original: after every step, or every n (default 1), by the pipeline's preview VAE where
   * it has one (`vae`: 'preview' insists on it, 'own' takes the model's own all the same).
   */
  preview?: boolean | PreviewOptions
  /** Whether pictures go through the autoencoder in tiles, to bound memory; default 'auto'. */
  vaeTiling?: VaeTilingOption
  /** diffusers' enable_vae_slicing: pictures of a batch one by one. They always do here; true and false are the same. */
  vaeSlicing?: boolean
  /** Step events carry latents, predictedNoise and predictedOriginal; default false. */
  stepLatents?: boolean
  /** Record which places read which word: the result's attentionMaps; default false. Not with promptEmbeds. */
  attentionMaps?: boolean
  onStep?: (event: StepEvent) => void
}

/** How previews are made, and how often: the option `preview`. */
export interface PreviewOptions {
  every?: number
  vae?: 'own' | 'preview'
}

/** One after every UNet evaluation, as diffusers' callback_on_step_end: solvers with several evaluations per step send several. */
export interface StepEvent {
  /** Evaluations done, from 1. */
  readonly evaluation: number
  /** Steps done, 0..steps: evaluations inside a step do not count. */
  readonly step: number
  readonly steps: number
  readonly timestep: number
  /**
   * With stepLatents: [images, C, h, w]. `latents` after the evaluation; `predictedNoise`, ε, and `predictedOriginal`, x₀ (clipped
   * or thresholded where the scheduler does), as the evaluation predicts them after guidance, whatever the model's own terms are:
   * the latents before it are α·x₀ + σ·ε with [α, σ] = scheduler.noiseLevel(timestep).
   */
  readonly latents?: Tensor
  readonly predictedNoise?: Tensor
  readonly predictedOriginal?: Tensor
  /** With preview: the predicted original, decoded; `image` is the first. */
  readonly image?: DiffusionImage
  readonly images?: readonly DiffusionImage[]
}

/** What only SDXL pipelines have. */
const xlOnly = [
  'prompt2',
  'negativePrompt2',
  'originalSize',
  'cropsCoordsTopLeft',
  'targetSize',
  'negativeOriginalSize',
  'negativeCropsCoordsTopLeft',
  'negativeTargetSize',
  'denoisingEnd',
  'pooledPromptEmbeds',
  'negativePooledPromptEmbeds'
] as const

const known: readonly (keyof Txt2ImgOptions)[] = [
  'prompt',
  'negativePrompt',
  'width',
  'height',
  'steps',
  'timesteps',
  'sigmas',
  'guidanceScale',
  'guidanceRescale',
  'seed',
  'count',
  'clipSkip',
  'eta',
  'scheduler',
  'rng',
  'latents',
  'promptEmbeds',
  'negativePromptEmbeds',
  'promptWeighting',
  'loras',
  'outputType',
  'signal',
  'preview',
  'vaeTiling',
  'vaeSlicing',
  'stepLatents',
  'attentionMaps',
  'onStep',
  'freeU',
  ...perturbedAttentionNames,
  ...controlOptionNames,
  'hires',
  ...variationNames,
  'ipAdapterImage',
  'ipAdapterImageEmbeds',
  'ipAdapterMasks',
  ...xlOnly
]

/** What the checks need to know of the pipeline. */
export interface PipelineTraits {
  readonly xl: boolean
  /** Width and height when none is asked for. */
  readonly defaultSize: { readonly width: number; readonly height: number }
  /** Picture pixels per latent pixel. */
  readonly factor: number
  /** guidanceScale where none is given and the task has no default of its own. */
  readonly defaultGuidanceScale: number
  readonly defaultSteps: number
  readonly defaultPagScale: number
  /** Prompts are read in lower case, without white space around them. */
  readonly lowerCase: boolean
}

/** How a task's options differ from txt2img's. */
export interface TaskTraits {
  readonly name: 'txt2img' | 'img2img' | 'inpaint' | 'edit' | 'superResolution'
  /** Names of options that txt2img has not, checked elsewhere, and of txt2img's that the task has not. */
  readonly extra?: readonly string[]
  readonly without?: readonly string[]
  /** Defaults. */
  readonly steps?: number
  readonly guidanceScale?: number
  /** Of width and height; default 8, or the factor where that is larger. */
  readonly sizeMultiple?: number
}

/** Options with defaults filled in and everything checked that needs no model. */
export interface ResolvedOptions extends Omit<
  Txt2ImgOptions,
  'prompt' | 'negativePrompt' | 'seed' | 'preview' | 'hires' | keyof VariationOptions
> {
  readonly prompts: readonly string[]
  readonly negativePrompts: readonly string[] | undefined
  readonly prompts2: readonly string[]
  readonly negativePrompts2: readonly string[] | undefined
  readonly width: number
  readonly height: number
  readonly steps: number
  readonly guidanceScale: number
  readonly guidanceRescale: number
  readonly count: number
  /** prompts × count. */
  readonly batch: number
  readonly seeds: readonly bigint[]
  readonly rng: 'cpu' | 'cuda'
  readonly variation: ResolvedVariation
  readonly pag: ResolvedPag | undefined
  readonly hires: ResolvedHires | undefined
  readonly promptWeighting: boolean
  readonly outputType: 'image' | 'latent'
  readonly previewEvery: number
  readonly previewVae: 'own' | 'preview' | undefined
  readonly stepLatents: boolean
  readonly attentionMaps: boolean
}

export const texts = (name: string, value: unknown, count?: number): string[] => {
  const list = Array.isArray(value) ? (value as unknown[]) : [value]
  if (list.length === 0 || !list.every((t) => typeof t === 'string'))
    throw invalidArgument(name, 'a string or an array of strings', value)
  if (count !== undefined && list.length === 1) return Array<string>(count).fill(list[0]!)
  if (count !== undefined && list.length !== count)
    throw invalidArgument(name, `one string or as many as prompts (${count})`, value)
  return list
}

const size = (name: string, value: unknown, multiple: number): number => {
  const n = integerIn(name, value, multiple, 8192)
  if (n % multiple !== 0) throw invalidArgument(name, `a multiple of ${multiple}`, value)
  return n
}

const randomSeed = (): bigint => BigInt(Math.floor(Math.random() * 2 ** 32))

const resolvePreview = (preview: Txt2ImgOptions['preview']): Pick<ResolvedOptions, 'previewEvery' | 'previewVae'> => {
  if (typeof preview !== 'object' || preview === null)
    return { previewEvery: bool('preview', preview ?? false) ? 1 : 0, previewVae: undefined }
  knownKeys('preview', preview, ['every', 'vae'])
  return {
    previewEvery: integerIn('preview.every', preview.every ?? 1, 1, 1000),
    previewVae: preview.vae === undefined ? undefined : oneOf('preview.vae', preview.vae, ['own', 'preview'] as const)
  }
}

export const resolveOptions = (
  o: Txt2ImgOptions,
  traits: PipelineTraits,
  task: TaskTraits = { name: 'txt2img' }
): ResolvedOptions => {
  if (typeof o !== 'object' || o === null) throw invalidArgument('options', 'an object', o)
  const names = [...known.filter((name) => !task.without?.includes(name)), ...(task.extra ?? [])]
  knownKeys(task.name, o, names)
  if (o.promptEmbeds ? o.prompt !== undefined : o.prompt === undefined)
    throw invalidArgument('prompt', 'a prompt, or promptEmbeds, and not both', o.prompt)
  const prompts = o.promptEmbeds ? Array<string>(o.promptEmbeds.shape[0] ?? 1).fill('') : texts('prompt', o.prompt)
  const negativePrompts =
    o.negativePrompt === undefined ? undefined : texts('negativePrompt', o.negativePrompt, prompts.length)
  if (!traits.xl)
    for (const name of xlOnly)
      if (o[name] !== undefined) throw invalidArgument(name, 'nothing (only SDXL pipelines have it)', o[name])
  for (const name of [
    'originalSize',
    'cropsCoordsTopLeft',
    'targetSize',
    'negativeOriginalSize',
    'negativeCropsCoordsTopLeft',
    'negativeTargetSize'
  ] as const)
    if (o[name] !== undefined) pairOfIntegers(name, o[name])

  const multiple = task.sizeMultiple ?? Math.max(8, traits.factor)
  const count = integerIn('count', o.count ?? 1, 1, 1024)
  const batch = prompts.length * count
  const given = o.seed === undefined ? randomSeed() : o.seed
  const seeds = Array.isArray(given) ? given.map((s, i) => seedOf(`seed[${i}]`, s)) : [seedOf('seed', given)]
  if (Array.isArray(given) && seeds.length !== batch)
    throw invalidArgument('seed', `one seed or one per image (${batch})`, given)
  if (o.timesteps && o.sigmas) throw invalidArgument('timesteps', 'timesteps or sigmas, not both', o.timesteps)
  const list = o.timesteps ?? o.sigmas
  if (list && (!Array.isArray(list) || list.length === 0 || !list.every((v) => Number.isFinite(v))))
    throw invalidArgument(o.timesteps ? 'timesteps' : 'sigmas', 'an array of finite numbers', list)
  if (o.signal !== undefined && !(o.signal instanceof AbortSignal))
    throw invalidArgument('signal', 'an AbortSignal', o.signal)
  if (o.onStep !== undefined && typeof o.onStep !== 'function') throw invalidArgument('onStep', 'a function', o.onStep)
  checkFreeU(o.freeU)
  if (o.vaeSlicing !== undefined) bool('vaeSlicing', o.vaeSlicing)
  if (o.eta !== undefined) finite('eta', o.eta, 0, 1)
  if (o.clipSkip !== undefined) integerIn('clipSkip', o.clipSkip, 0, 100)
  if (o.denoisingEnd !== undefined && !(finite('denoisingEnd', o.denoisingEnd, 0, 1) > 0 && o.denoisingEnd < 1))
    throw invalidArgument('denoisingEnd', 'a number between 0 and 1', o.denoisingEnd)

  const width = size('width', o.width ?? traits.defaultSize.width, multiple)
  const height = size('height', o.height ?? traits.defaultSize.height, multiple)
  const steps = list ? list.length : integerIn('steps', o.steps ?? task.steps ?? traits.defaultSteps, 1, 1000)
  if (o.hires !== undefined && o.denoisingEnd !== undefined)
    throw invalidArgument('denoisingEnd', 'nothing next to hires', o.denoisingEnd)

  return {
    ...o,
    prompts,
    negativePrompts,
    prompts2: o.prompt2 === undefined ? prompts : texts('prompt2', o.prompt2, prompts.length),
    negativePrompts2:
      o.negativePrompt2 === undefined ? negativePrompts : texts('negativePrompt2', o.negativePrompt2, prompts.length),
    width,
    height,
    steps,
    guidanceScale: finite('guidanceScale', o.guidanceScale ?? task.guidanceScale ?? traits.defaultGuidanceScale),
    guidanceRescale: finite('guidanceRescale', o.guidanceRescale ?? 0, 0, 1),
    count,
    batch,
    seeds,
    pag: resolvePag(o, traits.defaultPagScale),
    variation: resolveVariation(o, batch, traits.factor, randomSeed),
    hires: o.hires === undefined ? undefined : resolveHires(o.hires, { width, height, steps }, multiple),
    rng: oneOf('rng', o.rng ?? 'cpu', ['cpu', 'cuda']),
    promptWeighting: bool('promptWeighting', o.promptWeighting ?? false),
    outputType: oneOf('outputType', o.outputType ?? 'image', ['image', 'latent']),
    ...resolvePreview(o.preview),
    stepLatents: bool('stepLatents', o.stepLatents ?? false),
    attentionMaps: bool('attentionMaps', o.attentionMaps ?? false)
  }
}
