import { ClipTokenizer } from '../tokenizer/clip-tokenizer.js'

/** A tokenizer's folder (vocab.json and merges.txt, or tokenizer.json), or CLIP's own vocabulary with a pad token. */
export type TokenizerSource = string | { readonly builtIn: 'clip'; readonly padToken: '!' | '<|endoftext|>' }

/** @throws as ClipTokenizer.fromFolder */
export const loadTokenizer = (source: TokenizerSource): ClipTokenizer =>
  typeof source === 'string' ? ClipTokenizer.fromFolder(source) : ClipTokenizer.clip(source.padToken)
