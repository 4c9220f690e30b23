import { unsupported } from '../../errors.js'
import type { ConfigJson } from '../config-reader.js'
import type { VaeConfig } from '../vae.js'
import type { ComponentWeights } from '../weights.js'
import { type Checkpoint, TensorNames, unknownTensor } from './checkpoint.js'

const attentionModules: Readonly<Record<string, string>> = {
  norm: 'group_norm',
  q: 'to_q',
  k: 'to_k',
  v: 'to_v',
  proj_out: 'to_out.0'
}

/**
 * The diffusers name of a tensor of autoencoder.AutoencoderKL (latent-diffusion), whose decoder counts its levels from
 * the largest map, as its encoder does.
 */
const presentName = (stored: string, levels: number): string | undefined => {
  const field = /\.(weight|bias)$/.exec(stored)
  if (!field) return undefined
  const module = stored.slice(0, field.index)
  const end = field[0]
  if (/^(quant_conv|post_quant_conv|(en|de)coder\.conv_(in|out))$/.test(module)) return stored
  const outer = /^(encoder|decoder)\.(.+)$/.exec(module)
  if (!outer) return undefined
  const [, side, rest] = outer as unknown as [string, string, string]
  if (rest === 'norm_out') return `${side}.conv_norm_out${end}`
  const attention = /^mid\.attn_1\.(\w+)$/.exec(rest)
  if (attention) {
    const part = attentionModules[attention[1]!]
    return part === undefined ? undefined : `${side}.mid_block.attentions.0.${part}${end}`
  }
  const resnet = (part: string): string => (part === 'nin_shortcut' ? 'conv_shortcut' : part)
  const middle = /^mid\.block_([12])\.(norm1|conv1|norm2|conv2|nin_shortcut)$/.exec(rest)
  if (middle) return `${side}.mid_block.resnets.${Number(middle[1]) - 1}.${resnet(middle[2]!)}${end}`
  const block =
    /^(down|up)\.(\d+)\.(?:block\.(\d+)\.(norm1|conv1|norm2|conv2|nin_shortcut)|(down|up)sample\.conv)$/.exec(rest)
  if (!block || (block[1] === 'down') !== (side === 'encoder')) return undefined
  const level = side === 'encoder' ? Number(block[2]) : levels - 1 - Number(block[2])
  const at = `${side}.${block[1]}_blocks.${level}`
  return block[3] === undefined
    ? `${at}.${block[5]}samplers.0.conv${end}`
    : `${at}.resnets.${block[3]}.${resnet(block[4]!)}${end}`
}

/** Every tensor of the VAE under its diffusers name. @param vae the tensors under first_stage_model. */
export const vaeWeights = (vae: Checkpoint): ComponentWeights => {
  const levels = vae.count('encoder.down.')
  const names = new TensorNames(vae)
  for (const stored of vae.names) {
    // Files of training also have loss.*, model_ema.*: no part of the autoencoder.
    if (!/^(encoder|decoder|quant_conv|post_quant_conv)\./.test(stored)) continue
    const name = presentName(stored, levels)
    if (name === undefined) throw unknownTensor(vae, stored, "Stable Diffusion's VAE")
    names.add(name, stored)
  }
  return names.weights()
}

/** What the shapes do not say: how latents are scaled, groups of the norms, and for which size it was trained. */
export type VaeTraits = Pick<
  VaeConfig,
  'normGroups' | 'scalingFactor' | 'shiftFactor' | 'latentsMean' | 'latentsStd' | 'forceUpcast' | 'sampleSize'
>

/** The config.json that diffusers would have for this VAE. @throws ERR_ND_MODEL_FORMAT, ERR_ND_UNSUPPORTED */
export const vaeConfigJson = (vae: Checkpoint, traits: VaeTraits): ConfigJson => {
  const levels = vae.count('encoder.down.')
  const channels = Array.from({ length: levels }, (_, i) => vae.dimension(`encoder.down.${i}.block.0.conv1.weight`, 0))
  const resnets = channels.map((_, i) => vae.count(`encoder.down.${i}.block.`))
  if (resnets.some((n) => n !== resnets[0]))
    throw unsupported(
      `${vae.path}: expected equally many residual blocks in every level of the VAE but they are ${resnets.join(', ')}`
    )
  const { sampleSize } = traits
  return {
    _class_name: 'AutoencoderKL',
    in_channels: vae.dimension('encoder.conv_in.weight', 1),
    out_channels: vae.dimension('decoder.conv_out.weight', 0),
    latent_channels: vae.dimension('decoder.conv_in.weight', 1),
    block_out_channels: channels,
    layers_per_block: resnets[0],
    down_block_types: channels.map(() => 'DownEncoderBlock2D'),
    up_block_types: channels.map(() => 'UpDecoderBlock2D'),
    norm_num_groups: traits.normGroups,
    use_quant_conv: vae.has('quant_conv.weight'),
    use_post_quant_conv: vae.has('post_quant_conv.weight'),
    mid_block_add_attention: vae.some(/^decoder\.mid\.attn_1\./),
    scaling_factor: traits.scalingFactor,
    shift_factor: traits.shiftFactor,
    latents_mean: traits.latentsMean ?? null,
    latents_std: traits.latentsStd ?? null,
    force_upcast: traits.forceUpcast,
    ...(sampleSize ? { sample_size: [sampleSize.height, sampleSize.width] } : {})
  }
}
