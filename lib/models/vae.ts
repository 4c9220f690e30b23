import { ConfigReader, type ConfigJson } from './config-reader.js'

/** diffusers AutoencoderKL (Rombach et al. 2022, section 4.1), every field resolved: what the native VAE takes. */
export interface VaeConfig {
  readonly inChannels: number
  readonly outChannels: number
  readonly latentChannels: number
  /** Per level, from the picture's size downwards; pictures are 2^(levels − 1) times larger than latents. */
  readonly channels: readonly number[]
  /** Residual blocks per level of the encoder; the decoder has one more. */
  readonly resnets: number
  readonly normGroups: number
  readonly quantConv: boolean
  readonly postQuantConv: boolean
  readonly midAttention: boolean
  /** latents = (z − shiftFactor) · scalingFactor, normalised per channel instead where latentsMean and latentsStd are given. */
  readonly scalingFactor: number
  readonly shiftFactor: number
  readonly latentsMean: readonly number[] | undefined
  readonly latentsStd: readonly number[] | undefined
  /** The weights overflow in float16: a half-precision backend must compute in bfloat16 or float32. */
  readonly forceUpcast: boolean
  /** Picture size that the model was trained for. */
  readonly sampleSize: { readonly height: number; readonly width: number } | undefined
}

/** Factor between the sides of a picture and of its latents. */
export const vaeFactor = (config: VaeConfig): number => 2 ** (config.channels.length - 1)

/** How latents relate to the autoencoder's: the fields of any autoencoder's configuration that say so. */
export type LatentScaling = Pick<VaeConfig, 'latentChannels' | 'scalingFactor' | 'shiftFactor'> &
  Partial<Pick<VaeConfig, 'latentsMean' | 'latentsStd'>>

/** The autoencoder's z [C, h, w] as latents of the step loop: scaled. The twin of engine/models/autoencoder.h LatentScaling. */
export const latentsOf = (config: LatentScaling, z: Float32Array): Float32Array => {
  const { scalingFactor, shiftFactor, latentsMean, latentsStd, latentChannels } = config
  const normalised = latentsMean && latentsStd
  const plane = z.length / latentChannels
  return z.map((value, i) => {
    const channel = Math.floor(i / plane)
    const centred = value - shiftFactor - (normalised ? latentsMean[channel]! : 0)
    return (centred * scalingFactor) / (normalised ? latentsStd[channel]! : 1)
  })
}

/**
 * @param source path of the file, for messages
 * @throws ERR_ND_MODEL_FORMAT, ERR_ND_UNSUPPORTED, naming the field
 */
export const parseVaeConfig = (json: ConfigJson, source: string): VaeConfig => {
  const config = new ConfigReader('AutoencoderKL', source, json)
  config.checkClass()
  config.only('act_fn', ['silu', 'swish'])

  const channels = config.integers('block_out_channels', [64])
  if (channels.length === 0) throw config.wrong('block_out_channels', 'at least one level')
  for (const [key, type] of [
    ['down_block_types', 'DownEncoderBlock2D'],
    ['up_block_types', 'UpDecoderBlock2D']
  ] as const) {
    const types = config.strings(key, [type])
    if (types.some((t) => t !== type)) throw config.refused(key, type)
    if (types.length !== channels.length)
      throw config.wrong(key, `as many blocks as block_out_channels (${channels.length})`)
  }
  const normGroups = config.integer('norm_num_groups', 32)
  if (channels.some((c) => c % normGroups))
    throw config.wrong('block_out_channels', `multiples of norm_num_groups (${normGroups})`)
  const latentChannels = config.integer('latent_channels', 4)
  const latentsMean = config.optionalNumbers('latents_mean', latentChannels)
  const latentsStd = config.optionalNumbers('latents_std', latentChannels)
  if (latentsStd?.some((s) => s <= 0)) throw config.wrong('latents_std', 'positive numbers')
  return {
    inChannels: config.integer('in_channels', 3),
    outChannels: config.integer('out_channels', 3),
    latentChannels,
    channels,
    resnets: config.integer('layers_per_block', 1),
    normGroups,
    quantConv: config.boolean('use_quant_conv', true),
    postQuantConv: config.boolean('use_post_quant_conv', true),
    midAttention: config.boolean('mid_block_add_attention', true),
    scalingFactor: config.positive('scaling_factor', 0.18215),
    shiftFactor: config.raw('shift_factor') === null ? 0 : config.number('shift_factor', 0),
    latentsMean,
    latentsStd,
    forceUpcast: config.boolean('force_upcast', true),
    sampleSize: config.size('sample_size')
  }
}
