import { ConfigReader, type ConfigJson } from './config-reader.js'
import type { TextEncoderConfig } from './text-encoder.js'

/** diffusers LDMBertModel (Rombach et al. 2022), every field resolved: what the native text encoder takes. */
export interface LdmBertConfig extends TextEncoderConfig {
  readonly intermediateSize: number
  readonly layers: number
  readonly heads: number
  /** Width of a head; heads · headDim need not be hiddenSize. */
  readonly headDim: number
  readonly activation: 'gelu'
}

/**
 * @param source path of the file, for messages
 * @throws ERR_ND_MODEL_FORMAT, ERR_ND_UNSUPPORTED, naming the field
 */
export const parseLdmBertConfig = (json: ConfigJson, source: string): LdmBertConfig => {
  const config = new ConfigReader('LDMBertModel', source, json)
  config.only('model_type', ['ldmbert'])
  config.only('activation_function', ['gelu'])
  config.boolean('scale_embedding', false) // the class reads it nowhere
  return {
    vocabSize: config.integer('vocab_size', 30522),
    hiddenSize: config.integer('d_model', 1280),
    intermediateSize: config.integer('encoder_ffn_dim', 5120),
    layers: config.integer('encoder_layers', 32),
    heads: config.integer('encoder_attention_heads', 8),
    headDim: config.integer('head_dim', 64),
    maxPositions: config.integer('max_position_embeddings', 77),
    activation: 'gelu',
    projectionDim: 0
  }
}
