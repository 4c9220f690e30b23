import { readFileSync } from 'node:fs'
import { invalidArgument } from '../errors.js'
import { type AddedToken, AddedTokenSplitter } from './added-tokens.js'
import { BytePairEncoder, endOfWord } from './bpe.js'
import { fromSymbols, toSymbols, vocabularySymbols } from './byte-symbols.js'
import { parseMerges, readTokenizerFolder } from './tokenizer-files.js'
import type { EncodeOptions, Encoding, Tokenizer } from './tokenizer.js'

/** What a tokenizer is made of; tokenizer-files.ts reads it from a folder. */
export interface TokenizerParts {
  readonly vocabulary: ReadonlyMap<string, number>
  readonly ranks: ReadonlyMap<string, number>
  readonly addedTokens: readonly AddedToken[]
  readonly bosToken: string
  readonly eosToken: string
  readonly padToken: string
  readonly unknownToken: string
  readonly modelMaxLength: number
}

// Unicode's White_Space, which is what the reference's \s means: JavaScript's lacks U+0085 and has U+FEFF.
const whiteSpace = '\\t-\\r \\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000'
const whiteSpaceRun = new RegExp(`[${whiteSpace}]+`, 'gu')
// What Python's strip() takes off: the four information separators as well.
const outerSpace = new RegExp(`^[${whiteSpace}\\x1c-\\x1f]+|[${whiteSpace}\\x1c-\\x1f]+$`, 'gu')
const words = new RegExp(`'s|'t|'re|'ve|'m|'ll|'d|\\p{L}+|\\p{N}|[^${whiteSpace}\\p{L}\\p{N}]+`, 'gu')

/** Composed (NFC), white space as single spaces, lower case letter by letter (so Σ is σ also at a word's end). */
const normalize = (text: string): string => {
  const spaced = text.normalize('NFC').replace(whiteSpaceRun, ' ')
  let lower = ''
  for (const character of spaced) lower += character.toLowerCase()
  return lower
}

/**
 * CLIP's tokenizer (Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021) with
 * the ids that transformers' CLIPTokenizerFast gives: NFC, lower case, a split into contractions, runs of letters,
 * single digits and runs of anything else, and byte-level BPE with `</w>` at the end of words.
 *
 * Written here although @huggingface/tokenizers (0.2.0) passes tokens.json as well: that needs 250–350 ms until the first
 * ids of CLIP's vocabulary, and a program has two seconds from its start to its first picture; this needs 95
 * (2026-11-23, two cores of a Zen 3).
 */
export class ClipTokenizer implements Tokenizer {
  readonly vocabSize: number
  readonly bosTokenId: number
  readonly eosTokenId: number
  readonly padTokenId: number
  readonly modelMaxLength: number
  private readonly encoder: BytePairEncoder
  private readonly vocabulary: ReadonlyMap<string, number>
  private readonly addedTokens: readonly AddedToken[]
  private nameById: ReadonlyMap<number, string> | undefined
  private readonly specialIds: ReadonlySet<number>
  private readonly addedIds: ReadonlySet<number>
  private readonly exact: AddedTokenSplitter
  private readonly normalized: AddedTokenSplitter

  /** @param encoder of these parts, where there is one already */
  constructor(
    private readonly parts: TokenizerParts,
    encoder?: BytePairEncoder
  ) {
    const added = new Map(parts.addedTokens.map((token) => [token.content, token.id]))
    const idOf = (token: string): number => {
      const id = added.get(token) ?? parts.vocabulary.get(token)
      if (id === undefined)
        throw invalidArgument('a special token of the tokenizer', 'a token of the vocabulary', token)
      return id
    }
    this.bosTokenId = idOf(parts.bosToken)
    this.eosTokenId = idOf(parts.eosToken)
    this.padTokenId = idOf(parts.padToken)
    this.modelMaxLength = parts.modelMaxLength
    this.vocabulary = parts.vocabulary
    this.addedTokens = parts.addedTokens
    this.vocabSize = parts.vocabulary.size + parts.addedTokens.filter((t) => !parts.vocabulary.has(t.content)).length
    this.specialIds = new Set(parts.addedTokens.filter((token) => token.special !== false).map((token) => token.id))
    this.addedIds = new Set(parts.addedTokens.map((token) => token.id))
    this.encoder = encoder ?? new BytePairEncoder(parts.vocabulary, parts.ranks, idOf(parts.unknownToken))
    this.exact = new AddedTokenSplitter(parts.addedTokens.filter((token) => !token.normalized))
    this.normalized = new AddedTokenSplitter(
      parts.addedTokens.filter((token) => token.normalized),
      (token) => normalize(token.content)
    )
  }

  /**
   * CLIP's own vocabulary of 49,408 tokens, read on first use.
   * @param padToken "!" (id 0) for the OpenCLIP encoders of SD2 and SDXL; in a text it then means that token as well, as
   *   transformers has it for every special token
   */
  static clip(padToken: '<|endoftext|>' | '!' = '<|endoftext|>'): ClipTokenizer {
    let tokenizer = builtIn.get(padToken)
    if (!tokenizer) builtIn.set(padToken, (tokenizer = new ClipTokenizer(clipParts(padToken))))
    return tokenizer
  }

  /**
   * A folder with vocab.json and merges.txt, or with tokenizer.json; tokenizer_config.json, special_tokens_map.json and
   * added_tokens.json are honoured.
   * @throws DiffusionError ERR_ND_MODEL_NOT_FOUND, ERR_ND_MODEL_FORMAT, ERR_ND_UNSUPPORTED (not CLIP's kind)
   */
  static fromFolder(path: string): ClipTokenizer {
    return new ClipTokenizer(readTokenizerFolder(path))
  }

  /** The same tokenizer with more added tokens: those of textual inversions. */
  withTokens(tokens: readonly AddedToken[]): ClipTokenizer {
    return new ClipTokenizer({ ...this.parts, addedTokens: [...this.parts.addedTokens, ...tokens] }, this.encoder)
  }

  /** Whether this is the name of a token: of the vocabulary, or an added one in the form in which it is looked for. */
  has(token: string): boolean {
    const same = (other: AddedToken): boolean =>
      other.content === token || (other.normalized && normalize(other.content) === normalize(token))
    return this.vocabulary.has(token) || this.addedTokens.some(same)
  }

  /** Ids of the text alone: no marks, no padding, nothing cut. */
  tokenize(text: string): number[] {
    return this.tokenGroups(text).flat()
  }

  /** The same in groups that belong together: one id, or those of a textual inversion of several vectors. */
  tokenGroups(text: string): number[][] {
    if (typeof text !== 'string') throw invalidArgument('text', 'a string', text)
    const groups: number[][] = []
    const add = (token: AddedToken): void => void groups.push([token.id, ...(token.following ?? [])])
    for (const piece of this.exact.split(text)) {
      if (typeof piece !== 'string') {
        add(piece)
        continue
      }
      for (const part of this.normalized.split(normalize(piece))) {
        if (typeof part !== 'string') add(part)
        else
          for (const [word] of part.matchAll(words))
            for (const id of this.encoder.encode(toSymbols(word))) groups.push([id])
      }
    }
    return groups
  }

  /** Ids between the begin and end marks, padded and cut to `maxLength` as the options say. */
  encode(text: string, options: EncodeOptions = {}): Encoding {
    const { padding = true, truncation = true, maxLength = this.modelMaxLength } = options
    if (!Number.isInteger(maxLength) || maxLength < 2)
      throw invalidArgument('maxLength', 'an integer of at least 2', maxLength)
    const tokens = this.tokenize(text)
    const kept = truncation ? tokens.slice(0, maxLength - 2) : tokens
    const ids = [this.bosTokenId, ...kept, this.eosTokenId]
    if (padding) while (ids.length < maxLength) ids.push(this.padTokenId)
    return { ids, truncated: kept.length < tokens.length ? this.decode(tokens.slice(kept.length)) : null }
  }

  /** The text of ids, words one space apart. Begin, end and other added tokens are left out with `skipSpecialTokens`. */
  decode(ids: Iterable<number>, options: { skipSpecialTokens?: boolean } = {}): string {
    let text = ''
    let run = ''
    const flush = (): void => {
      text += fromSymbols(run).replaceAll(endOfWord, ' ')
      run = ''
    }
    for (const id of ids) {
      const name = this.names.get(id)
      if (name === undefined) throw invalidArgument('ids', `token ids of 0..${this.vocabSize - 1}`, id)
      if (!this.addedIds.has(id)) run += name
      else if (!this.specialIds.has(id)) {
        flush()
        text += name + ' '
      } else if (!options.skipSpecialTokens) {
        flush()
        text += name
      }
    }
    flush()
    return text.replace(outerSpace, '')
  }

  /** Made on first use: only decode() needs it. */
  private get names(): ReadonlyMap<number, string> {
    if (!this.nameById) {
      const names = new Map<number, string>()
      for (const [token, id] of this.vocabulary) names.set(id, token)
      for (const token of this.addedTokens) names.set(token.id, token.content)
      this.nameById = names
    }
    return this.nameById
  }
}

const builtIn = new Map<string, ClipTokenizer>()

const clipParts = (padToken: string): TokenizerParts => {
  const { ranks, joined } = parseMerges(readFileSync(new URL('clip-merges.txt', import.meta.url), 'utf8'))
  const vocabulary = new Map<string, number>()
  for (const symbol of vocabularySymbols) vocabulary.set(symbol, vocabulary.size)
  for (const symbol of vocabularySymbols) vocabulary.set(symbol + endOfWord, vocabulary.size)
  for (const token of joined) vocabulary.set(token, vocabulary.size)
  const special = (content: string): AddedToken => {
    const id = vocabulary.size
    vocabulary.set(content, id)
    return { content, id, normalized: true, leftStrip: false, rightStrip: false, singleWord: false }
  }
  const addedTokens = [special('<|startoftext|>'), special('<|endoftext|>')]
  if (padToken === '!') {
    const id = vocabulary.get(padToken)!
    addedTokens.push({
      content: padToken,
      id,
      normalized: false,
      leftStrip: false,
      rightStrip: false,
      singleWord: false
    })
  }
  return {
    vocabulary,
    ranks,
    addedTokens,
    bosToken: '<|startoftext|>',
    eosToken: '<|endoftext|>',
    padToken,
    unknownToken: '<|endoftext|>',
    modelMaxLength: 77
  }
}
