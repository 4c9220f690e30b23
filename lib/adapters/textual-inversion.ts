/** Textual inversion (Gal et al. 2022): tokens with embeddings of their own. */
import { basename } from 'node:path'
import { native, translating, translatingSync, type NativeSession } from '../binding.js'
import { invalidArgument, modelFormat, unsupported } from '../errors.js'
import { resolveFile } from '../source.js'
import type { Tensor } from '../tensor.js'
import type { AddedToken } from '../tokenizer/added-tokens.js'
import { ClipTokenizer } from '../tokenizer/clip-tokenizer.js'
import type { Tokenizer } from '../tokenizer/tokenizer.js'
import { knownKeys } from '../validate.js'
import { adapterFile } from './loras.js'

/** Options of Pipeline.loadTextualInversion. */
export interface LoadTextualInversionOptions {
  /** The word that stands for it in prompts; default: the one in the file, or the file's name without its extension. */
  token?: string
}

/** One that is loaded. */
export interface TextualInversion {
  readonly token: string
  readonly path: string
  /** How many tokens of the prompt it takes. */
  readonly vectors: number
}

/** A text encoder and its tokenizer. */
export interface EncoderTraits {
  /** The native session's number. */
  readonly index: number
  /** 0 for text_encoder, 1 for text_encoder_2. */
  readonly slot: 0 | 1
  readonly vocabSize: number
  readonly width: number
}

interface Entry extends TextualInversion {
  /** Per encoder, [vectors, width]. */
  readonly embeddings: readonly Float32Array[]
}

/** Names that SDXL's files give to the embeddings of each encoder. */
const encoderKeys: readonly (readonly string[])[] = [
  ['clip_l', 'text_encoders_0'],
  ['clip_g', 'text_encoders_1']
]

/** The tensors of a file, one per encoder, and the token that it names. */
const readFile = (
  path: string,
  encoders: readonly EncoderTraits[]
): { token: string | undefined; tensors: Tensor[] } => {
  const names = translatingSync(() => native().readHeader(path)).tensors.map((t) => t.name)
  const read = (wanted: readonly string[]): Tensor[] => {
    const tensors = translatingSync(() => native().readTensors(path, wanted))
    return wanted.map((name) => tensors[name]!)
  }
  const listed = names.slice(0, 8).join(', ')
  const keyOf = (slot: 0 | 1): string | undefined => encoderKeys[slot]!.find((key) => names.includes(key))
  const forSdxl = keyOf(0) !== undefined || keyOf(1) !== undefined
  if (!forSdxl && names.length === 1 && encoders.length === 1) {
    const [name] = names as [string]
    return { token: name === 'emb_params' ? undefined : name, tensors: read([name]) }
  }
  const sdxl = encoders.length > 1 || encoders[0]!.slot === 1
  if (forSdxl && !sdxl)
    throw modelFormat(
      `${path}: expected embeddings of one text encoder but received ${listed}: it is a textual inversion for SDXL`
    )
  if (!forSdxl && names.length === 1)
    throw modelFormat(
      `${path}: expected tensors clip_l and clip_g, for both text encoders of SDXL, but received ${listed}: it is a textual inversion for Stable Diffusion 1 or 2`
    )
  const wanted = encoders.map(({ slot }) => keyOf(slot))
  const missing = wanted.findIndex((key) => key === undefined)
  if (!forSdxl || missing !== -1)
    throw modelFormat(
      `${path}: expected a textual inversion (one tensor, or clip_l and clip_g) but received ${listed || 'no tensors'}`
    )
  return { token: undefined, tensors: read(wanted as string[]) }
}

const checkShapes = (path: string, tensors: readonly Tensor[], encoders: readonly EncoderTraits[]): number => {
  const counts = tensors.map(({ shape }, i) => {
    const { width } = encoders[i]!
    const [count, last] = shape.length === 1 ? [1, shape[0]!] : (shape as [number, number])
    if (shape.length > 2 || count < 1 || last !== width)
      throw modelFormat(
        `${path}: expected embeddings of shape [vectors, ${width}], as this model's text encoder${encoders.length > 1 ? ` ${i + 1}` : ''} ` +
          `has ${width} features, but received [${shape.join(', ')}]; is the textual inversion for another family?`
      )
    return count
  })
  if (counts.some((n) => n !== counts[0]))
    throw modelFormat(`${path}: expected as many vectors for both text encoders but received ${counts.join(' and ')}`)
  return counts[0]!
}

export class TextualInversions {
  private entries: readonly Entry[] = []
  private extended: readonly Tokenizer[]
  private last: Promise<unknown> = Promise.resolve()

  /** @param base the model's own tokenizers, one per text encoder; `encoders` are those of CLIP's kind */
  constructor(
    private readonly session: () => NativeSession,
    private readonly base: readonly Tokenizer[],
    private readonly encoders: readonly EncoderTraits[]
  ) {
    this.extended = base
  }

  get list(): readonly TextualInversion[] {
    return this.entries.map(({ token, path, vectors }) => ({ token, path, vectors }))
  }

  /** The tokenizers with every token that is loaded. */
  get tokenizers(): readonly Tokenizer[] {
    return this.extended
  }

  load(path: string, options: LoadTextualInversionOptions = {}): Promise<void> {
    return this.inOrder(async () => {
      knownKeys('loadTextualInversion', options, ['token'])
      const source = adapterFile(await resolveFile(path), 'textual inversion', 'learned_embeds.safetensors')
      if (this.encoders.length === 0)
        throw unsupported(
          "Expected a model with a text encoder of CLIP's kind for a textual inversion but this one has none"
        )
      const file = readFile(source, this.encoders)
      const vectors = checkShapes(source, file.tensors, this.encoders)
      const token = options.token ?? file.token ?? basename(path).replace(/\.safetensors$/i, '')
      if (typeof token !== 'string' || token.trim() === '') throw invalidArgument('token', 'a word', token)
      for (const name of wordsOf(token, vectors))
        if (this.extended.some((tokenizer) => tokenizer instanceof ClipTokenizer && tokenizer.has(name)))
          throw invalidArgument('token', 'a word that is no token yet (unload it first, or give another)', name)
      await this.change([...this.entries, { token, path, vectors, embeddings: file.tensors.map((t) => t.data) }])
    })
  }

  unload(token?: string): Promise<void> {
    return this.inOrder(async () => {
      if (token !== undefined && !this.entries.some((e) => e.token === token)) {
        const loaded = this.entries.map((e) => `'${e.token}'`).join(', ')
        throw invalidArgument(
          'token',
          loaded ? `one that is loaded (${loaded})` : 'one that is loaded (there is none)',
          token
        )
      }
      await this.change(token === undefined ? [] : this.entries.filter((e) => e.token !== token))
    })
  }

  private inOrder<T>(run: () => Promise<T>): Promise<T> {
    const result = this.last.then(run)
    this.last = result.catch(() => {})
    return result
  }

  /** Embeddings and tokenizers change together, so that a call sees both of before or both of after. */
  private async change(entries: readonly Entry[]): Promise<void> {
    const before = this.entries
    const put = (list: readonly Entry[]): Promise<unknown> => {
      this.entries = list
      this.extended = this.base.map((tokenizer, i) => {
        const encoder = this.encoders.find(({ index }) => index === i)
        return encoder && tokenizer instanceof ClipTokenizer
          ? withTokens(tokenizer, list, encoder.vocabSize)
          : tokenizer
      })
      const session = this.session()
      return Promise.all(
        this.encoders.map(({ index }, i) => session.setAddedTokens(index, joined(list.map((e) => e.embeddings[i]!))))
      )
    }
    try {
      await translating(put(entries))
    } catch (error) {
      await put(before)
      throw error
    }
  }
}

/** The words of its tokens, as diffusers names them: token, token_1, token_2, … */
const wordsOf = (token: string, vectors: number): string[] =>
  Array.from({ length: vectors }, (_, i) => (i === 0 ? token : `${token}_${i}`))

/** The token stands for all of its vectors; those after the first have words of their own as well. */
const withTokens = (tokenizer: ClipTokenizer, entries: readonly Entry[], vocabSize: number): ClipTokenizer => {
  let id = vocabSize
  const tokens = entries.flatMap(({ token, vectors }) => {
    const first = id
    id += vectors
    return wordsOf(token, vectors).map((content, i): AddedToken => ({
      content,
      id: first + i,
      ...(i === 0 && vectors > 1 ? { following: Array.from({ length: vectors - 1 }, (_, k) => first + 1 + k) } : {}),
      special: false,
      normalized: true,
      leftStrip: false,
      rightStrip: false,
      singleWord: false
    }))
  })
  return tokens.length ? tokenizer.withTokens(tokens) : tokenizer
}

const joined = (parts: readonly Float32Array[]): Float32Array => {
  const all = new Float32Array(parts.reduce((n, p) => n + p.length, 0))
  let at = 0
  for (const part of parts) {
    all.set(part, at)
    at += part.length
  }
  return all
}
