/** IP-Adapter files: what is in them, checked against the UNet that they are for. */
import { modelFormat, unsupported } from '../errors.js'
import type { UNetConfig } from './unet.js'
import type { CheckpointReader } from './single-file/checkpoint.js'
import type { ComponentWeights, TensorSource } from './weights.js'

/** How image embeddings become tokens: engine/models/ip-adapter.h. */
export type ImageProjectionKind = 'tokens' | 'states' | 'resampler'

/** engine/models/ip-adapter.h IpAdapterConfig. */
export interface IpAdapterConfig {
  readonly projection: ImageProjectionKind
  readonly embedWidth: number
  readonly contextWidth: number
  readonly tokens: number
  readonly width: number
  readonly feedForwardWidth: number
  readonly heads: number
  readonly headWidth: number
  readonly layers: number
  /** Width of every cross-attention, in the order of crossAttentions(). */
  readonly attentions: readonly number[]
}

export interface IpAdapterFile {
  readonly path: string
  readonly config: IpAdapterConfig
  readonly weights: ComponentWeights
}

/** One cross-attention of a UNet. */
export interface CrossAttention {
  readonly part: 'down' | 'mid' | 'up'
  /** Of its part: down blocks count from the largest map, up blocks from the smallest; 0 in the middle. */
  readonly block: number
  /** Which transformer of the block. */
  readonly transformer: number
  /** diffusers' name of the module. */
  readonly name: string
  readonly width: number
}

/** Every cross-attention of a UNet, in the order in which the native one has them: down, middle, up. */
export const crossAttentions = (unet: UNetConfig): CrossAttention[] => {
  const all: CrossAttention[] = []
  const add = (
    part: CrossAttention['part'],
    block: number,
    counts: { transformers: number; layers: number; width: number }
  ): void => {
    const module = part === 'mid' ? 'mid_block' : `${part}_blocks.${block}`
    for (let transformer = 0; transformer < counts.transformers; transformer++)
      for (let layer = 0; layer < counts.layers; layer++) {
        const name = `${module}.attentions.${transformer}.transformer_blocks.${layer}.attn2`
        all.push({ part, block, transformer, name, width: counts.width })
      }
  }
  unet.levels.forEach((level, i) => {
    if (level.heads > 0)
      add('down', i, { transformers: level.resnets, layers: level.transformerLayers, width: level.channels })
  })
  const deepest = unet.levels.at(-1)!
  if (unet.midAttention) add('mid', 0, { transformers: 1, layers: unet.midTransformerLayers, width: deepest.channels })
  ;[...unet.levels].reverse().forEach((level, i) => {
    if (level.upHeads > 0)
      add('up', i, { transformers: level.resnets + 1, layers: level.upTransformerLayers, width: level.channels })
  })
  return all
}

/** Files number the cross-attentions 1, 3, 5… in the order of diffusers' modules: down, up, middle. */
const numbers = (attentions: readonly CrossAttention[]): Map<CrossAttention, number> => {
  const order = (['down', 'up', 'mid'] as const).flatMap((part) => attentions.filter((a) => a.part === part))
  return new Map(order.map((attention, i) => [attention, 2 * i + 1]))
}

const headWidth = 64 // of every published resampler; nothing in a file says it

/** A resampler layer's names, as published and as diffusers has them. */
const resamplerNames: readonly (readonly [pattern: RegExp, name: string])[] = [
  [/^(?:0\.norm1|ln0)\.(weight|bias)$/, 'norm_states'],
  [/^(?:0\.norm2|ln1)\.(weight|bias)$/, 'norm_queries'],
  [/^(?:0|attn)\.to_q\.(weight)$/, 'to_q'],
  [/^(?:0|attn)\.to_k\.(weight)$/, 'to_k'],
  [/^(?:0|attn)\.to_v\.(weight)$/, 'to_v'],
  [/^(?:0|attn)\.to_out(?:\.0)?\.(weight)$/, 'to_out'],
  [/^(?:1\.0|ff\.0)\.(weight|bias)$/, 'norm_feed_forward'],
  [/^(?:1\.1|ff\.1\.net\.0\.proj)\.(weight)$/, 'up'],
  [/^(?:1\.3|ff\.1\.net\.2)\.(weight)$/, 'down']
]

const fullNames: readonly (readonly [stored: string, name: string])[] = [
  ['proj.0', 'up'],
  ['proj.2', 'down'],
  ['proj.3', 'norm']
]

class Reader {
  readonly tensors: TensorSource[] = []
  private readonly taken = new Set<string>()

  constructor(
    readonly path: string,
    private readonly shapes: ReadonlyMap<string, readonly number[]>
  ) {}

  has(name: string): boolean {
    return this.shapes.has(name)
  }
  /** Names under a prefix, without it. */
  under(prefix: string): string[] {
    return [...this.shapes.keys()].filter((n) => n.startsWith(prefix)).map((n) => n.slice(prefix.length))
  }
  wrong(stored: string, expected: string): Error {
    const shape = this.shapes.get(stored)
    const received = shape ? `one of shape [${shape.join(', ')}]` : 'none'
    return modelFormat(`${this.path}: expected ${expected} for tensor ${stored} but the file has ${received}`)
  }
  shape(stored: string, expected: readonly (number | null)[], why = ''): readonly number[] {
    const shape = this.shapes.get(stored)
    if (!shape || shape.length !== expected.length || shape.some((n, i) => n < 1 || (expected[i] ?? n) !== n))
      throw this.wrong(stored, `shape [${expected.map((n) => n ?? 'any').join(', ')}]${why}`)
    return shape
  }
  take(name: string, stored: string, view?: TensorSource['view']): void {
    this.taken.add(stored)
    this.tensors.push({ name, file: 0, stored, ...(view ? { view } : {}) })
  }
  /** Every tensor must have its place: an adapter for a larger UNet must not pass for one of this. */
  finish(): void {
    const left = [...this.shapes.keys()].find(
      (name) => /^(image_proj|ip_adapter)\./.test(name) && !this.taken.has(name)
    )
    if (left !== undefined)
      throw unsupported(`${this.path}: tensor ${left} has no place in an IP-Adapter for this UNet`)
  }
}

type Projection = Omit<IpAdapterConfig, 'attentions'>

const none = { tokens: 0, width: 0, feedForwardWidth: 0, heads: 0, headWidth, layers: 0 }

/** One embedding to four tokens (IP-Adapter, IP-Adapter Light). */
const tokensProjection = (r: Reader): Projection => {
  const tokens = 4
  const [rows, embedWidth] = r.shape('image_proj.proj.weight', [null, null]) as [number, number]
  if (rows % tokens) throw r.wrong('image_proj.proj.weight', `a multiple of ${tokens} rows`)
  const contextWidth = rows / tokens
  r.shape('image_proj.proj.bias', [rows])
  for (const field of ['weight', 'bias']) {
    r.shape(`image_proj.norm.${field}`, [contextWidth])
    r.take(`image_proj.proj.${field}`, `image_proj.proj.${field}`)
    r.take(`image_proj.norm.${field}`, `image_proj.norm.${field}`)
  }
  return { ...none, projection: 'tokens', embedWidth, contextWidth, tokens }
}

/** Every state of the tower to a token (IP-Adapter Full Face). */
const statesProjection = (r: Reader): Projection => {
  const [embedWidth] = r.shape('image_proj.proj.0.weight', [null, null]) as [number, number]
  const [contextWidth] = r.shape('image_proj.proj.3.weight', [null]) as [number]
  const shapes: Record<string, readonly number[]> = {
    'proj.0.weight': [embedWidth, embedWidth],
    'proj.0.bias': [embedWidth],
    'proj.2.weight': [contextWidth, embedWidth],
    'proj.2.bias': [contextWidth],
    'proj.3.weight': [contextWidth],
    'proj.3.bias': [contextWidth]
  }
  for (const [stored, shape] of Object.entries(shapes)) r.shape(`image_proj.${stored}`, shape)
  for (const [stored, name] of fullNames)
    for (const field of ['weight', 'bias']) r.take(`image_proj.${name}.${field}`, `image_proj.${stored}.${field}`)
  return { ...none, projection: 'states', embedWidth, contextWidth }
}

/** Learned queries over the tower's states (IP-Adapter Plus). */
const resamplerProjection = (r: Reader): Projection => {
  const at = (name: string): string => `image_proj.${name}`
  const [, tokens, width] = r.shape(at('latents'), [1, null, null]) as [number, number, number]
  const [, embedWidth] = r.shape(at('proj_in.weight'), [width, null]) as [number, number]
  const [contextWidth] = r.shape(at('proj_out.weight'), [null, width]) as [number, number]
  r.shape(at('proj_in.bias'), [width])
  r.shape(at('proj_out.bias'), [contextWidth])
  for (const field of ['weight', 'bias']) {
    r.shape(at(`norm_out.${field}`), [contextWidth])
    for (const name of ['proj_in', 'proj_out', 'norm_out']) r.take(at(`${name}.${field}`), at(`${name}.${field}`))
  }
  r.take(at('latents'), at('latents'))

  // Where each tensor of each layer is, by its name here.
  const layers: Map<string, string>[] = []
  const fused: (string | undefined)[] = []
  for (const name of r.under(at('layers.'))) {
    const [, number, rest] = /^(\d+)\.(.+)$/.exec(name) ?? []
    if (number === undefined) continue
    const layer = (layers[Number(number)] ??= new Map())
    if (/^(?:0|attn)\.to_kv\.weight$/.test(rest!)) fused[Number(number)] = at(`layers.${name}`)
    for (const [pattern, own] of resamplerNames) {
      const field = pattern.exec(rest!)?.[1]
      if (field !== undefined) layer.set(`${own}.${field}`, at(`layers.${name}`))
    }
  }
  if (layers.length === 0) throw r.wrong(at('layers.0.0.to_q.weight'), 'at least one layer')
  let inner = 0
  let feedForwardWidth = 0
  for (let i = 0; i < layers.length; i++) {
    const layer = layers[i] ?? new Map<string, string>()
    const stored = (name: string): string => layer.get(name) ?? at(`layers.${i}.${publishedName(name)}`)
    if (i === 0) {
      inner = r.shape(stored('to_q.weight'), [null, width])[0]!
      feedForwardWidth = r.shape(stored('up.weight'), [null, width])[0]!
      if (inner % headWidth) throw r.wrong(stored('to_q.weight'), `a multiple of ${headWidth} rows`)
    }
    const shapes: Record<string, readonly number[]> = {
      'to_q.weight': [inner, width],
      'to_out.weight': [width, inner],
      'up.weight': [feedForwardWidth, width],
      'down.weight': [width, feedForwardWidth],
      ...Object.fromEntries(
        ['norm_states', 'norm_queries', 'norm_feed_forward'].flatMap((norm) =>
          ['weight', 'bias'].map((field) => [`${norm}.${field}`, [width]])
        )
      )
    }
    const both = fused[i]
    if (both === undefined) Object.assign(shapes, { 'to_k.weight': [inner, width], 'to_v.weight': [inner, width] })
    for (const [name, shape] of Object.entries(shapes)) {
      r.shape(stored(name), shape)
      r.take(at(`layers.${i}.${name}`), stored(name))
    }
    if (both !== undefined) {
      r.shape(both, [2 * inner, width])
      r.take(at(`layers.${i}.to_k.weight`), both, { rows: [0, inner] })
      r.take(at(`layers.${i}.to_v.weight`), both, { rows: [inner, 2 * inner] })
    }
  }
  return {
    projection: 'resampler',
    embedWidth,
    contextWidth,
    tokens,
    width,
    feedForwardWidth,
    heads: inner / headWidth,
    headWidth,
    layers: layers.length
  }
}

/** The name of a missing tensor, for messages. */
const publishedName = (own: string): string =>
  ({
    'norm_states.weight': '0.norm1.weight',
    'norm_states.bias': '0.norm1.bias',
    'norm_queries.weight': '0.norm2.weight',
    'norm_queries.bias': '0.norm2.bias',
    'norm_feed_forward.weight': '1.0.weight',
    'norm_feed_forward.bias': '1.0.bias',
    'up.weight': '1.1.weight',
    'down.weight': '1.3.weight',
    'to_k.weight': '0.to_kv.weight'
  })[own] ?? `0.${own}`

const readProjection = (r: Reader): Projection => {
  const face = r.has('image_proj.perceiver_resampler.proj_in.weight') || r.has('image_proj.norm.weight')
  if (r.has('image_proj.proj.weight')) return tokensProjection(r)
  if (r.has('image_proj.proj.3.weight')) return statesProjection(r)
  if (face || r.under('ip_adapter.').some((name) => name.includes('_lora.')))
    throw unsupported(
      `${r.path}: FaceID adapters (they take InsightFace embeddings and bring a LoRA along) are not supported; use an ` +
        'IP-Adapter, Plus, Plus Face or Full Face file'
    )
  if (r.has('image_proj.latents')) return resamplerProjection(r)
  throw modelFormat(
    `${r.path}: expected an IP-Adapter, with image_proj.proj.weight, image_proj.proj.3.weight or image_proj.latents, but ` +
      `the file has ${r.under('')[0] ?? 'no tensors'}`
  )
}

/**
 * Reads an IP-Adapter's .safetensors file (image_proj.*, ip_adapter.N.to_k_ip.weight, ip_adapter.N.to_v_ip.weight).
 * @throws ERR_ND_MODEL_NOT_FOUND, ERR_ND_MODEL_FORMAT (a tensor that is missing or does not fit the UNet, by name),
 *   ERR_ND_UNSUPPORTED (FaceID)
 */
export const readIpAdapter = async (
  path: string,
  unet: UNetConfig,
  readHeader: CheckpointReader
): Promise<IpAdapterFile> => {
  const { tensors } = await readHeader(path)
  const r = new Reader(path, new Map(tensors.map(({ name, shape }) => [name, shape])))
  const projection = readProjection(r)
  const attentions = crossAttentions(unet)
  const contextWidth = unet.levels.find((level) => level.heads > 0 || level.upHeads > 0)?.contextWidth
  if (projection.contextWidth !== contextWidth)
    throw modelFormat(
      `${path}: expected image tokens of width ${contextWidth}, as the UNet has cross_attention_dim, but ` +
        `tensor image_proj.${{ tokens: 'norm.weight', states: 'proj.3.weight', resampler: 'proj_out.weight' }[projection.projection]} ` +
        `makes ${projection.contextWidth}; is it for another family of models?`
    )
  const number = numbers(attentions)
  attentions.forEach((attention, i) => {
    for (const field of ['to_k_ip', 'to_v_ip']) {
      const stored = `ip_adapter.${number.get(attention)}.${field}.weight`
      r.shape(stored, [attention.width, contextWidth], `, as ${attention.name} needs it,`)
      r.take(`attentions.${i}.${field}.weight`, stored)
    }
  })
  r.finish()
  return {
    path,
    config: { ...projection, attentions: attentions.map((a) => a.width) },
    weights: { files: [path], tensors: r.tensors, variant: undefined }
  }
}
