/** Reads a tokenizer folder as transformers' T5Tokenizer(Fast).from_pretrained does. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { DiffusionError, modelFormat, unsupported } from '../errors.js'
import type { AddedToken } from './added-tokens.js'
import { CharMap } from './char-map.js'
import type { T5TokenizerParts } from './t5-tokenizer.js'
import { isObject, readAddedTokens, readJson, readSettings, type Json } from './tokenizer-files.js'
import type { Piece } from './unigram.js'

interface Model {
  readonly pieces: readonly Piece[]
  readonly unknownId: number
  readonly addedTokens: readonly AddedToken[]
  readonly normalize: (text: string) => string
  readonly endMark: boolean
}

const charMap = (bytes: Uint8Array, path: string): ((text: string) => string) => {
  if (bytes.length === 0) return (text) => text
  try {
    const map = new CharMap(bytes)
    return (text) => map.normalize(text)
  } catch (cause) {
    throw modelFormat(`${path}: expected a compiled character map (${(cause as Error).message})`)
  }
}

const unicodeForms = ['NFC', 'NFD', 'NFKC', 'NFKD']

/** White space is taken off and joined by every T5 tokenizer here, so normalisers that do that change nothing. */
const normalizerOf = (json: unknown, path: string): ((text: string) => string) => {
  if (json === null || json === undefined) return (text) => text
  if (!isObject(json)) throw modelFormat(`${path}: expected an object for normalizer`)
  const type = String(json.type)
  if (type === 'Sequence' && Array.isArray(json.normalizers)) {
    const steps = json.normalizers.map((step) => normalizerOf(step, path))
    return (text) => steps.reduce((t, step) => step(t), text)
  }
  if (unicodeForms.includes(type)) return (text) => text.normalize(type)
  if (type === 'Precompiled') return charMap(Buffer.from(String(json.precompiled_charsmap ?? ''), 'base64'), path)
  const spaces = isObject(json.pattern) && json.pattern.Regex === ' {2,}'
  if (type === 'Strip' || (type === 'Replace' && spaces)) return (text) => text
  throw unsupported(
    `${path}: normalizer ${type} is not supported, only ${unicodeForms.join(', ')}, Precompiled, Strip and a Replace of spaces`
  )
}

const readTokenizerJson = (path: string): Model => {
  const json = readJson(path)
  const { model } = json
  const split = isObject(json.pre_tokenizer) ? json.pre_tokenizer : {}
  const steps: unknown[] = Array.isArray(split.pretokenizers) ? split.pretokenizers : [split]
  const types = [isObject(model) ? model.type : undefined, ...steps.map((s) => (isObject(s) ? s.type : undefined))]
  const metaspace = steps.at(-1) as Json
  const known = types.join() === 'Unigram,Metaspace' || types.join() === 'Unigram,WhitespaceSplit,Metaspace'
  if (!isObject(model) || !known)
    throw unsupported(`Expected T5's tokenizer (Unigram, Metaspace) in ${path} but received ${types.join(', ')}`)
  if (
    (metaspace.replacement ?? '\u2581') !== '\u2581' ||
    !['always', undefined].includes(metaspace.prepend_scheme as string)
  )
    throw unsupported(`${path}: expected Metaspace with "\u2581" before every text`)
  if (model.byte_fallback === true) throw unsupported(`${path}: byte_fallback is not supported`)
  if (!Array.isArray(model.vocab) || !Number.isInteger(model.unk_id))
    throw modelFormat(`Expected a vocabulary of [piece, score] and unk_id in ${path}`)
  const pieces = model.vocab.map((entry: unknown): Piece => {
    if (!Array.isArray(entry) || typeof entry[0] !== 'string' || typeof entry[1] !== 'number')
      throw modelFormat(`Expected [piece, score] in the vocabulary of ${path}`)
    return { text: entry[0], score: entry[1] }
  })
  const post = json.post_processor
  if (post !== null && post !== undefined && !(isObject(post) && post.type === 'TemplateProcessing'))
    throw unsupported(`${path}: expected no post_processor or TemplateProcessing`)
  return {
    pieces,
    unknownId: model.unk_id as number,
    addedTokens: readAddedTokens(json, path),
    normalize: normalizerOf(json.normalizer, path),
    endMark: isObject(post)
  }
}

/** The fields of a protocol buffer message, as [number, value]; groups do not occur. */
const fields = function* (bytes: Buffer): Generator<[number: number, value: number | Buffer]> {
  let at = 0
  const varint = (): number => {
    let value = 0
    for (let shift = 1; ; shift *= 128) {
      const byte = bytes[at++]
      if (byte === undefined) throw new RangeError('the message ends early')
      value += (byte & 127) * shift
      if (byte < 128) return value
    }
  }
  while (at < bytes.length) {
    const key = varint()
    const type = key % 8
    if (type === 0) yield [Math.floor(key / 8), varint()]
    else {
      const length = type === 2 ? varint() : type === 5 ? 4 : 8
      if (at + length > bytes.length || (type !== 1 && type !== 2 && type !== 5)) throw new RangeError('a broken field')
      yield [Math.floor(key / 8), bytes.subarray(at, at + length)]
      at += length
    }
  }
}

const unknownPiece = 2

/** sentencepiece_model.proto's ModelProto: pieces (1), trainer (2: the kind of model is 3), normaliser (3: the map is 2). */
const readSentencePiece = (path: string): Model => {
  const pieces: Piece[] = []
  let unknownId = -1
  let kind = 1
  let map: Buffer = Buffer.alloc(0)
  try {
    for (const [field, value] of fields(readFileSync(path))) {
      if (!Buffer.isBuffer(value)) continue
      if (field === 1) {
        let text = ''
        let score = 0
        for (const [f, v] of fields(value)) {
          if (f === 1) text = (v as Buffer).toString('utf8')
          if (f === 2) score = (v as Buffer).readFloatLE(0)
          if (f === 3 && v === unknownPiece) unknownId = pieces.length
        }
        pieces.push({ text, score })
      }
      if (field === 2) for (const [f, v] of fields(value)) if (f === 3) kind = v as number
      if (field === 3) for (const [f, v] of fields(value)) if (f === 2) map = v as Buffer
    }
  } catch (cause) {
    throw modelFormat(`${path}: expected a SentencePiece model (${(cause as Error).message})`)
  }
  if (kind !== 1) throw unsupported(`${path}: only SentencePiece's unigram models are supported`)
  if (pieces.length === 0 || unknownId < 0) throw modelFormat(`${path}: expected pieces, one of them for unknown text`)
  return { pieces, unknownId, addedTokens: [], normalize: charMap(map, path), endMark: true }
}

/** See T5Tokenizer.fromFolder. */
export const readT5Folder = (folder: string, length: number | undefined): T5TokenizerParts => {
  const [json, spiece] = ['tokenizer.json', 'spiece.model'].map((name) => join(folder, name)) as [string, string]
  if (!existsSync(json) && !existsSync(spiece))
    throw new DiffusionError(
      'ERR_ND_MODEL_NOT_FOUND',
      `Expected tokenizer.json or spiece.model in ${folder}: download the model's tokenizer folder whole`
    )
  const model = existsSync(json) ? readTokenizerJson(json) : readSentencePiece(spiece)
  const vocabulary = new Map(model.pieces.map(({ text }, id) => [text, id]))
  const settings = readSettings(folder, vocabulary, model.addedTokens, {
    eos_token: '</s>',
    pad_token: '<pad>',
    unk_token: '<unk>'
  })
  return {
    ...model,
    addedTokens: settings.addedTokens,
    eosToken: settings.special.eos_token,
    padToken: settings.special.pad_token,
    modelMaxLength: length ?? settings.maxLength ?? 512
  }
}
