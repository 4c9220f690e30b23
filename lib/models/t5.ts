import { ConfigReader, type ConfigJson } from './config-reader.js'
import type { TextEncoderConfig } from './text-encoder.js'

/** transformers T5EncoderModel (Raffel et al. 2020), every field resolved: what the native text encoder takes. */
export interface T5Config extends TextEncoderConfig {
  readonly intermediateSize: number
  readonly layers: number
  readonly heads: number
  /** Width of a head; heads · headDim need not be hiddenSize. */
  readonly headDim: number
  /** T5 1.1's feed-forward with a GELU gate (by tanh); else T5's own with ReLU. */
  readonly gated: boolean
  readonly layerNormEps: number
  /** Distances between tokens fall into so many buckets; all from maxDistance on are one. */
  readonly buckets: number
  readonly maxDistance: number
}

/**
 * @param source path of the file, for messages
 * @throws ERR_ND_MODEL_FORMAT, ERR_ND_UNSUPPORTED, naming the field
 */
export const parseT5Config = (json: ConfigJson, source: string): T5Config => {
  const config = new ConfigReader('T5EncoderModel', source, json)
  config.only('model_type', ['t5'])
  const feedForward = config.string('feed_forward_proj', 'relu')
  if (feedForward !== 'relu' && feedForward !== 'gated-gelu')
    throw config.refused('feed_forward_proj', '"relu" or "gated-gelu"')
  const gated = feedForward === 'gated-gelu'
  config.only('dense_act_fn', [gated ? 'gelu_new' : 'relu'])
  const buckets = config.integer('relative_attention_num_buckets', 32, 4)
  if (buckets % 4) throw config.refused('relative_attention_num_buckets', 'multiples of 4')
  const maxDistance = config.integer('relative_attention_max_distance', 128)
  if (maxDistance <= buckets / 4)
    throw config.wrong('relative_attention_max_distance', `more than a quarter of the ${buckets} buckets`)
  return {
    vocabSize: config.integer('vocab_size', 32128),
    hiddenSize: config.integer('d_model', 512),
    intermediateSize: config.integer('d_ff', 2048),
    layers: config.integer('num_layers', 6),
    heads: config.integer('num_heads', 8),
    headDim: config.integer('d_kv', 64),
    gated,
    layerNormEps: config.positive('layer_norm_epsilon', 1e-6),
    buckets,
    maxDistance,
    maxPositions: 512, // what it was trained with; the network has no limit
    projectionDim: 0
  }
}
