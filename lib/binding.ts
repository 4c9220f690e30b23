/** Finds the addon and gives its exports types. Nothing else in lib/ touches it. */
import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { loadAddon } from './addon.js'
import { DiffusionError } from './errors.js'
import type { WeightChange } from './adapters/lora-file.js'
import type { FreeU } from './free-u.js'
import type { TensorView } from './models/weights.js'
import type { StepPlan } from './step-plan.js'
import type { Tensor } from './tensor.js'
import type { VaeTiling } from './vae-tiling.js'

/** engine/generate.h GenerateJob, field by field. */
export interface NativeGenerateJob {
  prompt: {
    rows: number
    chunks: number
    length: number
    encoders: { ids: Int32Array; weights?: Float32Array | undefined; mask?: Uint8Array | undefined }[]
    skip: number
    negativeRows: number
    negativeSkip: number
    normSkipped: boolean
    zeroRows?: boolean[] | undefined
    /** Given embeddings instead of ids: [rows, tokens, width] and [rows, pooled width]. */
    embeds?: Tensor | undefined
    pooled?: Tensor | undefined
  }
  branches: number
  /** Transformer blocks whose self-attention is perturbed in the branch before the last. */
  perturbed?: Int32Array | undefined
  prompts: number
  imagesPerPrompt: number
  latentHeight: number
  latentWidth: number
  timeIds?: Float32Array | undefined
  timeCond?: Float32Array | undefined
  /** One per IP-Adapter. */
  imagePrompts?: readonly NativeImagePrompt[] | undefined
  plan: StepPlan
  guidanceRescale: number
  seeds: bigint[]
  rng: 'cpu' | 'cuda'
  latents?: Float32Array | undefined
  /** engine/picture-input.h PictureInput. */
  picture?:
    | {
        task: 'img2img' | 'inpaint' | 'edit'
        pictures: readonly NativePicture[]
        masks: readonly NativePicture[]
        latents?: Float32Array | undefined
        start: 'noised' | 'noise' | 'clean'
        alpha: number
        sigma: number
        /** engine/resize.h ResizeMode. */
        resizeMode: 'default' | 'crop' | 'fill'
        /** Inpainting: engine/repaint.h RepaintOptions. */
        repaint?: NativeRepaint | undefined
      }
    | undefined
  /** engine/upscale-input.h UpscaleInput. */
  upscale?:
    | {
        enlarges: boolean
        low?: Tensor | undefined
        pictures?: readonly NativePicture[] | undefined
        alpha: number
        sigma: number
        noiseLevel: number
      }
    | undefined
  /** ControlNets and T2I-Adapters, engine/control.h; the plan's rows have their strengths. */
  controls?: readonly NativeControl[] | undefined
  guess?: boolean | undefined
  /** engine/variation.h Variation. */
  variation?: { subseeds: bigint[]; strength: number; fromHeight: number; fromWidth: number } | undefined
  /** engine/models/free-u.h FreeU. */
  freeU?: FreeU | undefined
  tileX: boolean
  tileY: boolean
  decode: boolean
  stepLatents: boolean
  previewEvery: number
  /** Previews by the pipeline's own autoencoder, also where there is one for previews. */
  fullPreview?: boolean | undefined
  vaeTiling?: VaeTiling | undefined
  attentionMaps?: boolean | undefined
}

/** engine/unconditional.h UnconditionalJob. */
export interface NativeUnconditionalJob {
  batch: number
  height: number
  width: number
  plan: StepPlan
  seeds: bigint[]
  rng: 'cpu' | 'cuda'
  latents?: Float32Array | undefined
  decode: boolean
  stepLatents: boolean
  previewEvery: number
}

export interface NativeControl {
  id: number
  adapter: boolean
  pictures: readonly NativePicture[]
  /** ControlNets for inpainting: one per picture. */
  masks?: readonly NativePicture[] | undefined
  /** For each image of the batch, its picture. */
  pictureOf: Int32Array
}

/** engine/repaint.h RepaintOptions. */
export interface NativeRepaint {
  invert: boolean
  blur: number
  region?: number | undefined
  overlay: boolean
  content: 'original' | 'fill' | 'latentNoise' | 'latentNothing'
}

/** RGB, rows from the top. */
export interface NativePicture {
  data: Uint8Array
  width: number
  height: number
}

export interface NativeStepEvent {
  row: number
  step: number
  steps: number
  timestep: number
  latents?: Tensor
  predictedNoise?: Tensor
  predictedOriginal?: Tensor
  preview?: Uint8Array
}

export interface NativeResult {
  latents: Tensor
  pixels: Uint8Array
  width: number
  height: number
  /** Because memory was short. */
  decodedInTiles: boolean
  /** [images, tokens, h, w], where asked for. */
  attention?: Tensor
  timings: { text: number; encode: number; denoise: number; decode: number }
}

export interface NativeTextOutput {
  hiddenStates: Tensor[]
  lastHiddenState: Tensor
  /** CLIP's text encoders alone. */
  pooled: Tensor
  projected?: Tensor
}

export interface NativeImageOutput {
  /** layers + 1, [B, 1 + patches, width]: where asked for. */
  hiddenStates?: Tensor[]
  /** The last but one of them: where asked for. */
  penultimate?: Tensor
  lastHiddenState: Tensor
  pooled: Tensor
  projected?: Tensor
}

/** engine/image-prompts.h ImagePrompt. */
export interface NativeImagePrompt {
  rows: number
  images: number
  states: number
  embeds: Float32Array
  scales: Float32Array
}

export type NativeComponent =
  'textEncoder' | 'imageEncoder' | 'ipAdapter' | 'unet' | 'vae' | 'previewVae' | 'unconditional'

export interface NativeSession {
  load(
    component: NativeComponent,
    config: object,
    files: readonly string[],
    tensors: readonly (readonly [name: string, file: number, stored: string, view?: TensorView | undefined])[]
  ): Promise<void>
  encodeText(encoder: number, ids: Int32Array, length: number, mask?: Uint8Array): Promise<NativeTextOutput>
  encodeImages(request: {
    pictures?: readonly NativePicture[]
    /** engine/clip-pixels.h ClipPreprocessing; with `pictures`. */
    preprocessing?: object
    /** Instead of pictures: [B, 3, size, size], normalised. */
    pixels?: Tensor
    hiddenStates: 'none' | 'penultimate' | 'all'
  }): Promise<NativeImageOutput>
  /** IP-Adapters and the image encoder. */
  unloadIpAdapters(): Promise<void>
  predict(request: {
    sample: Tensor
    timesteps: Float32Array
    context: Tensor
    textEmbeds?: Tensor | undefined
    timeIds?: Tensor | undefined
    timeCond?: Tensor | undefined
    noiseLevel?: Float32Array | undefined
    residuals?: readonly Tensor[] | undefined
    adapterMaps?: readonly Tensor[] | undefined
    perturbed?: Int32Array | undefined
    blocks: boolean
  }): Promise<{ sample: Tensor; blocks?: Record<string, Tensor> }>
  vaeEncode(picture: Tensor, tiling?: VaeTiling): Promise<Tensor>
  vaeDecode(latents: Tensor, tiling?: VaeTiling): Promise<Tensor>
  loadControl(
    kind: 'controlnet' | 't2iAdapter',
    id: number,
    config: object,
    files: readonly string[],
    tensors: readonly (readonly [name: string, file: number, stored: string, view?: TensorView | undefined])[]
  ): Promise<void>
  unloadControl(kind: 'controlnet' | 't2iAdapter', id: number): Promise<void>
  /** The residuals of the skips, and last the middle's. */
  predictControl(
    id: number,
    request: {
      sample: Tensor
      timesteps: Float32Array
      context: Tensor
      picture: Tensor
      textEmbeds?: Tensor | undefined
      timeIds?: Tensor | undefined
      scale: number
      guess: boolean
    }
  ): Promise<Tensor[]>
  adapterMaps(id: number, picture: NativePicture, height: number, width: number): Promise<Tensor[]>
  /** Pictures, resized to the latents' size times the factor → the posterior's moments [n, 2C, h, w], unscaled. */
  encodePictures(pictures: readonly NativePicture[], latentHeight: number, latentWidth: number): Promise<Tensor>
  /** Latents as the step loop has them → RGB [n, height, width, 3]. */
  decodePictures(latents: Tensor): Promise<{ pixels: Uint8Array; width: number; height: number }>
  generate(
    job: NativeGenerateJob,
    onStep?: (event: NativeStepEvent) => void
  ): { promise: Promise<NativeResult>; abort(): void }
  /** Opens a file of weight changes and checks that it fits; nothing changes until it is used. */
  addAdapter(id: number, path: string, changes: readonly WeightChange[]): Promise<void>
  removeAdapter(id: number): Promise<void>
  /** The adapters of encodeText, predict, generate and applyAdapters calls from now on, in order. */
  useAdapters(uses: readonly { id: number; unet: number; textEncoder: number }[]): void
  /** Puts them into place now, instead of with the next call. */
  applyAdapters(): Promise<void>
  /** Embeddings [rows, width] of the ids behind a text encoder's vocabulary; empty: none. */
  setAddedTokens(encoder: number, values: Float32Array): Promise<void>
  unconditional(
    job: NativeUnconditionalJob,
    onStep?: (event: NativeStepEvent) => void
  ): { promise: Promise<NativeResult>; abort(): void }
  /** One evaluation of UNet2DModel; one timestep for all, or one per sample. */
  predictUnconditional(sample: Tensor, timesteps: Float32Array): Promise<Tensor>
  unload(): Promise<void>
  /** Time per operation since the last call; `on` starts or stops measuring. */
  profile(on: boolean): Promise<{ operation: string; seconds: number; flops: number; calls: number }[]>
  memory(): Promise<{ weights: number; activations: number }>
  description(): { name: string; description: string }
}

interface RunPlanOptions {
  shape: readonly [number, number, number, number]
  seeds: bigint[]
  rng: 'cpu' | 'cuda'
  initial?: Float32Array | undefined
  start?: Float32Array | undefined
  original?: Float32Array | undefined
  mask?: Float32Array | undefined
  branches: number
  guidanceRescale: number
  outputChannels?: number | undefined
}

interface Native {
  Session: new (options: { device: string; threads: number; dtype: string }) => NativeSession
  readHeader(path: string): {
    tensors: { name: string; dtype: string; shape: number[] }[]
    metadata: Record<string, string>
  }
  /** Whole tensors as float32: for small ones. */
  readTensors(path: string, names: readonly string[]): Record<string, Tensor>
  runPlan(
    plan: StepPlan,
    options: RunPlanOptions,
    predict: (input: Float32Array, timestep: number, row: number) => Float32Array,
    onRow?: (x: Float32Array, predictedOriginal: Float32Array) => void
  ): Float32Array
  Noise: new (seed: bigint, rng: 'cpu' | 'cuda') => { randn(n: number): Float32Array }
  inspect(): {
    isas: { name: string; description: string; compiled: boolean; supported: boolean; bfloat16: boolean }[]
    backend: string
    /** Why the CPU cannot compute in bfloat16; empty where it can. */
    bfloat16Reason: string
    cuda: { index: number; name: string; computeCapability: string; memory: number; reason: string }[] | null
    cudaReason: string
  }
}

let loaded: Native | undefined

/** The package's root: this file runs from dist/. */
export const packageRoot = join(dirname(fileURLToPath(import.meta.url)), '..')

let ownVersion: string | undefined
/** This package's version. */
export const version = (): string =>
  (ownVersion ??= (JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8')) as { version: string }).version)

/**
 * The addon, loaded on first use: a local build in build/Release, else the prebuilt one for this platform.
 * @throws DiffusionError ERR_ND_NO_BINARY with every place tried and the remedy
 */
export const native = (): Native => (loaded ??= loadAddon(packageRoot) as Native)

/** Native errors as DiffusionError; others pass. */
export const translated = (error: unknown): unknown => {
  const e = error as Partial<DiffusionError> | null
  if (
    e instanceof Error &&
    !(e instanceof DiffusionError) &&
    typeof e.code === 'string' &&
    e.code.startsWith('ERR_ND_')
  )
    return new DiffusionError(e.code, e.message, { cause: e })
  return error
}

export const translating = async <T>(promise: Promise<T>): Promise<T> => {
  try {
    return await promise
  } catch (error) {
    throw translated(error)
  }
}

export const translatingSync = <T>(body: () => T): T => {
  try {
    return body()
  } catch (error) {
    throw translated(error)
  }
}
