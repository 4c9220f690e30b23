/**
 * Perturbed-attention guidance (Ahn et al. 2024): away from what the model predicts where some of its layers cannot look
 * around.
 */
import { invalidArgument, unsupported } from './errors.js'
import { crossAttentions } from './models/ip-adapter.js'
import type { UNetConfig } from './models/unet.js'
import { finite } from './validate.js'

/** Arguments of diffusers' PAG pipelines, for every task but edit. */
export interface PerturbedAttentionOptions {
  /** How strongly; 0 is without. Default 0, in models saved by diffusers' PAG pipelines 3. Works with and without guidanceScale. */
  pagScale?: number
  /** At timestep t the scale is pagScale − pagAdaptiveScale · (1000 − t), at least 0; default 0: always pagScale. */
  pagAdaptiveScale?: number
  /**
   * The self-attentions of the UNet that are perturbed: regular expressions over their names, such as
   * `down_blocks.2.attentions.0.transformer_blocks.0.attn1`; default 'mid'.
   */
  pagAppliedLayers?: string | readonly string[]
}

export const perturbedAttentionNames = ['pagScale', 'pagAdaptiveScale', 'pagAppliedLayers'] as const

export interface ResolvedPag {
  readonly scale: number
  readonly adaptiveScale: number
  readonly layers: readonly string[]
}

const pattern = (text: unknown): RegExp => {
  if (typeof text !== 'string' || text === '')
    throw invalidArgument('pagAppliedLayers', 'a string or an array of strings', text)
  try {
    return new RegExp(text)
  } catch {
    throw invalidArgument('pagAppliedLayers', 'names of layers, or regular expressions that match them,', text)
  }
}

/** Undefined where there is no such guidance. */
export const resolvePag = (o: PerturbedAttentionOptions, defaultScale: number): ResolvedPag | undefined => {
  const scale = finite('pagScale', o.pagScale ?? defaultScale, 0)
  const adaptiveScale = finite('pagAdaptiveScale', o.pagAdaptiveScale ?? 0, 0)
  const given = o.pagAppliedLayers ?? 'mid'
  const layers = typeof given === 'string' ? [given] : given
  if (!Array.isArray(layers)) throw invalidArgument('pagAppliedLayers', 'a string or an array of strings', given)
  layers.forEach(pattern)
  return scale > 0 && layers.length > 0 ? { scale, adaptiveScale, layers } : undefined
}

/**
 * Numbers of the transformer blocks whose self-attention one of the patterns names, in the order down, middle, up.
 * @throws DiffusionError ERR_ND_INVALID_ARGUMENT where a pattern names none; ERR_ND_UNSUPPORTED where the UNet is built otherwise
 */
export const perturbedBlocks = (layers: readonly string[], unet: UNetConfig): Int32Array => {
  if (unet.pixel) throw unsupported('pagScale is for UNets with transformer blocks; this one has none')
  const names = crossAttentions(unet).map(({ name }) => name.replace(/attn2$/, 'attn1'))
  const found = new Set<number>()
  for (const layer of layers) {
    const matches = names.flatMap((name, i) => (pattern(layer).test(name) ? [i] : []))
    if (matches.length === 0)
      throw invalidArgument('pagAppliedLayers', `what matches one of ${names.join(', ')}`, layer)
    for (const i of matches) found.add(i)
  }
  return Int32Array.from([...found].sort((a, b) => a - b))
}

/** The scale at a timestep. */
export const pagScaleAt = ({ scale, adaptiveScale }: ResolvedPag, timestep: number): number =>
  adaptiveScale > 0 ? Math.max(0, scale - adaptiveScale * (1000 - timestep)) : scale
