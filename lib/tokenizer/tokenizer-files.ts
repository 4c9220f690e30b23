/** Reads a tokenizer folder as transformers' CLIPTokenizer(Fast).from_pretrained does. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { DiffusionError, modelFormat, unsupported } from '../errors.js'
import type { AddedToken } from './added-tokens.js'
import { endOfWord } from './bpe.js'
import type { TokenizerParts } from './clip-tokenizer.js'

export type Json = Record<string, unknown>

export const isObject = (value: unknown): value is Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

export const readText = (path: string): string => {
  try {
    return readFileSync(path, 'utf8')
  } catch (cause) {
    throw new DiffusionError('ERR_ND_MODEL_NOT_FOUND', `Cannot read ${path}: ${(cause as Error).message}`, { cause })
  }
}

export const readJson = (path: string): Json => {
  let value: unknown
  try {
    value = JSON.parse(readText(path))
  } catch (cause) {
    if (cause instanceof DiffusionError) throw cause
    throw new DiffusionError('ERR_ND_MODEL_FORMAT', `Expected JSON in ${path}: ${(cause as Error).message}`, { cause })
  }
  if (!isObject(value)) throw modelFormat(`Expected an object in ${path}`)
  return value
}

const readJsonIfThere = (path: string): Json => (existsSync(path) ? readJson(path) : {})

/** merges.txt: one pair a line, in order of rank, after a `#version` line. `joined`: what each pair becomes. */
export const parseMerges = (text: string, path = 'merges.txt'): { ranks: Map<string, number>; joined: string[] } => {
  const ranks = new Map<string, number>()
  const joined: string[] = []
  const lines = text.split('\n')
  for (let i = 0; i < lines.length; i++) {
    const line = lines[i]!.endsWith('\r') ? lines[i]!.slice(0, -1) : lines[i]!
    if (line === '' || (i === 0 && line.startsWith('#version'))) continue
    const space = line.indexOf(' ')
    if (space < 1 || space === line.length - 1 || line.includes(' ', space + 1))
      throw modelFormat(
        `Expected two symbols and one space in line ${i + 1} of ${path} but found ${JSON.stringify(line)}`
      )
    ranks.set(line, ranks.size)
    joined.push(line.slice(0, space) + line.slice(space + 1))
  }
  return { ranks, joined }
}

export const parseVocabulary = (json: unknown, path: string): Map<string, number> => {
  if (!isObject(json)) throw modelFormat(`Expected a vocabulary (token: id) in ${path}`)
  const vocabulary = new Map<string, number>()
  for (const [token, id] of Object.entries(json)) {
    if (!Number.isInteger(id) || (id as number) < 0 || (id as number) > 0x7fffffff)
      throw modelFormat(
        `Expected a whole number as the id of ${JSON.stringify(token)} in ${path} but found ${String(id)}`
      )
    vocabulary.set(token, id as number)
  }
  if (vocabulary.size === 0) throw modelFormat(`Expected a vocabulary (token: id) in ${path} but it is empty`)
  return vocabulary
}

interface Model {
  vocabulary: Map<string, number>
  ranks: Map<string, number>
  addedTokens: AddedToken[]
}

export const addedToken = (json: Json, id: number, path: string): AddedToken => {
  if (typeof json.content !== 'string' || json.content === '')
    throw modelFormat(`Expected a token's "content" in ${path}`)
  return {
    content: json.content,
    id,
    normalized: json.normalized === undefined ? json.special !== true : json.normalized === true,
    leftStrip: json.lstrip === true,
    rightStrip: json.rstrip === true,
    singleWord: json.single_word === true
  }
}

const readVocabAndMerges = (folder: string): Model => {
  const vocabPath = join(folder, 'vocab.json')
  const mergesPath = join(folder, 'merges.txt')
  const vocabulary = parseVocabulary(readJson(vocabPath), vocabPath)
  const { ranks, joined } = parseMerges(readText(mergesPath), mergesPath)
  const missing = joined.find((token) => !vocabulary.has(token))
  if (missing !== undefined)
    throw modelFormat(`${mergesPath} makes ${JSON.stringify(missing)}, which ${vocabPath} lacks`)
  return { vocabulary, ranks, addedTokens: [] }
}

/** A tokenizer.json's added_tokens. */
export const readAddedTokens = (json: Json, path: string): AddedToken[] =>
  (Array.isArray(json.added_tokens) ? json.added_tokens : []).map((token: unknown) => {
    if (!isObject(token) || !Number.isInteger(token.id)) throw modelFormat(`Expected added_tokens with ids in ${path}`)
    return addedToken(token, token.id as number, path)
  })

/** The types of a tokenizer.json's component, sequences flattened. */
const componentTypes = (component: unknown): string[] => {
  if (!isObject(component)) return []
  const parts = component.normalizers ?? component.pretokenizers
  return Array.isArray(parts) ? parts.flatMap(componentTypes) : [String(component.type)]
}

const readTokenizerJson = (path: string): Model => {
  const json = readJson(path)
  const model = json.model
  if (!isObject(model)) throw modelFormat(`Expected "model" in ${path}`)
  const kind = [
    model.type ?? 'BPE',
    model.end_of_word_suffix,
    ...componentTypes(json.normalizer),
    ...componentTypes(json.pre_tokenizer)
  ]
  const expected = ['BPE', endOfWord, 'NFC', 'Replace', 'Lowercase', 'Split', 'ByteLevel']
  if (kind.join() !== expected.join())
    throw unsupported(`Expected CLIP's tokenizer (${expected.join(', ')}) in ${path} but received ${kind.join(', ')}`)
  const vocabulary = parseVocabulary(model.vocab, path)
  if (!Array.isArray(model.merges)) throw modelFormat(`Expected an array "merges" in ${path}`)
  const lines = model.merges.map((merge: unknown) => (Array.isArray(merge) ? merge.join(' ') : String(merge)))
  const { ranks, joined } = parseMerges(lines.join('\n'), path)
  const missing = joined.find((token) => !vocabulary.has(token))
  if (missing !== undefined)
    throw modelFormat(`${path}: a merge makes ${JSON.stringify(missing)}, which the vocabulary lacks`)
  return { vocabulary, ranks, addedTokens: readAddedTokens(json, path) }
}

/** What tokenizer_config.json, special_tokens_map.json and added_tokens.json add to a vocabulary. */
export interface TokenizerSettings<Name extends string> {
  /** tokenizer_config.json as it is. */
  readonly config: Json
  readonly addedTokens: readonly AddedToken[]
  /** The special tokens that were asked for. */
  readonly special: Readonly<Record<Name, string>>
  /** model_max_length; undefined where there is none, or no limit: transformers writes 1e30 for that. */
  readonly maxLength: number | undefined
}

/**
 * @param known tokens that the model's own file adds
 * @param fallbacks the special tokens to read, each with what it is where no file says
 * @throws DiffusionError ERR_ND_MODEL_FORMAT, naming the file
 */
export const readSettings = <Name extends string>(
  folder: string,
  vocabulary: ReadonlyMap<string, number>,
  known: readonly AddedToken[],
  fallbacks: Readonly<Record<Name, string>>
): TokenizerSettings<Name> => {
  const configPath = join(folder, 'tokenizer_config.json')
  const mapPath = join(folder, 'special_tokens_map.json')
  const config = readJsonIfThere(configPath)
  const decoder = config.added_tokens_decoder

  // Later entries win over earlier ones of the same content.
  const added = new Map(known.map((token) => [token.content, token]))
  let settings: Json = config
  if (isObject(decoder)) {
    for (const [id, token] of Object.entries(decoder)) {
      if (!isObject(token) || !/^\d+$/.test(id))
        throw modelFormat(`Expected id: token in added_tokens_decoder of ${configPath}`)
      const entry = addedToken(token, Number(id), configPath)
      added.set(entry.content, entry)
    }
  } else {
    // Older folders: the map overrides the configuration (SD 2's pad token "!" is only there).
    settings = { ...config, ...readJsonIfThere(mapPath) }
    for (const [content, id] of Object.entries(readJsonIfThere(join(folder, 'added_tokens.json')))) {
      if (!Number.isInteger(id)) throw modelFormat(`Expected token: id in ${join(folder, 'added_tokens.json')}`)
      if (!added.has(content)) added.set(content, addedToken({ content }, id as number, folder))
    }
  }

  const special = {} as Record<Name, string>
  for (const [key, fallback] of Object.entries(fallbacks) as [Name, string][]) {
    const value = settings[key] ?? fallback
    const token: Json = isObject(value) ? value : { content: value, special: true, normalized: value === fallback }
    const content = token.content
    if (typeof content !== 'string') throw modelFormat(`Expected a token for ${key} in ${configPath} or ${mapPath}`)
    const id = added.get(content)?.id ?? vocabulary.get(content)
    if (id === undefined) throw modelFormat(`${key} ${JSON.stringify(content)} is not in the vocabulary of ${folder}`)
    if (!added.has(content)) added.set(content, addedToken(token, id, folder))
    special[key] = content
  }

  const limit = config.model_max_length ?? 1e30
  if (typeof limit !== 'number' || !(limit >= 2))
    throw modelFormat(`Expected a number of at least 2 for model_max_length in ${configPath}`)
  return {
    config,
    addedTokens: [...added.values()],
    special,
    maxLength: limit > 1e6 ? undefined : Math.floor(limit)
  }
}

/** See ClipTokenizer.fromFolder. */
export const readTokenizerFolder = (folder: string): TokenizerParts => {
  const has = (name: string): boolean => existsSync(join(folder, name))
  if (!existsSync(folder)) throw new DiffusionError('ERR_ND_MODEL_NOT_FOUND', `There is no tokenizer folder ${folder}`)
  const split = has('vocab.json') && has('merges.txt')
  if (!split && !has('tokenizer.json'))
    throw new DiffusionError(
      'ERR_ND_MODEL_NOT_FOUND',
      `Expected vocab.json and merges.txt, or tokenizer.json, in ${folder}: download the model's tokenizer folder whole`
    )
  const model = split ? readVocabAndMerges(folder) : readTokenizerJson(join(folder, 'tokenizer.json'))
  const { addedTokens, special, maxLength } = readSettings(folder, model.vocabulary, model.addedTokens, {
    bos_token: '<|startoftext|>',
    eos_token: '<|endoftext|>',
    unk_token: '<|endoftext|>',
    pad_token: '<|endoftext|>'
  })
  return {
    vocabulary: model.vocabulary,
    ranks: model.ranks,
    addedTokens,
    bosToken: special.bos_token,
    eosToken: special.eos_token,
    unknownToken: special.unk_token,
    padToken: special.pad_token,
    modelMaxLength: maxLength ?? 77 // the positions of CLIP's text models
  }
}
