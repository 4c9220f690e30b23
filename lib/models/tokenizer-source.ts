import { BertTokenizer } from '../tokenizer/bert-tokenizer.js'
import { ClipTokenizer } from '../tokenizer/clip-tokenizer.js'
import { T5Tokenizer } from '../tokenizer/t5-tokenizer.js'
import type { Tokenizer } from '../tokenizer/tokenizer.js'
import type { TextEncoderKind } from './text-encoder.js'

/** A tokenizer's folder, or CLIP's own vocabulary with a pad token. */
export type TokenizerSource = string | { readonly builtIn: 'clip'; readonly padToken: '!' | '<|endoftext|>' }

/** Tokens that the pipelines of these text encoders read, whatever their tokenizers allow. */
const length = 77

const loaders: { readonly [Kind in TextEncoderKind]: (folder: string) => Tokenizer } = {
  'clip-text': (folder) => ClipTokenizer.fromFolder(folder),
  'ldm-bert': (folder) => BertTokenizer.fromFolder(folder, length),
  t5: (folder) => T5Tokenizer.fromFolder(folder, length)
}

/**
 * @param kind the text encoder that it is for
 * @throws as ClipTokenizer.fromFolder
 */
export const loadTokenizer = (kind: TextEncoderKind, source: TokenizerSource): Tokenizer =>
  typeof source === 'string' ? loaders[kind](source) : ClipTokenizer.clip(source.padToken)
