import { ConfigReader, type ConfigJson } from './config-reader.js'

/** diffusers AutoencoderTiny (TAESD, Ollin Boer Bohan 2023), every field resolved: what the native one takes. */
export interface TinyVaeConfig {
  readonly inChannels: number
  readonly outChannels: number
  readonly latentChannels: number
  /** Width of every level of the encoder, and of the decoder. */
  readonly encoderChannels: number
  readonly decoderChannels: number
  /** Blocks per level in the order of the data; one list is empty where a file holds only the other half. */
  readonly encoderBlocks: readonly number[]
  readonly decoderBlocks: readonly number[]
  readonly activation: 'relu' | 'silu' | 'gelu'
  /** latents = (z − shiftFactor) · scalingFactor: 1 and 0, as its latents are the UNet's own. */
  readonly scalingFactor: number
  readonly shiftFactor: number
}

/** Halvings of a picture's side on the way to its latents, plus one. */
export const tinyLevels = (config: TinyVaeConfig): number =>
  Math.max(config.encoderBlocks.length, config.decoderBlocks.length)

const activations: Readonly<Record<string, TinyVaeConfig['activation']>> = {
  relu: 'relu',
  silu: 'silu',
  swish: 'silu',
  gelu: 'gelu'
}

/**
 * @param source path of the file, for messages
 * @throws ERR_ND_MODEL_FORMAT, ERR_ND_UNSUPPORTED, naming the field
 */
export const parseTinyVaeConfig = (json: ConfigJson, source: string): TinyVaeConfig => {
  const config = new ConfigReader('AutoencoderTiny', source, json)
  config.checkClass()
  config.only('upsample_fn', ['nearest'])
  config.only('upsampling_scaling_factor', [2])
  // Only for latents that are stored as bytes, which nothing here does; checked all the same.
  config.positive('latent_magnitude', 3)
  config.number('latent_shift', 0.5)
  config.boolean('force_upcast', false)

  const half = (
    side: 'encoder' | 'decoder',
    usual: readonly number[]
  ): { width: number; blocks: readonly number[] } => {
    const [channelsKey, blocksKey] = [`${side}_block_out_channels`, `num_${side}_blocks`]
    const channels = config.integers(channelsKey, [64, 64, 64, 64])
    const blocks = config.integers(blocksKey, usual)
    if (channels.length === 0) throw config.wrong(channelsKey, 'at least one level')
    if (blocks.length !== channels.length) throw config.wrong(blocksKey, `as many levels as ${channelsKey}`)
    // The class has no layer that changes the width between levels.
    if (channels.some((c) => c !== channels[0])) throw config.wrong(channelsKey, 'one width for all levels')
    return { width: channels[0]!, blocks }
  }
  const encoder = half('encoder', [1, 3, 3, 3])
  const decoder = half('decoder', [3, 3, 3, 1])
  if (encoder.blocks.length !== decoder.blocks.length)
    throw config.refused('num_decoder_blocks', `as many levels as num_encoder_blocks (${encoder.blocks.length})`)
  const activation = activations[config.string('act_fn', 'relu')]
  if (!activation) throw config.refused('act_fn', Object.keys(activations).join(', '))
  return {
    inChannels: config.integer('in_channels', 3),
    outChannels: config.integer('out_channels', 3),
    latentChannels: config.integer('latent_channels', 4),
    encoderChannels: encoder.width,
    decoderChannels: decoder.width,
    encoderBlocks: encoder.blocks,
    decoderBlocks: decoder.blocks,
    activation,
    scalingFactor: config.positive('scaling_factor', 1),
    shiftFactor: config.number('shift_factor', 0)
  }
}
