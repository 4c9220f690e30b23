import { modelFormat } from '../../errors.js'
import type { ConfigJson } from '../config-reader.js'
import { canonicalName, type ComponentWeights } from '../weights.js'
import { type Checkpoint, TensorNames } from './checkpoint.js'

/** transformers' layout (OpenAI's CLIP ViT-L) or OpenCLIP's (ViT-H, ViT-bigG). */
export type TextLayout = 'transformers' | 'openclip'

const blockModules: Readonly<Record<string, string>> = {
  ln_1: 'layer_norm1',
  ln_2: 'layer_norm2',
  'attn.out_proj': 'self_attn.out_proj',
  'mlp.c_fc': 'mlp.fc1',
  'mlp.c_proj': 'mlp.fc2'
}

const topNames: Readonly<Record<string, string>> = {
  'token_embedding.weight': 'text_model.embeddings.token_embedding.weight',
  positional_embedding: 'text_model.embeddings.position_embedding.weight',
  'ln_final.weight': 'text_model.final_layer_norm.weight',
  'ln_final.bias': 'text_model.final_layer_norm.bias',
  // Some converters write it as a Linear's weight, which is not transposed.
  'text_projection.weight': 'text_projection.weight'
}

/** Queries, keys and values lie in one tensor, one after the other. */
const addFused = (names: TensorNames, text: Checkpoint, stored: string, layer: string, field: string): void => {
  const rows = text.dimension(stored, 0)
  if (rows % 3)
    throw modelFormat(
      `${text.path}: expected rows of queries, keys and values for ${text.prefix}${stored} but it has ${rows}, no multiple of 3`
    )
  const width = rows / 3
  for (const [i, part] of ['q_proj', 'k_proj', 'v_proj'].entries())
    names.add(`${layer}.self_attn.${part}.${field}`, stored, { rows: [i * width, (i + 1) * width] })
}

/** open_clip.TextTransformer's tensors (Ilharco et al. 2021) as transformers names them. */
const openClipWeights = (text: Checkpoint): ComponentWeights => {
  const names = new TensorNames(text)
  for (const stored of text.names) {
    const top = topNames[stored]
    if (top !== undefined) names.add(top, stored)
    else if (stored === 'text_projection') names.add('text_projection.weight', stored, { transpose: true })
    const block = /^transformer\.resblocks\.(\d+)\.(.+)$/.exec(stored)
    if (!block) continue // logit_scale and other parts of training
    const layer = `text_model.encoder.layers.${block[1]}`
    const fused = /^attn\.in_proj_(weight|bias)$/.exec(block[2]!)
    if (fused) addFused(names, text, stored, layer, fused[1]!)
    const part = /^(.+)\.(weight|bias)$/.exec(block[2]!)
    const module = part && blockModules[part[1]!]
    if (module) names.add(`${layer}.${module}.${part[2]}`, stored)
  }
  return names.weights()
}

const transformersWeights = (text: Checkpoint): ComponentWeights => {
  const names = new TensorNames(text)
  for (const stored of text.names) {
    const name = canonicalName('clip-text', stored)
    if (name !== undefined) names.add(name, stored)
  }
  return names.weights()
}

/** Every tensor of a text encoder under transformers' name. */
export const textWeights = (text: Checkpoint, layout: TextLayout): ComponentWeights =>
  layout === 'openclip' ? openClipWeights(text) : transformersWeights(text)

/** OpenCLIP's ViT-H as SD2 uses it: the penultimate layer's output is what the UNet reads, so the last layer is not run. */
const vitH = { width: 1024, layers: 24 }

/** Width of the projected pooled text; 0 without a projection. */
export const projectionWidth = (text: Checkpoint): number => {
  if (text.has('text_projection')) return text.dimension('text_projection', 1)
  return text.has('text_projection.weight') ? text.dimension('text_projection.weight', 0) : 0
}

/**
 * The config.json that transformers would have for this encoder. Heads have 64 channels in every CLIP that Stable
 * Diffusion uses.
 * @param projected whether the pipeline reads the projected pooled text (CLIPTextModelWithProjection)
 * @throws ERR_ND_MODEL_FORMAT
 */
export const textConfigJson = (text: Checkpoint, layout: TextLayout, projected: boolean): ConfigJson => {
  const open = layout === 'openclip'
  const root = open || !text.some(/^text_model\./) ? '' : 'text_model.'
  const list = open ? 'transformer.resblocks.' : `${root}encoder.layers.`
  const embedding = open ? 'token_embedding.weight' : `${root}embeddings.token_embedding.weight`
  const width = text.dimension(embedding, 1)
  const stored = text.count(list)
  const dropLast = open && !projected && width === vitH.width && stored === vitH.layers
  const projection = projected ? projectionWidth(text) : 0
  if (projected && projection === 0)
    throw modelFormat(`${text.path}: expected a tensor ${text.prefix}text_projection but the file has none`)
  return {
    vocab_size: text.dimension(embedding, 0),
    hidden_size: width,
    intermediate_size: text.dimension(`${list}0.${open ? 'mlp.c_fc' : 'mlp.fc1'}.weight`, 0),
    num_hidden_layers: dropLast ? stored - 1 : stored,
    num_attention_heads: Math.max(1, Math.floor(width / 64)),
    max_position_embeddings: text.dimension(
      open ? 'positional_embedding' : `${root}embeddings.position_embedding.weight`,
      0
    ),
    hidden_act: open ? 'gelu' : 'quick_gelu',
    ...(projected ? { projection_dim: projection } : {})
  }
}
