/** What a text encoder's tokenizer does, whichever kind it is. */
export interface Tokenizer {
  readonly vocabSize: number
  /** undefined where texts have no begin mark. */
  readonly bosTokenId: number | undefined
  readonly eosTokenId: number
  readonly padTokenId: number
  /** Tokens that the model reads, marks and padding with them. */
  readonly modelMaxLength: number
  /** Ids of the text alone: no marks, no padding, nothing cut. */
  tokenize(text: string): number[]
  /** Ids with their marks, padded and cut as the options say. */
  encode(text: string, options?: EncodeOptions): Encoding
  /** The text of ids. Marks and other added tokens are left out with `skipSpecialTokens`. */
  decode(ids: Iterable<number>, options?: { skipSpecialTokens?: boolean }): string
}

/** Options of Tokenizer.encode. */
export interface EncodeOptions {
  /** Fill up to `maxLength` with the pad token (default true). */
  padding?: boolean
  /** Keep the first tokens, as many as fit between the marks (default true). */
  truncation?: boolean
  /** Default: modelMaxLength (77 for CLIP). */
  maxLength?: number
}

/** A text as token ids. */
export interface Encoding {
  /** `[bos, …text, eos, pad…]` */
  ids: number[]
  /** The text that did not fit, or null. diffusers warns with it. */
  truncated: string | null
  /** Where the text encoder must not see the padding: 1 for tokens, 0 for padding. */
  mask?: number[]
}
