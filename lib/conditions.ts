/** From prompts to what the native job takes: token ids per text encoder, SDXL's time ids, the guidance embedding. */
import type { NativeGenerateJob } from './binding.js'
import { invalidArgument, unsupported } from './errors.js'
import { equalizeChunks, tokenizePrompt } from './prompt.js'
import { checkTensor, type Tensor } from './tensor.js'
import { ClipTokenizer } from './tokenizer/clip-tokenizer.js'
import type { Tokenizer } from './tokenizer/tokenizer.js'
import type { ResolvedOptions } from './txt2img-options.js'

/** What conditioning needs to know of the models. */
export interface TextTraits {
  readonly xl: boolean
  /** One per text encoder, in order. */
  readonly tokenizers: readonly Tokenizer[]
  /** Which of the two prompts each encoder reads: 0 `prompt`, 1 `prompt2`. */
  readonly promptOf: readonly (0 | 1)[]
  /** SDXL: an absent negative prompt is all zeros, not the encoding of "". */
  readonly zerosForEmpty: boolean
  /** Prompts are read in lower case, without white space around them. */
  readonly lowerCase: boolean
}

type NativePrompt = NativeGenerateJob['prompt']

/** Branches of a call: those without the prompt first, then those with it. */
export interface Branches {
  readonly branches: number
  readonly prompted: number
}

/** Rows are branch-major: the negative prompts for every branch without the prompt, then the prompts. */
export const promptInput = (
  options: ResolvedOptions,
  { branches, prompted }: Branches,
  traits: TextTraits,
  warn: (message: string) => void
): NativePrompt => {
  const rows = options.prompts.length * branches
  const unguided = branches - prompted
  const negativeRows = unguided * options.prompts.length
  // diffusers' clip_skip counts from the layer that the family uses, and leaves negative prompts alone.
  const usual = traits.xl ? 1 : 0
  const base = {
    rows,
    chunks: 1,
    length: 77,
    encoders: [],
    skip: usual + (options.clipSkip ?? 0),
    negativeRows,
    negativeSkip: usual,
    normSkipped: !traits.xl
  }
  if (options.clipSkip !== undefined && !traits.tokenizers.every((tokenizer) => tokenizer instanceof ClipTokenizer))
    throw unsupported("clipSkip is for models with CLIP's text encoder; this one has another")
  if (options.promptEmbeds) return { ...base, ...givenEmbeds(options, unguided, prompted, traits.xl) }

  if (traits.tokenizers.length === 0)
    throw unsupported('This model has no text encoder of its own: give promptEmbeds, as the first stage made them')
  const empty = (): string[] => options.prompts.map(() => '')
  const tokenized = traits.tokenizers.map((tokenizer, i) => {
    const second = traits.promptOf[i] === 1
    const negative = (second ? options.negativePrompts2 : options.negativePrompts) ?? empty()
    const positive = second ? options.prompts2 : options.prompts
    const texts = [...repeated(negative, unguided), ...repeated(positive, prompted)].map((t) =>
      traits.lowerCase ? t.toLowerCase().trim() : t
    )
    const all = texts.map((text) => tokenizePrompt(tokenizer, text, { weights: options.promptWeighting }))
    for (const t of new Set(all.map((t) => t.warning))) if (t) warn(t)
    return all
  })
  // Both encoders must see the same number of chunks, for their states lie side by side.
  const chunks = Math.max(...tokenized.flat().map((t) => t.chunks))
  const length = tokenized[0]![0]!.length
  const encoders = tokenized.map((all, i) => {
    if (all[0]!.length !== length)
      throw invalidArgument('the tokenizers', `one length for both text encoders (${length})`, all[0]!.length)
    const equal = equalizeChunks(traits.tokenizers[i]!, all, chunks)
    const ids = new Int32Array(rows * chunks * length)
    equal.forEach((t, r) => ids.set(t.ids, r * chunks * length))
    if (equal.some((t) => t.mask)) {
      const mask = new Uint8Array(ids.length).fill(1)
      equal.forEach((t, r) => t.mask && mask.set(t.mask, r * chunks * length))
      return { ids, mask }
    }
    if (!equal.some((t) => t.weighted)) return { ids }
    const weights = new Float32Array(ids.length)
    equal.forEach((t, r) => weights.set(t.weights, r * chunks * length))
    return { ids, weights }
  })
  const zero = unguided > 0 && traits.zerosForEmpty && options.negativePrompts === undefined
  const zeroRows = zero ? Array.from({ length: rows }, (_, r) => r < negativeRows) : undefined
  return { ...base, chunks, length, encoders, zeroRows }
}

const repeated = <T>(list: readonly T[], times: number): T[] => Array.from({ length: times }, () => list).flat()

const stacked = (parts: readonly Tensor[]): Tensor => {
  const shape = [parts.reduce((n, t) => n + t.shape[0]!, 0), ...parts[0]!.shape.slice(1)]
  const data = new Float32Array(shape.reduce((a, b) => a * b, 1))
  let at = 0
  for (const t of parts) {
    data.set(t.data, at)
    at += t.data.length
  }
  return { data, shape }
}

const givenEmbeds = (
  o: ResolvedOptions,
  unguided: number,
  prompted: number,
  xl: boolean
): Pick<NativePrompt, 'embeds' | 'pooled'> => {
  const positive = checkTensor('promptEmbeds', o.promptEmbeds, [null, null, null])
  const [count, tokens, width] = positive.shape as [number, number, number]
  const parts = repeated([positive], prompted)
  if (unguided > 0) {
    const negative = checkTensor('negativePromptEmbeds', o.negativePromptEmbeds, [count, tokens, width])
    parts.unshift(...repeated([negative], unguided))
  }
  if (!xl) return { embeds: stacked(parts) }
  const pooled = repeated([checkTensor('pooledPromptEmbeds', o.pooledPromptEmbeds, [count, null])], prompted)
  if (unguided > 0)
    pooled.unshift(
      checkTensor('negativePooledPromptEmbeds', o.negativePooledPromptEmbeds, [count, pooled[0]!.shape[1]!])
    )
  return { embeds: stacked(parts), pooled: stacked(pooled) }
}

/** Time ids by branch. */
const idsOf = (of: Branches, positive: number[], negative: number[]): number[][] =>
  Array.from({ length: of.branches }, (_, b) => (b < of.branches - of.prompted ? negative : positive))

const eachImage = (o: ResolvedOptions, branches: number[][]): Float32Array =>
  Float32Array.from(branches.flatMap((row) => Array.from({ length: o.batch }, () => row).flat()))

/**
 * SDXL's micro-conditions (Podell et al. 2023, section 2.2), a row of six per branch and image; sizes are [height, width].
 * StableDiffusionXLPipeline repeats the branches' rows as a whole: where the negative ones differ, those of several images are
 * [negative, positive, negative, positive], whereas their latents are branch by branch. So they are here, for the same pictures.
 */
export const timeIds = (o: ResolvedOptions, of: Branches): Float32Array => {
  const size = [o.height, o.width] as const
  const positive = [...(o.originalSize ?? size), ...(o.cropsCoordsTopLeft ?? [0, 0]), ...(o.targetSize ?? size)]
  // As diffusers: the negative ones count only where both sizes are given.
  const negative =
    o.negativeOriginalSize && o.negativeTargetSize
      ? [...o.negativeOriginalSize, ...(o.negativeCropsCoordsTopLeft ?? [0, 0]), ...o.negativeTargetSize]
      : positive
  const branches = idsOf(of, positive, negative)
  return Float32Array.from(Array.from({ length: o.batch }, () => branches.flat()).flat())
}

/**
 * The same for img2img and inpainting, whose diffusers pipelines default the negative sizes one by one and use the
 * prompt's crop for both. SDXL's refiner has an aesthetic score instead of the target size: rows of five.
 */
export const pictureTimeIds = (
  o: ResolvedOptions,
  of: Branches,
  scores: readonly [positive: number, negative: number] | undefined
): Float32Array => {
  const size = [o.height, o.width] as const
  const original = o.originalSize ?? size
  const target = o.targetSize ?? size
  const crop = o.cropsCoordsTopLeft ?? [0, 0]
  const negativeOriginal = o.negativeOriginalSize ?? original
  if (scores) {
    const negativeCrop = o.negativeCropsCoordsTopLeft ?? [0, 0]
    const negative = [...negativeOriginal, ...negativeCrop, scores[1]]
    return eachImage(o, idsOf(of, [...original, ...crop, scores[0]], negative))
  }
  const negative = [...negativeOriginal, ...crop, ...(o.negativeTargetSize ?? target)]
  return eachImage(o, idsOf(of, [...original, ...crop, ...target], negative))
}

/** Embedding of the guidance scale for guidance-distilled models (Meng et al. 2022; diffusers get_guidance_scale_embedding). */
export const guidanceEmbedding = (guidanceScale: number, width: number): Float32Array => {
  const w = (guidanceScale - 1) * 1000
  const half = Math.floor(width / 2)
  const out = new Float32Array(width)
  for (let i = 0; i < half; i++) {
    const angle = w * Math.exp((-Math.log(10000) * i) / (half - 1))
    out[i] = Math.sin(angle)
    out[half + i] = Math.cos(angle)
  }
  return out
}
