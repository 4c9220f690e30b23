import { ConfigReader, isObject, type ConfigJson } from './config-reader.js'

/**
 * transformers CLIPVisionModelWithProjection (Radford et al. 2021), every field resolved: what the native image encoder
 * takes.
 */
export interface ClipVisionConfig {
  readonly hiddenSize: number
  readonly intermediateSize: number
  readonly layers: number
  readonly heads: number
  readonly channels: number
  /** Side of the pictures that it sees, in pixels. */
  readonly imageSize: number
  readonly patchSize: number
  readonly activation: 'quick_gelu' | 'gelu'
  readonly layerNormEps: number
  readonly projectionDim: number
}

/**
 * A config.json of the vision tower, or of a whole CLIPModel, which keeps the tower's fields in vision_config and the
 * width of the shared space outside.
 * @param source path of the file, for messages
 * @throws ERR_ND_MODEL_FORMAT, ERR_ND_UNSUPPORTED, naming the field
 */
export const parseClipVisionConfig = (json: ConfigJson, source: string): ClipVisionConfig => {
  const outer = new ConfigReader('CLIPVisionModelWithProjection', source, json)
  outer.only('model_type', ['clip_vision_model', 'clip'])
  const nested = outer.raw('model_type') === 'clip'
  const vision = outer.raw('vision_config') ?? {}
  if (nested && !isObject(vision)) throw outer.wrong('vision_config', 'an object')
  const config = nested ? new ConfigReader(outer.className, source, vision as ConfigJson) : outer

  const hiddenSize = config.integer('hidden_size', 768)
  const heads = config.integer('num_attention_heads', 12)
  if (hiddenSize % heads) throw config.wrong('hidden_size', `a multiple of num_attention_heads (${heads})`)
  const activation = config.string('hidden_act', 'quick_gelu')
  if (activation !== 'quick_gelu' && activation !== 'gelu') throw config.refused('hidden_act', '"quick_gelu" or "gelu"')
  const imageSize = config.integer('image_size', 224)
  const patchSize = config.integer('patch_size', 32)
  if (patchSize > imageSize) throw config.wrong('patch_size', `at most image_size (${imageSize})`)
  const channels = config.integer('num_channels', 3)
  if (channels !== 3) throw config.refused('num_channels', '3')
  return {
    hiddenSize,
    intermediateSize: config.integer('intermediate_size', 3072),
    layers: config.integer('num_hidden_layers', 12),
    heads,
    channels,
    imageSize,
    patchSize,
    activation,
    layerNormEps: config.positive('layer_norm_eps', 1e-5),
    projectionDim: outer.integer('projection_dim', 512)
  }
}

/** transformers CLIPImageProcessor, every field resolved: engine/clip-pixels.h. */
export interface ClipPreprocessing {
  readonly resize: boolean
  /** 0: exactly resizeHeight × resizeWidth. */
  readonly shortestEdge: number
  readonly resizeHeight: number
  readonly resizeWidth: number
  /** Lanczos instead of the bicubic filter. */
  readonly lanczos: boolean
  readonly centerCrop: boolean
  readonly cropHeight: number
  readonly cropWidth: number
  readonly rescale: boolean
  readonly rescaleFactor: number
  readonly normalize: boolean
  readonly mean: Float32Array
  readonly deviation: Float32Array
}

const bicubic = 3 // PIL.Image.Resampling
const lanczos = 1

/**
 * A preprocessor_config.json, new or old (sizes as plain numbers).
 * @param json undefined: CLIP's own settings for pictures of `imageSize`, as diffusers takes them for an IP-Adapter
 * @throws ERR_ND_MODEL_FORMAT, ERR_ND_UNSUPPORTED, naming the field
 */
export const parsePreprocessing = (
  json: ConfigJson | undefined,
  imageSize: number,
  source: string
): ClipPreprocessing => {
  const config = new ConfigReader('CLIPImageProcessor', source, json ?? { size: imageSize, crop_size: imageSize })
  config.only('image_processor_type', ['CLIPImageProcessor', 'CLIPFeatureExtractor', 'CLIPImageProcessorFast'])
  config.only('resample', [bicubic, lanczos])
  const side = (value: unknown): value is number => Number.isInteger(value) && (value as number) > 0
  const sizeOf = (key: string): { shortest: number; height: number; width: number } => {
    const value = config.raw(key) ?? (key === 'size' ? { shortest_edge: 224 } : { height: 224, width: 224 })
    // A plain number is the shortest edge of a resize and both sides of a crop.
    if (side(value)) return { shortest: key === 'size' ? value : 0, height: value, width: value }
    if (isObject(value)) {
      const { shortest_edge: shortest, height, width } = value
      if (side(shortest) && height === undefined && key === 'size') return { shortest, height: 0, width: 0 }
      if (side(height) && side(width)) return { shortest: 0, height, width }
    }
    throw config.wrong(
      key,
      key === 'size' ? 'a number, { shortest_edge } or { height, width }' : 'a number or { height, width }'
    )
  }
  const size = sizeOf('size')
  const crop = sizeOf('crop_size')
  const three = (key: string, fallback: readonly [number, number, number]): Float32Array =>
    Float32Array.from(config.optionalNumbers(key, 3) ?? fallback)
  const deviation = three('image_std', [0.26862954, 0.26130258, 0.27577711])
  if (deviation.some((d) => !(d > 0))) throw config.wrong('image_std', 'positive numbers')
  return {
    resize: config.boolean('do_resize', true),
    shortestEdge: size.shortest,
    resizeHeight: size.height,
    resizeWidth: size.width,
    lanczos: config.raw('resample') === lanczos,
    centerCrop: config.boolean('do_center_crop', true),
    cropHeight: crop.height,
    cropWidth: crop.width,
    rescale: config.boolean('do_rescale', true),
    rescaleFactor: config.number('rescale_factor', 1 / 255),
    normalize: config.boolean('do_normalize', true),
    mean: three('image_mean', [0.48145466, 0.4578275, 0.40821073]),
    deviation
  }
}
