import { invalidArgument } from '../errors.js'
import { type AddedToken, AddedTokenSplitter } from './added-tokens.js'
import { readT5Folder } from './t5-files.js'
import type { EncodeOptions, Encoding, Tokenizer } from './tokenizer.js'
import { type Piece, UnigramModel } from './unigram.js'

/** What a T5 tokenizer is made of; t5-files.ts reads it from a folder. */
export interface T5TokenizerParts {
  readonly pieces: readonly Piece[]
  readonly unknownId: number
  readonly addedTokens: readonly AddedToken[]
  readonly eosToken: string
  readonly padToken: string
  /** Unicode forms and the like, before white space counts. */
  readonly normalize: (text: string) => string
  /** Whether the text ends with the end mark: where a tokenizer.json has no post-processor it does not. */
  readonly endMark: boolean
  readonly modelMaxLength: number
}

const blank = '\u2581'

/**
 * T5's tokenizer (SentencePiece with a unigram model): the ids that transformers' T5TokenizerFast gives. Words begin with
 * `▁`; white space at the ends and repeated white space do not count.
 */
export class T5Tokenizer implements Tokenizer {
  readonly vocabSize: number
  readonly bosTokenId = undefined
  readonly eosTokenId: number
  readonly padTokenId: number
  readonly modelMaxLength: number
  private readonly model: UnigramModel
  private readonly added: AddedTokenSplitter
  private readonly addedIds: ReadonlySet<number>

  constructor(private readonly parts: T5TokenizerParts) {
    const added = new Map(parts.addedTokens.map((token) => [token.content, token.id]))
    const idOf = (token: string): number => {
      const id = added.get(token) ?? parts.pieces.findIndex((piece) => piece.text === token)
      if (id < 0) throw invalidArgument('a special token of the tokenizer', 'a token of the vocabulary', token)
      return id
    }
    this.eosTokenId = idOf(parts.eosToken)
    this.padTokenId = idOf(parts.padToken)
    this.modelMaxLength = parts.modelMaxLength
    this.addedIds = new Set([...added.values(), this.eosTokenId, this.padTokenId, parts.unknownId])
    this.vocabSize = Math.max(parts.pieces.length, ...[...added.values()].map((id) => id + 1))
    this.model = new UnigramModel(parts.pieces, parts.unknownId, this.addedIds)
    this.added = new AddedTokenSplitter(parts.addedTokens)
  }

  /**
   * A folder with tokenizer.json or spiece.model; tokenizer_config.json and special_tokens_map.json are honoured.
   * @param length tokens that the pipeline reads; default the folder's model_max_length, else 512
   * @throws DiffusionError ERR_ND_MODEL_NOT_FOUND, ERR_ND_MODEL_FORMAT, ERR_ND_UNSUPPORTED (not T5's kind)
   */
  static fromFolder(path: string, length?: number): T5Tokenizer {
    return new T5Tokenizer(readT5Folder(path, length))
  }

  tokenize(text: string): number[] {
    if (typeof text !== 'string') throw invalidArgument('text', 'a string', text)
    const ids: number[] = []
    for (const piece of this.added.split(text)) {
      if (typeof piece !== 'string') {
        ids.push(piece.id)
        continue
      }
      for (const word of this.parts.normalize(piece).split(/\s+/u))
        if (word) for (const id of this.model.encode(blank + word)) ids.push(id)
    }
    return ids
  }

  /** `… </s> <pad>…`, with a mask that hides the padding. */
  encode(text: string, options: EncodeOptions = {}): Encoding {
    const { padding = true, truncation = true, maxLength = this.modelMaxLength } = options
    if (!Number.isInteger(maxLength) || maxLength < 2)
      throw invalidArgument('maxLength', 'an integer of at least 2', maxLength)
    const tokens = this.tokenize(text)
    const end = this.parts.endMark ? [this.eosTokenId] : []
    const kept = truncation ? tokens.slice(0, maxLength - end.length) : tokens
    const ids = [...kept, ...end]
    const mask = ids.map(() => 1)
    if (padding)
      while (ids.length < maxLength) {
        ids.push(this.padTokenId)
        mask.push(0)
      }
    return { ids, mask, truncated: kept.length < tokens.length ? this.decode(tokens.slice(kept.length)) : null }
  }

  decode(ids: Iterable<number>, options: { skipSpecialTokens?: boolean } = {}): string {
    let text = ''
    for (const id of ids) {
      const name = this.parts.addedTokens.find((token) => token.id === id)?.content ?? this.parts.pieces[id]?.text
      if (name === undefined) throw invalidArgument('ids', `token ids of 0..${this.vocabSize - 1}`, id)
      if (!options.skipSpecialTokens || !this.addedIds.has(id)) text += name
    }
    return text.replaceAll(blank, ' ').trim()
  }
}
