import { unsupported } from '../../errors.js'
import type { ConfigJson } from '../config-reader.js'
import type { ComponentWeights } from '../weights.js'
import { type Checkpoint, TensorNames, unknownTensor } from './checkpoint.js'

/** One level of the original UNet: what stands between two changes of the map's size. */
interface Level {
  readonly channels: number
  /** Transformer blocks after each residual block; 0: no attention there. */
  readonly depths: number[]
}

interface Layout {
  /** From the largest map to the smallest. */
  readonly down: readonly Level[]
  /** From the smallest map to the largest. */
  readonly up: readonly Level[]
  /** Module in the file → module in diffusers, and what kind it is. */
  readonly modules: ReadonlyMap<string, { readonly name: string; readonly resnet: boolean }>
}

/** Modules outside of the blocks: stored name, diffusers' name. */
export const topModules: readonly (readonly [stored: string, name: string])[] = [
  ['time_embed.0', 'time_embedding.linear_1'],
  ['time_embed.2', 'time_embedding.linear_2'],
  ['label_emb.0.0', 'add_embedding.linear_1'],
  ['label_emb.0.2', 'add_embedding.linear_2'],
  ['input_blocks.0.0', 'conv_in'],
  ['out.0', 'conv_norm_out'],
  ['out.2', 'conv_out']
]

/** Inside of a residual block: stored name → diffusers' name. */
export const resnetModules: Readonly<Record<string, string>> = {
  'in_layers.0': 'norm1',
  'in_layers.2': 'conv1',
  'emb_layers.1': 'time_emb_proj',
  'out_layers.0': 'norm2',
  'out_layers.3': 'conv2',
  skip_connection: 'conv_shortcut'
}

/**
 * The blocks of openaimodel.UNetModel (Rombach et al. 2022, latent-diffusion and generative-models): input_blocks and
 * output_blocks are flat lists; a downsampler (op) is an entry of its own, an upsampler (conv) the last part of one.
 */
const readLayout = (unet: Checkpoint): Layout => {
  const modules = new Map<string, { name: string; resnet: boolean }>()
  for (const [stored, name] of topModules) modules.set(stored, { name, resnet: false })
  const depth = (module: string): number => unet.count(`${module}.transformer_blocks.`)
  const channels = (block: string): number => unet.dimension(`${block}.0.out_layers.3.weight`, 0)

  const down: Level[] = []
  let level: Level | undefined
  for (let i = 1; i < unet.count('input_blocks.'); i++) {
    const block = `input_blocks.${i}`
    if (unet.has(`${block}.0.op.weight`)) {
      modules.set(`${block}.0.op`, { name: `down_blocks.${down.length - 1}.downsamplers.0.conv`, resnet: false })
      level = undefined
      continue
    }
    if (!level) down.push((level = { channels: channels(block), depths: [] }))
    const at = `down_blocks.${down.length - 1}`
    modules.set(`${block}.0`, { name: `${at}.resnets.${level.depths.length}`, resnet: true })
    const attention = depth(`${block}.1`)
    if (attention) modules.set(`${block}.1`, { name: `${at}.attentions.${level.depths.length}`, resnet: false })
    level.depths.push(attention)
  }

  modules.set('middle_block.0', { name: 'mid_block.resnets.0', resnet: true })
  modules.set('middle_block.1', { name: 'mid_block.attentions.0', resnet: false })
  modules.set('middle_block.2', { name: 'mid_block.resnets.1', resnet: true })

  const up: Level[] = []
  level = undefined
  for (let i = 0; i < unet.count('output_blocks.'); i++) {
    const block = `output_blocks.${i}`
    if (!level) up.push((level = { channels: channels(block), depths: [] }))
    const at = `up_blocks.${up.length - 1}`
    modules.set(`${block}.0`, { name: `${at}.resnets.${level.depths.length}`, resnet: true })
    const attention = depth(`${block}.1`)
    if (attention) modules.set(`${block}.1`, { name: `${at}.attentions.${level.depths.length}`, resnet: false })
    level.depths.push(attention)
    const sampler = `${block}.${attention ? 2 : 1}.conv`
    if (!unet.has(`${sampler}.weight`)) continue
    modules.set(sampler, { name: `${at}.upsamplers.0.conv`, resnet: false })
    level = undefined
  }
  return { down, up, modules }
}

/** `block.part.rest` with the longest module that is known. */
const presentName = (stored: string, modules: Layout['modules']): string | undefined => {
  for (let end = stored.lastIndexOf('.'); end > 0; end = stored.lastIndexOf('.', end - 1)) {
    const module = modules.get(stored.slice(0, end))
    if (!module) continue
    const rest = stored.slice(end + 1)
    if (!module.resnet) return `${module.name}.${rest}`
    const part = resnetModules[rest.slice(0, rest.lastIndexOf('.'))]
    return part === undefined ? undefined : `${module.name}.${part}${rest.slice(rest.lastIndexOf('.'))}`
  }
  return undefined
}

/** From a stored name to diffusers', for the way down and the middle: a ControlNet is a copy of them. */
export const encoderName = (net: Checkpoint): ((stored: string) => string | undefined) => {
  const { modules } = readLayout(net)
  return (stored) => presentName(stored, modules)
}

/** Every tensor of the UNet under its diffusers name. @param unet the tensors under model.diffusion_model. */
export const unetWeights = (unet: Checkpoint): ComponentWeights => {
  const { modules } = readLayout(unet)
  const names = new TensorNames(unet)
  for (const stored of unet.names) {
    const name = presentName(stored, modules)
    if (name === undefined) throw unknownTensor(unet, stored, 'a Stable Diffusion UNet')
    names.add(name, stored)
  }
  return names.weights()
}

/** The depth that all residual blocks of a level have; diffusers' configs know no other case. */
const depthOf = (unet: Checkpoint, level: Level): number => {
  const depth = level.depths[0]!
  if (level.depths.some((d) => d !== depth))
    throw unsupported(
      `${unet.path}: expected equally many transformer blocks after each residual block of a level but they are ${level.depths.join(', ')}`
    )
  return depth
}

export interface UNetTraits {
  /** SD1: 8 heads at every level. Later models: heads of 64 channels. */
  readonly heads: 'eight' | 'width64'
  /** Width of the second encoder's projected text, which SDXL's added embedding begins with. */
  readonly pooledWidth: number
  /** How many numbers follow it: sizes and crop, or the refiner's sizes, crop and score. */
  readonly timeIds: 5 | 6
  /** Side of the latents that the model was trained for. */
  readonly sampleSize: number
}

/**
 * The config.json that diffusers would have for this UNet: everything from shapes but what they cannot say.
 * @throws ERR_ND_MODEL_FORMAT, ERR_ND_UNSUPPORTED
 */
export const unetConfigJson = (unet: Checkpoint, traits: UNetTraits): ConfigJson => {
  const { down, up } = readLayout(unet)
  const widths = down.map((level) => level.channels)
  const unit = traits.heads === 'eight' ? 8 : 64
  const odd = widths.find((width) => width % unit)
  if (odd !== undefined)
    throw unsupported(
      `${unet.path}: expected levels of a multiple of ${unit} channels but one has ${odd}, so the number of heads cannot be told; ` +
        "give config, a diffusers folder with the model's configurations"
    )
  const downDepths = down.map((level) => depthOf(unet, level))
  const upDepths = up.map((level) => depthOf(unet, level))
  const resnets = down.map((level) => level.depths.length)
  const mid = unet.count('middle_block.1.transformer_blocks.')
  const hasMid = unet.some(/^middle_block\./)
  const attention = unet.names.find((name) => name.endsWith('.attn2.to_k.weight'))
  const projection = unet.names.find((name) => name.endsWith('.1.proj_in.weight'))
  const last = down.length - 1
  // Where a level has no attention on the way down its number only serves the middle block and the way up.
  const depths = downDepths.map((depth, i) => depth || (i === last && mid) || upDepths[last - i] || 1)
  if (mid !== 0 && mid !== depths[last])
    throw unsupported(
      `${unet.path}: expected ${depths[last]} transformer blocks in the middle, as the smallest level has, but there are ${mid}`
    )
  // A level without attention on the way up does not care.
  const upward = upDepths.map((depth, i) => depth || depths[last - i]!)
  const mirrored = upward.every((depth, i) => depth === depths[last - i])
  const added = unet.has('label_emb.0.0.weight') ? unet.dimension('label_emb.0.0.weight', 1) : 0
  if (added && (added <= traits.pooledWidth || (added - traits.pooledWidth) % traits.timeIds))
    throw unsupported(
      `${unet.path}: expected label_emb to read the ${traits.pooledWidth} numbers of the pooled text and ${traits.timeIds} time ids but it reads ${added}`
    )
  return {
    _class_name: 'UNet2DConditionModel',
    in_channels: unet.dimension('input_blocks.0.0.weight', 1),
    out_channels: unet.dimension('out.2.weight', 0),
    block_out_channels: widths,
    layers_per_block: resnets.every((n) => n === resnets[0]) ? resnets[0] : resnets,
    down_block_types: downDepths.map((depth) => (depth ? 'CrossAttnDownBlock2D' : 'DownBlock2D')),
    up_block_types: upDepths.map((depth) => (depth ? 'CrossAttnUpBlock2D' : 'UpBlock2D')),
    mid_block_type: hasMid ? 'UNetMidBlock2DCrossAttn' : null,
    transformer_layers_per_block: depths,
    ...(mirrored ? {} : { reverse_transformer_layers_per_block: upward }),
    attention_head_dim: traits.heads === 'eight' ? 8 : widths.map((width) => width / 64),
    cross_attention_dim: attention === undefined ? 1280 : unet.dimension(attention, 1),
    use_linear_projection: projection !== undefined && unet.rank(projection) === 2,
    conv_in_kernel: unet.dimension('input_blocks.0.0.weight', 2),
    conv_out_kernel: unet.dimension('out.2.weight', 2),
    sample_size: traits.sampleSize,
    ...(added
      ? {
          addition_embed_type: 'text_time',
          addition_time_embed_dim: (added - traits.pooledWidth) / traits.timeIds,
          projection_class_embeddings_input_dim: added
        }
      : {})
  }
}
