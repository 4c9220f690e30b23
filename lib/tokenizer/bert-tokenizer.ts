import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { DiffusionError, invalidArgument, modelFormat, unsupported } from '../errors.js'
import { type AddedToken, AddedTokenSplitter } from './added-tokens.js'
import type { EncodeOptions, Encoding, Tokenizer } from './tokenizer.js'
import { isObject, parseVocabulary, readAddedTokens, readJson, readSettings, readText } from './tokenizer-files.js'

/** How a text becomes words: the fields of transformers' BertTokenizer. */
export interface BertWordOptions {
  readonly lowerCase: boolean
  /** Also where letters keep their case. */
  readonly stripAccents: boolean
  /** Every Chinese character is a word. */
  readonly splitChinese: boolean
}

/** What a BERT tokenizer is made of; fromFolder reads it. */
export interface BertTokenizerParts extends BertWordOptions {
  readonly vocabulary: ReadonlyMap<string, number>
  readonly addedTokens: readonly AddedToken[]
  readonly clsToken: string
  readonly sepToken: string
  readonly padToken: string
  readonly unknownToken: string
  readonly modelMaxLength: number
}

/** Longer words are unknown. */
const longestWord = 100
const continuation = '##'

// U+0000, U+FFFD and what Unicode counts as "other" (controls, formats, unassigned), but for tab and line ends.
const dropped = /(?![\t\n\r])[\p{C}\ufffd]/gu
// str.split() of Python, over what is left.
const space = /[\t\n\r\p{Zs}\u2028\u2029]+/u
const chinese =
  /[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u{20000}-\u{2a6df}\u{2a700}-\u{2b73f}\u{2b740}-\u{2b81f}\u{2b820}-\u{2ceaf}\u{2f800}-\u{2fa1f}]/gu
// All of ASCII that is neither letter, digit nor space counts, symbols such as $ and ^ too.
const punctuation = /[!-/:-@[-`{-~\p{P}]/gu

/** transformers' BasicTokenizer (Devlin et al. 2018): words and single punctuation marks. */
export const bertWords = (text: string, options: BertWordOptions): string[] => {
  let clean = text.replace(dropped, '').normalize('NFC')
  if (options.splitChinese) clean = clean.replace(chinese, ' $& ')
  if (options.lowerCase) {
    // Letter by letter, so that Σ is σ also at a word's end.
    let lower = ''
    for (const character of clean) lower += character.toLowerCase()
    clean = lower
  }
  if (options.stripAccents) clean = clean.normalize('NFD').replace(/\p{Mn}/gu, '')
  return clean.replace(punctuation, ' $& ').split(space).filter(Boolean)
}

/**
 * BERT's tokenizer (Devlin et al., "BERT", 2018) with the ids that transformers' BertTokenizer gives: words, then WordPiece:
 * the longest known beginning, then the longest known `##…` again and again, or one unknown token for the whole word.
 */
export class BertTokenizer implements Tokenizer {
  readonly vocabSize: number
  /** `[CLS]` and `[SEP]`. */
  readonly bosTokenId: number
  readonly eosTokenId: number
  readonly padTokenId: number
  readonly modelMaxLength: number
  private readonly unknownId: number
  private readonly added: AddedTokenSplitter
  private readonly addedIds: ReadonlySet<number>
  private nameById: ReadonlyMap<number, string> | undefined

  constructor(private readonly parts: BertTokenizerParts) {
    const added = new Map(parts.addedTokens.map((token) => [token.content, token.id]))
    const idOf = (token: string): number => {
      const id = added.get(token) ?? parts.vocabulary.get(token)
      if (id === undefined)
        throw invalidArgument('a special token of the tokenizer', 'a token of the vocabulary', token)
      return id
    }
    this.bosTokenId = idOf(parts.clsToken)
    this.eosTokenId = idOf(parts.sepToken)
    this.padTokenId = idOf(parts.padToken)
    this.unknownId = idOf(parts.unknownToken)
    this.modelMaxLength = parts.modelMaxLength
    this.vocabSize = parts.vocabulary.size + parts.addedTokens.filter((t) => !parts.vocabulary.has(t.content)).length
    this.added = new AddedTokenSplitter(parts.addedTokens)
    this.addedIds = new Set(added.values())
  }

  /**
   * A folder with vocab.txt, or with tokenizer.json; tokenizer_config.json, special_tokens_map.json and added_tokens.json are
   * honoured.
   * @param length tokens that the pipeline reads; default the folder's model_max_length, else 512
   * @throws DiffusionError ERR_ND_MODEL_NOT_FOUND, ERR_ND_MODEL_FORMAT, ERR_ND_UNSUPPORTED (not BERT's kind)
   */
  static fromFolder(path: string, length?: number): BertTokenizer {
    return new BertTokenizer(readBertFolder(path, length))
  }

  tokenize(text: string): number[] {
    if (typeof text !== 'string') throw invalidArgument('text', 'a string', text)
    const ids: number[] = []
    for (const piece of this.added.split(text)) {
      if (typeof piece !== 'string') ids.push(piece.id)
      else for (const word of bertWords(piece, this.parts)) ids.push(...this.pieces(word))
    }
    return ids
  }

  /** `[CLS] … [SEP] [PAD]…` */
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

  /** Words one space apart. */
  decode(ids: Iterable<number>, options: { skipSpecialTokens?: boolean } = {}): string {
    let text = ''
    for (const id of ids) {
      const name = this.names.get(id)
      if (name === undefined) throw invalidArgument('ids', `token ids of 0..${this.vocabSize - 1}`, id)
      if (options.skipSpecialTokens && this.addedIds.has(id)) continue
      text += name.startsWith(continuation) ? name.slice(continuation.length) : ` ${name}`
    }
    return text.trim()
  }

  /** Greedy, longest first. */
  private pieces(word: string): number[] {
    const letters = [...word]
    if (letters.length > longestWord) return [this.unknownId]
    const ids: number[] = []
    for (let from = 0; from < letters.length;) {
      let to = letters.length
      let id: number | undefined
      for (; to > from && id === undefined; to--)
        id = this.parts.vocabulary.get((from > 0 ? continuation : '') + letters.slice(from, to).join(''))
      if (id === undefined) return [this.unknownId]
      ids.push(id)
      from = to + 1
    }
    return ids
  }

  /** Made on first use: only decode() needs it. */
  private get names(): ReadonlyMap<number, string> {
    this.nameById ??= new Map([
      ...[...this.parts.vocabulary].map(([token, id]) => [id, token] as const),
      ...this.parts.addedTokens.map(({ id, content }) => [id, content] as const)
    ])
    return this.nameById
  }
}

interface BertModel {
  readonly vocabulary: ReadonlyMap<string, number>
  readonly addedTokens: readonly AddedToken[]
  /** What tokenizer.json says; vocab.txt says nothing. */
  readonly words: Partial<BertWordOptions>
}

/** One token a line, its number the id. */
const readVocabText = (path: string): BertModel => {
  const lines = readText(path).split('\n')
  if (lines.at(-1) === '') lines.pop()
  const vocabulary = new Map(lines.map((line, id) => [line.replace(/\r$/, ''), id]))
  if (vocabulary.size === 0) throw modelFormat(`Expected tokens in ${path} but it is empty`)
  return { vocabulary, addedTokens: [], words: {} }
}

const readTokenizerJson = (path: string): BertModel => {
  const json = readJson(path)
  const { model, normalizer, pre_tokenizer: words } = json
  const types = [model, normalizer, words].map((part) => (isObject(part) ? String(part.type) : 'nothing'))
  const expected = ['WordPiece', 'BertNormalizer', 'BertPreTokenizer']
  if (!isObject(model) || !isObject(normalizer) || types.join() !== expected.join())
    throw unsupported(`Expected BERT's tokenizer (${expected.join(', ')}) in ${path} but received ${types.join(', ')}`)
  for (const [part, field, only] of [
    [model, 'continuing_subword_prefix', continuation],
    [model, 'max_input_chars_per_word', longestWord],
    [normalizer, 'clean_text', true]
  ] as const)
    if ((part[field] ?? only) !== only)
      throw unsupported(`${path}: ${field} ${JSON.stringify(part[field])} is not supported, only ${only}`)
  const lowerCase = normalizer.lowercase !== false
  return {
    vocabulary: parseVocabulary(model.vocab, path),
    addedTokens: readAddedTokens(json, path),
    words: {
      lowerCase,
      stripAccents: typeof normalizer.strip_accents === 'boolean' ? normalizer.strip_accents : lowerCase,
      splitChinese: normalizer.handle_chinese_chars !== false
    }
  }
}

const readBertFolder = (folder: string, length: number | undefined): BertTokenizerParts => {
  const [text, json] = ['vocab.txt', 'tokenizer.json'].map((name) => join(folder, name)) as [string, string]
  if (!existsSync(text) && !existsSync(json))
    throw new DiffusionError(
      'ERR_ND_MODEL_NOT_FOUND',
      `Expected vocab.txt or tokenizer.json in ${folder}: download the model's tokenizer folder whole`
    )
  const model = existsSync(text) ? readVocabText(text) : readTokenizerJson(json)
  const settings = readSettings(folder, model.vocabulary, model.addedTokens, {
    cls_token: '[CLS]',
    sep_token: '[SEP]',
    pad_token: '[PAD]',
    unk_token: '[UNK]',
    mask_token: '[MASK]'
  })
  const { config, special } = settings
  const flag = (key: string, fallback: boolean): boolean => {
    const value = config[key] ?? fallback
    if (typeof value !== 'boolean')
      throw modelFormat(`Expected true or false for ${key} in ${join(folder, 'tokenizer_config.json')}`)
    return value
  }
  if (!flag('do_basic_tokenize', true)) throw unsupported(`${folder}: do_basic_tokenize false is not supported`)
  const lowerCase = flag('do_lower_case', model.words.lowerCase ?? true)
  return {
    vocabulary: model.vocabulary,
    addedTokens: settings.addedTokens,
    clsToken: special.cls_token,
    sepToken: special.sep_token,
    padToken: special.pad_token,
    unknownToken: special.unk_token,
    modelMaxLength: length ?? settings.maxLength ?? 512,
    lowerCase,
    stripAccents: flag('strip_accents', model.words.stripAccents ?? lowerCase),
    splitChinese: flag('tokenize_chinese_chars', model.words.splitChinese ?? true)
  }
}
