import { ConfigReader, isObject, type ConfigJson } from './config-reader.js'

/**
 * transformers CLIPTextModel and CLIPTextModelWithProjection (Radford et al. 2021), every field resolved: what the
 * native text encoder takes.
 */
export interface ClipTextConfig {
  readonly vocabSize: number
  readonly hiddenSize: number
  readonly intermediateSize: number
  readonly layers: number
  readonly heads: number
  /** Tokens per sequence at most; 77. */
  readonly maxPositions: number
  readonly activation: 'quick_gelu' | 'gelu'
  readonly layerNormEps: number
  /**
   * The pooled state is that of the first token with this id; with 2, which old configs have by mistake, that of the
   * largest id, as transformers keeps it for them.
   */
  readonly eosTokenId: number
  /** Width of the projected pooled state; 0 without a projection (CLIPTextModel). */
  readonly projectionDim: number
}

export type ClipTextClass = 'CLIPTextModel' | 'CLIPTextModelWithProjection'

/**
 * @param className the class that the pipeline's model_index.json names: it decides whether there is a projection
 * @param source path of the file, for messages
 * @throws ERR_ND_MODEL_FORMAT, ERR_ND_UNSUPPORTED, naming the field
 */
export const parseClipTextConfig = (json: ConfigJson, className: ClipTextClass, source: string): ClipTextConfig => {
  const outer = new ConfigReader(className, source, json)
  outer.only('model_type', ['clip_text_model', 'clip'])
  // A config of the whole CLIPModel keeps the text tower's fields in text_config.
  const text = outer.raw('text_config')
  const nested = outer.raw('model_type') === 'clip' && text !== undefined && text !== null
  if (nested && !isObject(text)) throw outer.wrong('text_config', 'an object')
  const config = nested ? new ConfigReader(className, source, text as ConfigJson) : outer

  const hiddenSize = config.integer('hidden_size', 512)
  const heads = config.integer('num_attention_heads', 8)
  if (hiddenSize % heads) throw config.wrong('hidden_size', `a multiple of num_attention_heads (${heads})`)
  const activation = config.string('hidden_act', 'quick_gelu')
  if (activation !== 'quick_gelu' && activation !== 'gelu') throw config.refused('hidden_act', '"quick_gelu" or "gelu"')
  return {
    vocabSize: config.integer('vocab_size', 49408),
    hiddenSize,
    intermediateSize: config.integer('intermediate_size', 2048),
    layers: config.integer('num_hidden_layers', 12),
    heads,
    maxPositions: config.integer('max_position_embeddings', 77),
    activation,
    layerNormEps: config.positive('layer_norm_eps', 1e-5),
    eosTokenId: config.integer('eos_token_id', 49407, 0),
    projectionDim: className === 'CLIPTextModelWithProjection' ? config.integer('projection_dim', 512) : 0
  }
}
