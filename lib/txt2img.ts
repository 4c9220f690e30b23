/** One call of any task: options → plan and conditions → native job → pictures. */
import { native, version, type NativeGenerateJob, type NativeImagePrompt } from './binding.js'
import type { CallAdapters } from './adapters/loras.js'
import { attentionMaps, attentionPrompts, type AttentionMaps } from './attention-maps.js'
import { controlInputs, controlParameters, withControlScales, type ResolvedControls } from './control-options.js'
import { guidanceEmbedding, pictureTimeIds, promptInput, timeIds, type TextTraits } from './conditions.js'
import { invalidArgument, unsupported } from './errors.js'
import type { DiffusionImage } from './image.js'
import type { PictureTraits, ResolvedPicture } from './img2img-options.js'
import type { IpAdapters } from './ip-adapter.js'
import { formatParameters } from './infotext.js'
import { perturbedBlocks } from './perturbed-attention.js'
import { createScheduler, type Scheduler } from './schedulers/index.js'
import type { StepPlan } from './step-plan.js'
import { compile, type PlanTraits } from './step-plans.js'
import { checkTensor, type Tensor } from './tensor.js'
import { resolveTiling, tilingWarning } from './vae-tiling.js'
import type { AutoencoderConfig } from './models/autoencoder.js'
import type { UNetConfig } from './models/unet.js'
import { runJob, splitPictures } from './run-job.js'
import type { ResolvedOptions } from './txt2img-options.js'
import { repaintFields } from './repaint-options.js'
import { nativeVariation, repaintsAlone, variationFields } from './variation.js'

/** What every painting call gives. */
export interface GenerationResult {
  /** prompts × count pictures; empty with outputType 'latent'. */
  readonly images: readonly DiffusionImage[]
  /** [images, channels, height / factor, width / factor], as the step loop left them. */
  readonly latents: Tensor
  /**
   * Per image, the seed that alone repaints it; null where there is none: all but the first image of a batch from one
   * seed, and that too where the scheduler draws noise on the way.
   */
  readonly seeds: readonly (number | bigint | null)[]
  /** With the option attentionMaps, unless no step ran: one per image. Of two passes (hires), the second's. */
  readonly attentionMaps?: readonly AttentionMaps[]
  /** Seconds. */
  readonly timings: {
    readonly text: number
    /** Pictures to latents. */
    readonly encode: number
    readonly denoise: number
    readonly decode: number
    readonly total: number
  }
  /** What the caller should know: text that was cut off, options that a scheduler ignores. */
  readonly warnings: readonly string[]
}

/** What a call needs of its pipeline. */
export interface Txt2ImgModels extends PictureTraits, TextTraits, PlanTraits {
  readonly adapters: CallAdapters
  readonly scheduler: Scheduler
  /** What is loaded of them. */
  readonly ipAdapters: IpAdapters | undefined
  /** Undefined where the model paints pixels. */
  readonly autoencoder: AutoencoderConfig | undefined
  readonly hasPreviewVae: boolean
  readonly unet: UNetConfig
  /** For the pictures' `parameters` text. */
  readonly name: string
}

const plainSeed = (seed: bigint): number | bigint => (seed <= Number.MAX_SAFE_INTEGER ? Number(seed) : seed)

/**
 * @param picture what to begin with; none for text to image
 * @param controls ControlNets and adapters; none without
 * @param upscale the small picture of super-resolution
 */
export const generate = async (
  o: ResolvedOptions,
  models: Txt2ImgModels,
  picture?: ResolvedPicture,
  controls?: ResolvedControls,
  upscale?: NativeGenerateJob['upscale']
): Promise<GenerationResult> => {
  const started = performance.now()
  const warnings: string[] = []
  o.signal?.throwIfAborted()

  if (controls && picture?.repaint?.region !== undefined && (picture.pictures.length > 1 || picture.masks.length > 1))
    throw invalidArgument(
      'paddingMaskCrop',
      'one picture and one mask next to ControlNets and adapters, whose pictures are cut out alike,',
      `${picture.pictures.length} and ${picture.masks.length}`
    )

  // 1. What to run.
  const scheduler =
    typeof o.scheduler === 'string'
      ? createScheduler(o.scheduler, models.scheduler.toJSON())
      : (o.scheduler ?? models.scheduler)
  const compiled = compile(o, scheduler, picture, models)
  const { plan: own, branches, prompted, picture: input } = compiled
  const plan = controls ? withControlScales(own, controls) : own
  const guided = branches > prompted
  warnings.push(...(scheduler === models.scheduler ? [] : scheduler.warnings))
  const latentHeight = Math.floor(o.height / models.factor)
  const latentWidth = Math.floor(o.width / models.factor)
  const tiling = models.autoencoder && resolveTiling(o.vaeTiling, models.autoencoder, o)
  const tiled = tilingWarning(o.vaeTiling, tiling)
  if (tiled !== undefined) warnings.push(tiled)
  if (o.previewVae === 'preview' && !models.hasPreviewVae)
    throw invalidArgument('preview.vae', "'own', or a pipeline with a preview VAE (loadPreviewVae),", o.previewVae)
  if (o.latents) checkTensor('latents', o.latents, [o.batch, models.latentChannels, latentHeight, latentWidth])

  // Waits only where there are pictures to be read: other calls are in the queue before this one returns.
  const reading = imagePromptsOf(o, models, guided)
  const imagePrompts = reading && (await reading)
  o.signal?.throwIfAborted()
  const job: NativeGenerateJob = {
    prompt: promptInput(o, compiled, models, (message) => warnings.push(message)),
    branches,
    perturbed: o.pag && perturbedBlocks(o.pag.layers, models.unet),
    prompts: o.prompts.length,
    imagesPerPrompt: o.count,
    latentHeight,
    latentWidth,
    timeIds: !models.xl ? undefined : picture ? pictureTimeIds(o, compiled, picture.scores) : timeIds(o, compiled),
    timeCond: models.timeCondWidth > 0 ? guidanceEmbedding(o.guidanceScale, models.timeCondWidth) : undefined,
    imagePrompts,
    plan,
    guidanceRescale: guided ? o.guidanceRescale : 0,
    seeds: [...o.seeds],
    rng: o.rng,
    latents: o.latents?.data,
    picture: input,
    upscale,
    freeU: o.freeU,
    ...(controls ? controlInputs(controls, o) : {}),
    ...nativeVariation(o.variation, models.factor),
    decode: o.outputType === 'image',
    stepLatents: o.stepLatents,
    previewEvery: o.previewEvery,
    fullPreview: o.previewVae === 'own',
    vaeTiling: tiling,
    attentionMaps: o.attentionMaps
  }
  const tokenizer = models.tokenizers[0]!
  const words = o.attentionMaps ? attentionPrompts(job.prompt, o.prompts.length, tokenizer) : []

  // 2. Run it.
  const result = await runJob(o, (onStep) => models.adapters.around((session) => session.generate(job, onStep)))

  if (result.decodedInTiles)
    warnings.push(
      'Memory was short: the picture was decoded tile by tile, which changes it a little (option vaeTiling)'
    )
  if (o.attentionMaps && !result.attention) warnings.push('No step ran that attentionMaps could be made of')

  // 3. The pictures.
  const seeds = imageSeeds(o, plan, picture)
  const images = o.outputType === 'latent' ? [] : splitPictures(result.pixels, result.width, result.height)
  const steered = controls && controlParameters(controls)
  images.forEach((image, i) => {
    image.parameters = parametersText(o, scheduler, models, i, seeds[i] ?? null, picture, steered)
  })
  return {
    images,
    latents: result.latents,
    seeds,
    ...(result.attention ? { attentionMaps: attentionMaps(result.attention, words, o.count, tokenizer) } : {}),
    warnings,
    timings: { ...result.timings, total: (performance.now() - started) / 1000 }
  }
}

/** For each IP-Adapter. */
const imagePromptsOf = (
  o: ResolvedOptions,
  { ipAdapters }: Txt2ImgModels,
  guided: boolean
): Promise<NativeImagePrompt[]> | undefined => {
  if (o.ipAdapterMasks !== undefined)
    throw unsupported('ipAdapterMasks is not supported yet; leave it out, or paint with inpaint and a mask')
  if (ipAdapters) return ipAdapters.prompts(o, guided)
  for (const name of ['ipAdapterImage', 'ipAdapterImageEmbeds'] as const)
    if (o[name] !== undefined)
      throw invalidArgument(name, 'nothing, as no IP-Adapter is loaded (pipe.loadIpAdapter),', o[name])
  return undefined
}

const imageSeeds = (
  o: ResolvedOptions,
  plan: StepPlan,
  picture: ResolvedPicture | undefined
): (number | bigint | null)[] => {
  const pictures = Math.max(picture?.pictures.length ?? 0, picture?.masks.length ?? 0)
  // Inpainting samples pictures with the first generators only: images beyond them depend on another's.
  if (o.seeds.length === o.batch)
    return o.seeds.map((seed, i) =>
      (picture?.task === 'inpaint' && i >= pictures) || !repaintsAlone(o.variation, i) ? null : plainSeed(seed)
    )
  const draws = plan.rows.some((row) => row.draws > 0)
  const first = !draws && !o.latents && pictures <= 1
  return Array.from({ length: o.batch }, (_, i) => (i === 0 && first ? plainSeed(o.seeds[0]!) : null))
}

export const parametersText = (
  o: ResolvedOptions,
  scheduler: Scheduler,
  models: Txt2ImgModels,
  image: number,
  seed: number | bigint | null,
  picture: ResolvedPicture | undefined,
  further: Record<string, string> = {}
): string => {
  const prompt = Math.floor(image / o.count)
  const label = scheduler.label
  const other: Record<string, string> = {}
  if (o.clipSkip !== undefined) other['Clip skip'] = String(o.clipSkip + 1)
  if (o.rng === 'cpu') other['RNG'] = 'CPU'
  if (o.eta) other['Eta'] = String(o.eta)
  if (o.guidanceRescale) other['CFG Rescale'] = String(o.guidanceRescale)
  if (o.pag) other['PAG scale'] = String(o.pag.scale)
  if (picture && picture.task !== 'edit' && picture.denoisingStart === undefined)
    other['Denoising strength'] = String(picture.strength)
  if (picture?.task === 'edit') other['Image CFG scale'] = String(picture.imageGuidanceScale)
  Object.assign(other, variationFields(o.variation, image), picture?.repaint && repaintFields(picture.repaint), further)
  if (seed === null) {
    other['Batch size'] = String(o.batch)
    other['Batch pos'] = String(image)
  }
  return formatParameters({
    prompt: models.adapters.written(o.prompts[prompt]!, prompt),
    ...(o.negativePrompts?.[prompt] ? { negativePrompt: o.negativePrompts[prompt] } : {}),
    steps: o.steps,
    sampler: label.sampler,
    ...(label.scheduleType ? { scheduleType: label.scheduleType } : {}),
    cfgScale: o.guidanceScale,
    seed: seed ?? o.seeds[0]!,
    width: o.width,
    height: o.height,
    model: models.name,
    version: `node-diffusion ${version()}`,
    other
  })
}

/** Random numbers as torch.randn makes them with `torch.Generator(device).manual_seed(seed)`: successive calls continue. */
export class Generator {
  private readonly noise: { randn(n: number): Float32Array }
  constructor(seed: number | bigint, rng: 'cpu' | 'cuda' = 'cpu') {
    this.noise = new (native().Noise)(BigInt(seed), rng)
  }
  /** Standard normal float32 values of that shape. */
  randn(shape: readonly number[]): Tensor {
    const count = shape.reduce((a, b) => a * b, 1)
    if (!Number.isSafeInteger(count) || count < 0) throw invalidArgument('shape', 'non-negative integers', shape)
    return { data: this.noise.randn(count), shape }
  }
}
