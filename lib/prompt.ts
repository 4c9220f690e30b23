/**
 * Prompts to token ids: diffusers' way (one sequence, cut at the model's length, with a warning), and, where it is asked
 * for, AUTOMATIC1111's: weights in brackets, BREAK, and prompts of any length in chunks of 75 tokens.
 */
import { invalidArgument, unsupported } from './errors.js'
import { ClipTokenizer } from './tokenizer/clip-tokenizer.js'
import type { Tokenizer } from './tokenizer/tokenizer.js'

export interface TokenizedPrompt {
  /** Token ids, [chunks, length] row-major: each chunk is `[bos, …, eos, pad…]`. */
  readonly ids: Int32Array
  /** Weight of each token's embedding, same shape; 1 for marks and padding. */
  readonly weights: Float32Array
  /** Same shape: 0 for padding that the text encoder must not see; undefined where it sees all. */
  readonly mask?: Uint8Array | undefined
  readonly chunks: number
  /** Tokens per chunk: the tokenizer's modelMaxLength, 77 for CLIP. */
  readonly length: number
  /** Whether any weight differs from 1. */
  readonly weighted: boolean
  /** What the user should hear about this prompt (text that was cut off), or null. */
  readonly warning: string | null
}

/** A run of text and its weight, or the end of a chunk. */
export type PromptPart = { readonly text: string; readonly weight: number } | 'BREAK'

const roundFactor = 1.1
const squareFactor = 1 / 1.1
/** How far back from a full chunk a comma may be for the chunk to end there. */
const commaReach = 20

const syntax = /\\[()[\]\\]|\\|\(|\[|:\s*([+-]?[.\d]+)\s*\)|\)|\]|[^\\()[\]:]+|:/gu
const breakWord = /(?<![\p{L}\p{N}_])BREAK(?![\p{L}\p{N}_])/gu

type Run = { text: string; weight: number } | 'BREAK'

/** Every run times the factor of each bracket before it, in one walk: there may be thousands of brackets. */
const multiplyUnclosed = (runs: readonly Run[], starts: readonly number[], factor: number): void => {
  let open = 0
  runs.forEach((run, i) => {
    while (open < starts.length && starts[open]! <= i) open++
    if (run === 'BREAK') return
    for (let k = 0; k < open && run.weight !== 0 && run.weight !== Infinity; k++) run.weight *= factor
  })
}

/**
 * AUTOMATIC1111's prompt syntax: `(a)` × 1.1, `[a]` ÷ 1.1, `(a:1.3)` × 1.3, nested ones multiply, `\(` `\)` `\[` `\]` `\\`
 * are the characters themselves, BREAK ends a chunk. Brackets that never close reach to the end; closing ones without
 * an opening one are text. (BREAK ends a chunk inside brackets too.)
 * @throws DiffusionError ERR_ND_INVALID_ARGUMENT for a weight such as `(a:1.2.3)`
 */
export const parsePromptWeights = (prompt: string): PromptPart[] => {
  const runs: Run[] = []
  const round: number[] = []
  const square: number[] = []
  const multiplyFrom = (start: number, factor: number): void => {
    for (const run of runs.slice(start)) if (run !== 'BREAK') run.weight *= factor
  }
  for (const match of prompt.matchAll(syntax)) {
    const text = match[0]
    const weight = match[1]
    if (text.startsWith('\\')) runs.push({ text: text.slice(1), weight: 1 })
    else if (text === '(') round.push(runs.length)
    else if (text === '[') square.push(runs.length)
    else if (weight !== undefined && round.length) {
      const factor = Number(weight)
      if (!Number.isFinite(factor)) throw invalidArgument('a prompt weight', 'a number', weight)
      multiplyFrom(round.pop()!, factor)
    } else if (text === ')' && round.length) multiplyFrom(round.pop()!, roundFactor)
    else if (text === ']' && square.length) multiplyFrom(square.pop()!, squareFactor)
    else {
      text.split(breakWord).forEach((part, i, { length }) => {
        if (i > 0) runs.push('BREAK')
        const left = i > 0 ? part.trimStart() : part
        runs.push({ text: i < length - 1 ? left.trimEnd() : left, weight: 1 })
      })
    }
  }
  multiplyUnclosed(runs, round, roundFactor)
  multiplyUnclosed(runs, square, squareFactor)

  // Words are split within a run, so neighbours of one weight must be tokenized as one text.
  const parts: Run[] = []
  for (const run of runs) {
    const last = parts.at(-1)
    if (run !== 'BREAK' && last !== undefined && last !== 'BREAK' && last.weight === run.weight) last.text += run.text
    else parts.push(run)
  }
  return parts.length ? parts : [{ text: '', weight: 1 }]
}

interface Chunk {
  tokens: number[]
  weights: number[]
}

const assemble = (tokenizer: ClipTokenizer, chunks: readonly Chunk[], warning: string | null): TokenizedPrompt => {
  const length = tokenizer.modelMaxLength
  const ids = new Int32Array(chunks.length * length).fill(tokenizer.padTokenId)
  const weights = new Float32Array(chunks.length * length).fill(1)
  chunks.forEach((chunk, i) => {
    ids.set([tokenizer.bosTokenId, ...chunk.tokens, tokenizer.eosTokenId], i * length)
    weights.set(chunk.weights, i * length + 1)
  })
  return { ids, weights, chunks: chunks.length, length, weighted: weights.some((w) => w !== 1), warning }
}

const plain = (tokenizer: Tokenizer, prompt: string): TokenizedPrompt => {
  const length = tokenizer.modelMaxLength
  const { ids, truncated, mask } = tokenizer.encode(prompt)
  const warning =
    truncated === null
      ? null
      : `The model reads ${length} tokens; this end of the prompt was left out: ${JSON.stringify(truncated)}. ` +
        (tokenizer instanceof ClipTokenizer
          ? 'Shorten it, or turn promptWeighting on, which takes prompts of any length'
          : 'Shorten it')
  return {
    ids: Int32Array.from(ids),
    weights: new Float32Array(length).fill(1),
    mask: mask && Uint8Array.from(mask),
    chunks: 1,
    length,
    weighted: false,
    warning
  }
}

const weighted = (tokenizer: ClipTokenizer, prompt: string): TokenizedPrompt => {
  const capacity = tokenizer.modelMaxLength - 2
  const comma = tokenizer.tokenize(',')[0]
  const chunks: Chunk[] = []
  let chunk: Chunk = { tokens: [], weights: [] }
  let lastComma = -1
  const close = (rest: Chunk = { tokens: [], weights: [] }): void => {
    chunks.push(chunk)
    chunk = rest
    lastComma = -1
  }
  for (const part of parsePromptWeights(prompt)) {
    if (part === 'BREAK') {
      close()
      continue
    }
    for (const group of tokenizer.tokenGroups(part.text)) {
      const { tokens, weights } = chunk
      if (group.length > 1) {
        // A textual inversion stays in one chunk where it fits into one.
        if (tokens.length + group.length > capacity) close()
        for (const token of group) {
          if (chunk.tokens.length === capacity) close()
          chunk.tokens.push(token)
          chunk.weights.push(part.weight)
        }
        continue
      }
      const token = group[0]!
      if (token === comma) lastComma = tokens.length
      else if (tokens.length === capacity && lastComma !== -1 && capacity - lastComma <= commaReach) {
        // What follows the last comma goes together into the next chunk.
        close({ tokens: tokens.splice(lastComma + 1), weights: weights.splice(lastComma + 1) })
      }
      if (chunk.tokens.length === capacity) close()
      chunk.tokens.push(token)
      chunk.weights.push(part.weight)
    }
  }
  if (chunk.tokens.length || chunks.length === 0) close()
  return assemble(tokenizer, chunks, null)
}

/** One prompt's tokens. `weights` (default false): AUTOMATIC1111's syntax and chunks instead of diffusers' cut. */
export const tokenizePrompt = (
  tokenizer: Tokenizer,
  prompt: string,
  options: { weights?: boolean } = {}
): TokenizedPrompt => {
  if (typeof prompt !== 'string') throw invalidArgument('prompt', 'a string', prompt)
  if (!options.weights) return plain(tokenizer, prompt)
  if (!(tokenizer instanceof ClipTokenizer))
    throw unsupported("promptWeighting is for models with CLIP's text encoder; this one has another")
  return weighted(tokenizer, prompt)
}

/**
 * The same prompts with `chunks` chunks each, by default as many as the longest has: empty chunks are added, so that prompt and negative
 * prompt, or the prompts of a batch, are one tensor [batch, chunks, length].
 */
export const equalizeChunks = (
  tokenizer: Tokenizer,
  prompts: readonly TokenizedPrompt[],
  chunks = Math.max(...prompts.map((prompt) => prompt.chunks))
): TokenizedPrompt[] => {
  return prompts.map((prompt) => {
    if (prompt.chunks === chunks || !(tokenizer instanceof ClipTokenizer)) return prompt
    const empty = assemble(tokenizer, Array<Chunk>(chunks - prompt.chunks).fill({ tokens: [], weights: [] }), null)
    return {
      ...prompt,
      ids: Int32Array.from([...prompt.ids, ...empty.ids]),
      weights: Float32Array.from([...prompt.weights, ...empty.weights]),
      chunks
    }
  })
}
