/** CLIP as a whole (Radford et al. 2021): pictures and texts in one space, and how well they go together. */
import { existsSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { native, type NativeSession, packageRoot, translating, translatingSync } from './binding.js'
import { ImageEncoder, loadImageEncoder, readImageEncoder } from './clip-image-encoder.js'
import { disposedError, TextEncoder } from './components.js'
import { chooseDevice } from './device.js'
import { invalidArgument, modelFormat } from './errors.js'
import type { ImageInput } from './image.js'
import { loadComponent } from './load-component.js'
import { parseClipTextConfig, type ClipTextConfig } from './models/clip-text.js'
import { ConfigReader } from './models/config-reader.js'
import { isFolder, modelNotFound, readJson } from './models/files.js'
import { loadTokenizer, type TokenizerSource } from './models/tokenizer-source.js'
import { findWeights, type HeaderReader } from './models/weights.js'
import type { Tensor } from './tensor.js'
import type { Tokenizer } from './tokenizer/tokenizer.js'
import { integerIn, knownKeys } from './validate.js'

/** Options of ClipModel.fromPretrained. */
export interface ClipLoadOptions {
  /** 'auto' (default) or 'cpu'. */
  device?: string
  /** CPU threads; default: the physical cores. */
  threads?: number
  /** A tokenizer's folder, where the model has none of its own, beside it, or CLIP's. */
  tokenizer?: string
  /** Take model.VARIANT.safetensors. */
  variant?: string
}

/** How well texts and pictures go together: see clipScore(). */
export interface ClipScores {
  /** Cosine of every picture (rows) with every text (columns), −1..1. */
  readonly similarity: readonly (readonly number[])[]
  /** similarity · exp(logit_scale): transformers' logits_per_image. */
  readonly logits: readonly (readonly number[])[]
  /** Softmax of each row of logits: of these texts, which one says what the picture shows. */
  readonly probabilities: readonly (readonly number[])[]
}

const known: readonly (keyof ClipLoadOptions)[] = ['device', 'threads', 'tokenizer', 'variant']

/** A list, or one of its elements. */
type OneOrMore<T> = T | readonly T[]

/** transformers CLIPModel. Dispose of it when done: `await clip.dispose()`, or `await using clip = …`. */
export class ClipModel {
  private disposed: Promise<void> | undefined

  private constructor(
    private readonly native: NativeSession,
    readonly tokenizer: Tokenizer,
    readonly textEncoder: TextEncoder,
    readonly imageEncoder: ImageEncoder,
    /** What cosines are multiplied with for probabilities: exp(logit_scale), about 100. */
    readonly logitScale: number
  ) {}

  /**
   * @param source 'postcard' (default): the bundled model's own CLIP; or a folder with a CLIPModel as transformers'
   *   save_pretrained writes it. The tokenizer is the folder's own, else that of a folder `tokenizer` beside it, else CLIP's
   *   own where the vocabulary is as large
   * @throws DiffusionError ERR_ND_MODEL_NOT_FOUND, ERR_ND_MODEL_FORMAT, ERR_ND_UNSUPPORTED, ERR_ND_INVALID_ARGUMENT,
   *   ERR_ND_CUDA_UNAVAILABLE, ERR_ND_OUT_OF_MEMORY, ERR_ND_NO_BINARY
   */
  static async fromPretrained(source = 'postcard', options: ClipLoadOptions = {}): Promise<ClipModel> {
    knownKeys('ClipModel.fromPretrained', options, known)
    const { variant } = options
    const { device } = chooseDevice(options.device ?? 'auto', 'auto')
    const threads = options.threads === undefined ? 0 : integerIn('threads', options.threads, 1, 1024)
    if (typeof source !== 'string' || source === '')
      throw invalidArgument('source', "the path of a CLIPModel's folder, or 'postcard'", source)
    const folder =
      source === 'postcard' && !existsSync(source) ? join(packageRoot, 'models', 'postcard', 'clip') : source

    const path = join(folder, 'config.json')
    const json = await readJson(path, "CLIP's config")
    if (json.model_type !== 'clip')
      throw modelFormat(
        `${path}: expected a CLIPModel with both towers (model_type "clip") but received ${JSON.stringify(json.model_type)}`
      )
    const vision = await readImageEncoder(folder, readHeader, variant)
    const text: ClipTextConfig = {
      ...parseClipTextConfig(json, 'CLIPTextModelWithProjection', path),
      projectionDim: new ConfigReader('CLIPModel', path, json).integer('projection_dim', 512)
    }
    const weights = await findWeights(folder, 'clip-text', readHeader, variant)
    const tokenizer = loadTokenizer('clip-text', await findTokenizer(folder, options.tokenizer, text.vocabSize))
    const logitScale = readLogitScale(weights.files)

    const session = translatingSync(() => new (native().Session)({ device, threads, dtype: 'auto' }))
    try {
      await loadComponent(session, 'textEncoder', { kind: 'clip-text', ...text }, weights)
      await loadImageEncoder(session, vision)
    } catch (error) {
      await session.unload()
      throw error
    }
    const owner = { session: (): NativeSession => model.session() }
    const model: ClipModel = new ClipModel(
      session,
      tokenizer,
      new TextEncoder(owner, 0, { ...text }, text.maxPositions),
      new ImageEncoder(owner, vision.config, vision.preprocessing),
      logitScale
    )
    return model
  }

  /**
   * Texts → [texts, projection]; of unit length with `normalize` (default true). A text that is longer than the model
   * reads (77 tokens) is cut.
   */
  async encodeText(texts: OneOrMore<string>, options: { normalize?: boolean } = {}): Promise<Tensor> {
    const list = typeof texts === 'string' ? [texts] : texts
    if (!Array.isArray(list) || list.length === 0) throw invalidArgument('texts', 'a string or strings', texts)
    const rows = list.map((text: string) => this.tokenizer.encode(text).ids)
    const { projected } = await this.textEncoder.encode(rows)
    return unit(projected!, options.normalize ?? true)
  }

  /** Pictures → [pictures, projection]; of unit length with `normalize` (default true). */
  async encodeImage(images: OneOrMore<ImageInput>, options: { normalize?: boolean } = {}): Promise<Tensor> {
    const { projected } = await this.imageEncoder.encode(images)
    return unit(projected!, options.normalize ?? true)
  }

  /** How well each picture goes with each text. */
  async score(images: OneOrMore<ImageInput>, texts: OneOrMore<string>): Promise<ClipScores> {
    const [image, text] = [await this.encodeImage(images), await this.encodeText(texts)]
    const [rows, width] = image.shape as [number, number]
    const similarity = Array.from({ length: rows }, (_, i) =>
      Array.from({ length: text.shape[0]! }, (_, j) => {
        let dot = 0
        for (let k = 0; k < width; k++) dot += image.data[i * width + k]! * text.data[j * width + k]!
        return dot
      })
    )
    const logits = similarity.map((row) => row.map((cosine) => cosine * this.logitScale))
    return { similarity, logits, probabilities: logits.map(softmax) }
  }

  /** Frees the memory once the calls before have run. Later calls reject with ERR_ND_DISPOSED. */
  dispose(): Promise<void> {
    this.disposed ??= translating(this.native.unload())
    return this.disposed
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose()
  }

  private session(): NativeSession {
    if (this.disposed) throw disposedError()
    return this.native
  }
}

let bundled: Promise<ClipModel> | undefined

/**
 * CLIPScore (Hessel et al. 2021) as torchmetrics has it: max(100 · cosine, 0) of one picture and one text, by the bundled
 * model's own CLIP, which knows nothing but that model's little world, or by `model`. The bundled one is loaded by the first
 * call and kept. The paper's own figure is this one times 0.025.
 */
export const clipScore = async (image: ImageInput, text: string, model?: ClipModel): Promise<number> => {
  if (typeof text !== 'string') throw invalidArgument('text', 'a string', text)
  if (!model) {
    bundled ??= ClipModel.fromPretrained('postcard')
    bundled.catch(() => (bundled = undefined))
  }
  const { similarity } = await (model ?? (await bundled!)).score(image, text)
  return Math.max(100 * similarity[0]![0]!, 0)
}

const readHeader: HeaderReader = (path) => translatingSync(() => native().readHeader(path))

const findTokenizer = async (
  folder: string,
  given: string | undefined,
  vocabSize: number
): Promise<TokenizerSource> => {
  if (given !== undefined) {
    if (typeof given !== 'string' || given === '') throw invalidArgument('tokenizer', "a tokenizer's folder", given)
    return given
  }
  if (['vocab.json', 'tokenizer.json'].some((name) => existsSync(join(folder, name)))) return folder
  const beside = join(dirname(resolve(folder)), 'tokenizer')
  if (await isFolder(beside)) return beside
  if (vocabSize === 49408) return { builtIn: 'clip', padToken: '<|endoftext|>' }
  throw modelNotFound(
    `${folder}: expected a tokenizer (vocab.json and merges.txt, or tokenizer.json) in it or in ${beside} but there is none; ` +
      'give the `tokenizer` option'
  )
}

/** exp(logit_scale), a scalar of CLIPModel's weights. */
const readLogitScale = (files: readonly string[]): number => {
  for (const file of files)
    if (translatingSync(() => native().readHeader(file)).tensors.some((t) => t.name === 'logit_scale')) {
      const { logit_scale: stored } = translatingSync(() => native().readTensors(file, ['logit_scale']))
      return Math.exp(stored!.data[0]!)
    }
  throw modelFormat(`${files.join(', ')}: expected a tensor logit_scale, as a CLIPModel has, but there is none`)
}

const softmax = (row: readonly number[]): number[] => {
  const largest = Math.max(...row)
  const powers = row.map((v) => Math.exp(v - largest))
  const sum = powers.reduce((a, b) => a + b, 0)
  return powers.map((p) => p / sum)
}

const unit = ({ data, shape }: Tensor, normalize: boolean): Tensor => {
  if (!normalize) return { data, shape }
  const width = shape[1]!
  const out = new Float32Array(data.length)
  for (let row = 0; row < data.length; row += width) {
    let square = 0
    for (let k = row; k < row + width; k++) square += data[k]! * data[k]!
    const length = Math.sqrt(square)
    for (let k = row; k < row + width; k++) out[k] = length > 0 ? data[k]! / length : 0
  }
  return { data: out, shape }
}
