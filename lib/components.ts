/** The networks of a pipeline, each callable on its own: for looking inside, and for pipelines of your own. */
import { DiffusionError, invalidArgument } from './errors.js'
import { type NativeSession, type NativeTextOutput, translating } from './binding.js'
import type { ImageInput } from './image.js'
import { isTiny, pixelsPerLatent, type AutoencoderConfig } from './models/autoencoder.js'
import type { UNetConfig } from './models/unet.js'
import { perturbedBlocks } from './perturbed-attention.js'
import { roundtrip, type Roundtrip } from './roundtrip.js'
import { checkTensor, type Tensor } from './tensor.js'
import { knownKeys } from './validate.js'
import { resolveTiling, type VaeTiling, type VaeTilingOption } from './vae-tiling.js'

/** What the networks need of their pipeline. */
export interface SessionOwner {
  /** @throws DiffusionError ERR_ND_DISPOSED */
  session(): NativeSession
}

/** CLIPTextModel, CLIPTextModelWithProjection, or another family's encoder. */
export class TextEncoder {
  constructor(
    private readonly owner: SessionOwner,
    private readonly index: number,
    /** Its config.json, resolved. */
    readonly config: Readonly<Record<string, unknown>>,
    private readonly maxPositions: number
  ) {}

  /**
   * Token ids, one sequence or several of equal length (at most 77) →
   * hiddenStates (the embeddings, then each layer) and lastHiddenState [B, L, width], and of CLIP's encoders pooled
   * [B, width] at the end-of-text token, projected [B, projection] where the model has a projection.
   * @param mask like ids: 0 for padding that no token may see, where the tokenizer gives one (T5)
   */
  async encode(
    ids: readonly number[] | readonly (readonly number[])[] | Int32Array,
    mask?: readonly number[] | readonly (readonly number[])[]
  ): Promise<NativeTextOutput> {
    const rows: ArrayLike<number>[] =
      ids.length > 0 && typeof ids[0] === 'object' ? (ids as unknown as number[][]) : [ids as ArrayLike<number>]
    const length = rows[0]!.length
    if (length < 1 || length > this.maxPositions || rows.some((r) => r.length !== length))
      throw invalidArgument('ids', `sequences of equal length, 1 to ${this.maxPositions} tokens`, ids)
    const flat = new Int32Array(rows.length * length)
    rows.forEach((row, r) => {
      for (let i = 0; i < length; i++) {
        if (!Number.isInteger(row[i])) throw invalidArgument(`ids[${i}]`, 'an integer', row[i])
        flat[r * length + i] = row[i]!
      }
    })
    const flags = mask && Uint8Array.from((mask as readonly number[][]).flat())
    if (flags && flags.length !== flat.length)
      throw invalidArgument('mask', `as many flags as ids (${flat.length})`, flags.length)
    return translating(this.owner.session().encodeText(this.index, flat, length, flags))
  }
}

/** One evaluation of the UNet: see UNet.predict. */
export interface UNetRequest {
  /** Latents, already scaled as the scheduler's plan says: [B, C, H, W]. */
  sample: Tensor
  /** One for all, or one per sample. */
  timestep: number | readonly number[]
  /** Text embeddings [B, tokens, width]; not for models without a condition. */
  context?: Tensor
  /** SDXL: pooled text [B, n] and time ids [B, 5 or 6]; guidance-distilled models: the guidance embedding [B, n]. */
  added?: {
    textEmbeds?: Tensor
    timeIds?: Tensor
    timeCond?: Tensor
    /** Super-resolution (class_embed_type "timestep"): one for all, or one per sample. */
    noiseLevel?: number | readonly number[]
  }
  /** Added to the skips and to the middle before the way up: a ControlNet's residuals, scaled. */
  downBlockAdditionalResiduals?: readonly Tensor[]
  midBlockAdditionalResidual?: Tensor
  /** Added on the way down: a T2I-Adapter's features, scaled. */
  downIntrablockAdditionalResiduals?: readonly Tensor[]
  /** Layers whose self-attention is perturbed, as txt2img's pagAppliedLayers: every pixel attends to itself alone. */
  pagAppliedLayers?: readonly string[]
  /** Also return the output of conv_in, time_embedding, down0…, mid, up0… (default false). */
  blocks?: boolean
}

/** UNet2DConditionModel, or UNet2DModel in models without a condition. */
export class UNet {
  constructor(
    private readonly owner: SessionOwner,
    readonly config: Readonly<Record<string, unknown>>,
    private readonly inChannels: number,
    private readonly conditional = true
  ) {}

  /** One evaluation → { sample [B, C, H, W], blocks? }. */
  async predict(request: UNetRequest): Promise<{ sample: Tensor; blocks?: Record<string, Tensor> }> {
    const sample = checkTensor('sample', request.sample, [null, this.inChannels, null, null])
    const batch = sample.shape[0]!
    const timesteps = Float32Array.from(typeof request.timestep === 'number' ? [request.timestep] : request.timestep)
    if (!timesteps.every(Number.isFinite)) throw invalidArgument('timestep', 'finite numbers', request.timestep)
    if (timesteps.length !== 1 && timesteps.length !== batch)
      throw invalidArgument('timestep', `one number or ${batch}`, request.timestep)
    if (!this.conditional) {
      for (const name of ['context', 'added', 'blocks', 'pagAppliedLayers'] as const)
        if (request[name])
          throw invalidArgument(name, 'nothing, as this model has no condition and no probes,', request[name])
      return { sample: await translating(this.owner.session().predictUnconditional(sample, timesteps)) }
    }
    const context = checkTensor('context', request.context, [batch, null, null])
    const { textEmbeds, timeIds, timeCond, noiseLevel: level } = request.added ?? {}
    const noiseLevel =
      level === undefined
        ? undefined
        : Float32Array.from(typeof level === 'number' ? Array<number>(batch).fill(level) : level)
    if (noiseLevel && (noiseLevel.length !== batch || !noiseLevel.every(Number.isFinite)))
      throw invalidArgument('added.noiseLevel', `a number, or ${batch} of them`, level)
    for (const [name, t] of Object.entries({ textEmbeds, timeIds, timeCond }))
      if (t) checkTensor(`added.${name}`, t, [batch, null])
    const down = request.downBlockAdditionalResiduals
    const mid = request.midBlockAdditionalResidual
    if ((down === undefined) !== (mid === undefined))
      throw invalidArgument(
        'downBlockAdditionalResiduals and midBlockAdditionalResidual',
        'both or none',
        down === undefined ? mid : down
      )
    const tensors = (name: string, list: readonly Tensor[]): readonly Tensor[] =>
      list.map((t, i) => checkTensor(`${name}[${i}]`, t, [null, null, null, null]))
    const maps = request.downIntrablockAdditionalResiduals
    return translating(
      this.owner.session().predict({
        sample,
        timesteps,
        context,
        textEmbeds,
        timeIds,
        timeCond,
        noiseLevel,
        residuals: down && mid ? tensors('downBlockAdditionalResiduals', [...down, mid]) : undefined,
        adapterMaps: maps && tensors('downIntrablockAdditionalResiduals', maps),
        perturbed:
          request.pagAppliedLayers && perturbedBlocks(request.pagAppliedLayers, this.config as unknown as UNetConfig),
        blocks: request.blocks ?? false
      })
    )
  }
}

/** Options of Vae.encode and Vae.decode. */
export interface VaeCallOptions {
  /** See Txt2ImgOptions.vaeTiling; default 'auto'. */
  tiling?: VaeTilingOption
}

/** AutoencoderKL, or AutoencoderTiny. */
export class Vae {
  /** Picture pixels per latent pixel, along each side. */
  readonly factor: number

  constructor(
    private readonly owner: SessionOwner,
    private readonly model: AutoencoderConfig
  ) {
    this.factor = pixelsPerLatent(model)
  }

  /** Its config.json, resolved. */
  get config(): Readonly<Record<string, unknown>> {
    return { ...this.model }
  }

  /** Which tiles a tensor of these sides in pixels needs. */
  private tiling(options: VaeCallOptions, height: number, width: number): VaeTiling | undefined {
    knownKeys('options', options, ['tiling'])
    return resolveTiling(options.tiling, this.model, { width, height })
  }

  /**
   * Pictures [B, 3, H, W] in −1..1 → the posterior's mean and log variance [B, C, H/factor, W/factor]; unscaled.
   * AutoencoderTiny has no distribution: `mean` is its latents, and there is no `logvar`.
   */
  async encode(picture: Tensor, options: VaeCallOptions = {}): Promise<{ mean: Tensor; logvar?: Tensor }> {
    const [, , rows, columns] = checkTensor('picture', picture, [null, this.model.inChannels, null, null]).shape
    const moments = await translating(this.owner.session().vaeEncode(picture, this.tiling(options, rows!, columns!)))
    if (isTiny(this.model)) return { mean: moments }
    const [batch, double, height, width] = moments.shape as [number, number, number, number]
    const shape = [batch, double / 2, height, width]
    const each = (double / 2) * height * width
    const half = (which: 0 | 1): Tensor => {
      const data = new Float32Array(batch * each)
      for (let b = 0; b < batch; b++)
        data.set(moments.data.subarray((2 * b + which) * each, (2 * b + which + 1) * each), b * each)
      return { data, shape }
    }
    return { mean: half(0), logvar: half(1) }
  }

  /** Latents [B, C, h, w], already divided by the scaling factor → pictures [B, 3, h·factor, w·factor], about −1..1. */
  async decode(latents: Tensor, options: VaeCallOptions = {}): Promise<Tensor> {
    const [, , rows, columns] = checkTensor('latents', latents, [null, this.model.latentChannels, null, null]).shape
    const tiling = this.tiling(options, rows! * this.factor, columns! * this.factor)
    return translating(this.owner.session().vaeDecode(latents, tiling))
  }

  /**
   * A picture through the encoder (the mean of its distribution) and the decoder, and how much of it is left. Sides that are
   * no multiples of `factor` are extended by their edge for it.
   */
  roundtrip(image: ImageInput, options: VaeCallOptions = {}): Promise<Roundtrip> {
    return roundtrip(image, this.factor, {
      encode: async (picture) => (await this.encode(picture, options)).mean,
      decode: (latents) => this.decode(latents, options)
    })
  }
}

export const disposedError = (): DiffusionError =>
  new DiffusionError(
    'ERR_ND_DISPOSED',
    'Expected a live pipeline but this one was disposed; load it again with Pipeline.fromPretrained'
  )
