/** The text encoders that are known, by kind: their configs and how these are read. */
import { parseClipTextConfig, type ClipTextClass, type ClipTextConfig } from './clip-text.js'
import type { ConfigJson } from './config-reader.js'
import { parseLdmBertConfig, type LdmBertConfig } from './ldm-bert.js'
import { parseT5Config, type T5Config } from './t5.js'

/** What every text encoder's config says; what else it has, its native network reads. */
export interface TextEncoderConfig {
  readonly vocabSize: number
  /** Width of its states. */
  readonly hiddenSize: number
  /** Tokens per sequence at most. */
  readonly maxPositions: number
  /** Width of the projected pooled state; 0 without a projection. */
  readonly projectionDim: number
}

interface ConfigOf {
  'clip-text': ClipTextConfig
  'ldm-bert': LdmBertConfig
  t5: T5Config
}

export type TextEncoderKind = keyof ConfigOf

type Parser<Config> = (json: ConfigJson, className: string, source: string) => Config

const parsers: { readonly [Kind in TextEncoderKind]: Parser<ConfigOf[Kind]> } = {
  'clip-text': (json, className, source) => parseClipTextConfig(json, className as ClipTextClass, source),
  'ldm-bert': (json, _, source) => parseLdmBertConfig(json, source),
  t5: (json, _, source) => parseT5Config(json, source)
}

/**
 * @param className the class that the pipeline's model_index.json names
 * @param source path of the file, for messages
 * @throws ERR_ND_MODEL_FORMAT, ERR_ND_UNSUPPORTED, naming the field
 */
export const parseTextEncoderConfig = (
  kind: TextEncoderKind,
  json: ConfigJson,
  className: string,
  source: string
): TextEncoderConfig => parsers[kind](json, className, source)
