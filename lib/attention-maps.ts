/** Which places of a picture read which word: the UNet's cross-attention, as the engine recorded it. */
import type { NativeGenerateJob } from './binding.js'
import { invalidArgument } from './errors.js'
import { DiffusionImage } from './image.js'
import { interpolate } from './interpolate.js'
import { checkTensor, type Tensor } from './tensor.js'
import type { Tokenizer } from './tokenizer/tokenizer.js'

/** A token of the prompt. */
export interface AttentionToken {
  /** Its part of the prompt, as the tokenizer decodes it: a word, or a piece of a rare one. */
  readonly text: string
  readonly id: number
  /** Its place among all tokens that the UNet reads, begin and end marks and padding with them. */
  readonly position: number
  /** How much of its attention each place gives to this token, 0..1; shape h, w. */
  readonly map: Tensor
}

/** A word of the prompt: the tokens that are written without a space between them. */
export interface AttentionWord {
  readonly text: string
  /** [h, w], the mean of its tokens' maps. */
  readonly map: Tensor
}

/**
 * Of one image: the cross-attention probabilities of the branch with the prompt, averaged over heads, layers and evaluations of
 * the UNet, those of its smaller maps enlarged bilinearly to the latents' size h × w (Tang et al. 2022, "What the DAAM").
 */
export interface AttentionMaps {
  /** The tokens of the prompt (SDXL: of the first text encoder), in order, without marks and padding. */
  readonly tokens: readonly AttentionToken[]
  readonly words: readonly AttentionWord[]
  /** [all tokens, h, w], marks and padding with them: at every place the sum is 1. The tokens' maps are parts of it. */
  readonly probabilities: Tensor
}

/** What the tokens of the prompts are called, before a job runs. */
export const attentionPrompts = (
  prompt: NativeGenerateJob['prompt'],
  prompts: number,
  tokenizer: Tokenizer
): readonly (readonly Omit<AttentionToken, 'map'>[])[] => {
  const ids = prompt.encoders[0]?.ids
  if (!ids) throw invalidArgument('attentionMaps', 'false or nothing next to promptEmbeds, which have no words,', true)
  const each = prompt.chunks * prompt.length
  return Array.from({ length: prompts }, (_, p) => {
    const row = ids.subarray((prompt.rows - prompts + p) * each, (prompt.rows - prompts + p + 1) * each)
    const tokens: Omit<AttentionToken, 'map'>[] = []
    for (let start = 0; start < each; start += prompt.length) {
      const chunk = row.subarray(start, start + prompt.length)
      const end = chunk.indexOf(tokenizer.eosTokenId)
      const length = end < 0 ? chunk.length : end
      for (let i = chunk[0] === tokenizer.bosTokenId ? 1 : 0; i < length; i++)
        tokens.push({ text: tokenizer.decode([chunk[i]!]), id: chunk[i]!, position: start + i })
    }
    return tokens
  })
}

const mean = (maps: readonly Tensor[]): Tensor => {
  const first = maps[0]!
  if (maps.length === 1) return first
  const data = first.data.map((_, i) => maps.reduce((sum, map) => sum + map.data[i]!, 0) / maps.length)
  return { data, shape: first.shape }
}

const wordsOf = (tokens: readonly AttentionToken[], tokenizer: Tokenizer): AttentionWord[] => {
  const words: AttentionToken[][] = []
  // Tokens beside the vocabulary, such as textual inversion's, are decoded without spaces: each is a word.
  const added = ({ id }: AttentionToken): boolean => tokenizer.decode([id], { skipSpecialTokens: true }) === ''
  for (const token of tokens) {
    const last = words.at(-1)?.at(-1)
    const goesOn =
      last !== undefined &&
      last.position + 1 === token.position &&
      !added(last) &&
      !added(token) &&
      !/\s/u.test(tokenizer.decode([last.id, token.id]))
    if (goesOn) words.at(-1)!.push(token)
    else words.push([token])
  }
  return words.map((word) => ({
    text: tokenizer.decode(word.map((token) => token.id)),
    map: mean(word.map((token) => token.map))
  }))
}

/** @param attention [images, tokens, h, w] @param count images per prompt */
export const attentionMaps = (
  attention: Tensor,
  prompts: ReturnType<typeof attentionPrompts>,
  count: number,
  tokenizer: Tokenizer
): AttentionMaps[] => {
  const [images, all, height, width] = attention.shape as [number, number, number, number]
  const each = height * width
  return Array.from({ length: images }, (_, k) => {
    const data = attention.data.subarray(k * all * each, (k + 1) * all * each)
    const tokens = prompts[Math.floor(k / count)]!.map((token) => ({
      ...token,
      map: { data: data.subarray(token.position * each, (token.position + 1) * each), shape: [height, width] }
    }))
    return { tokens, words: wordsOf(tokens, tokenizer), probabilities: { data, shape: [all, height, width] } }
  })
}

/** Cold to hot; RGB. */
const palette: readonly (readonly [number, number, number])[] = [
  [20, 11, 52],
  [92, 22, 110],
  [172, 45, 92],
  [229, 92, 48],
  [251, 164, 10],
  [252, 255, 164]
]

const heat = (share: number): number[] => {
  const at = Math.min(Math.max(share, 0), 1) * (palette.length - 1)
  const low = Math.min(Math.floor(at), palette.length - 2)
  return palette[low]!.map((value, c) => value + (palette[low + 1]![c]! - value) * (at - low))
}

/**
 * A map [h, w] laid over a picture, in grey: dark where the map is lowest, yellow where it is highest.
 * @param options.range the values for dark and for yellow; default the map's own smallest and largest
 * @param options.opacity of the colours, 0..1; default 0.65
 */
export const heatOverlay = (
  image: DiffusionImage,
  map: Tensor,
  options: { readonly range?: readonly [low: number, high: number]; readonly opacity?: number } = {}
): DiffusionImage => {
  const { width, height } = image
  const [rows, columns] = checkTensor('map', map, [null, null]).shape
  const [low, high] = options.range ?? [
    map.data.reduce((a, b) => Math.min(a, b)),
    map.data.reduce((a, b) => Math.max(a, b))
  ]
  const opacity = options.opacity ?? 0.65
  if (!(Number.isFinite(low) && Number.isFinite(high))) throw invalidArgument('range', 'finite numbers', [low, high])
  if (!(opacity >= 0 && opacity <= 1)) throw invalidArgument('opacity', 'a number from 0 to 1', opacity)
  const large = interpolate({ data: map.data, shape: [1, 1, rows!, columns!] }, height, width, { mode: 'bilinear' })
  const data = new Uint8Array(image.data.length)
  for (let i = 0; i < width * height; i++) {
    const [r, g, b] = [image.data[3 * i]!, image.data[3 * i + 1]!, image.data[3 * i + 2]!]
    const grey = 0.299 * r + 0.587 * g + 0.114 * b
    const colour = heat(high > low ? (large.data[i]! - low) / (high - low) : 0)
    for (let c = 0; c < 3; c++) data[3 * i + c] = Math.round(grey * (1 - opacity) + colour[c]! * opacity)
  }
  return new DiffusionImage({ data, width, height })
}
