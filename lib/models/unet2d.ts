import { ConfigReader, type ConfigJson } from './config-reader.js'

/** One resolution of UNet2DModel. */
export interface UNet2dLevel {
  readonly channels: number
  /** Attention heads of the down block and of the up block; 0 where it has no attention. */
  readonly heads: number
  readonly upHeads: number
}

/**
 * diffusers UNet2DModel (Ho et al. 2020, appendix B), every field resolved: what the native one takes. Levels count from
 * the largest map to the smallest.
 */
export interface UNet2dConfig {
  readonly inChannels: number
  readonly outChannels: number
  readonly levels: readonly UNet2dLevel[]
  /** Residual blocks per level on the way down; the way up has one more. */
  readonly resnets: number
  /** Whether there is a middle block; with attention where midHeads is not 0. */
  readonly middle: boolean
  readonly midHeads: number
  readonly midGroups: number
  readonly normGroups: number
  readonly normEps: number
  readonly downsamplePadding: number
  readonly timeWidth: number
  /** Time embedding: [cos, sin] instead of [sin, cos]. */
  readonly flipSinToCos: boolean
  readonly freqShift: number
  /** Picture size that the model was trained for. */
  readonly sampleSize: { readonly height: number; readonly width: number } | undefined
}

export const isUNet2d = (config: object): config is UNet2dConfig => 'midGroups' in config

const attnDown = 'AttnDownBlock2D'
const attnUp = 'AttnUpBlock2D'

/** Fields that are accepted only where they change nothing that is implemented. */
const fixedFields: readonly [string, readonly (string | number | boolean | null)[]][] = [
  ['center_input_sample', [false]],
  ['time_embedding_type', ['positional']],
  ['mid_block_type', ['UNetMidBlock2D', null]],
  ['mid_block_scale_factor', [1]],
  ['act_fn', ['silu', 'swish']],
  ['resnet_time_scale_shift', ['default']],
  ['class_embed_type', [null]],
  ['num_class_embeds', [null]],
  ['num_train_timesteps', [null]],
  ['downsample_type', ['conv']],
  ['upsample_type', ['conv']],
  ['downsample_padding', [0, 1]]
]

const blockTypes = (
  config: ConfigReader,
  key: string,
  usual: readonly string[],
  known: readonly string[],
  depth: number
): readonly string[] => {
  const types = config.strings(key, usual)
  if (types.some((type) => !known.includes(type))) throw config.refused(key, known.join(' and '))
  if (types.length !== depth) throw config.wrong(key, `as many blocks as block_out_channels (${depth})`)
  return types
}

/**
 * Every field that the class knows is honoured or refused by name; missing ones take the class's defaults.
 * @param source path of the file, for messages
 * @throws ERR_ND_MODEL_FORMAT, ERR_ND_UNSUPPORTED, naming the field
 */
export const parseUNet2dConfig = (json: ConfigJson, source: string): UNet2dConfig => {
  const config = new ConfigReader('UNet2DModel', source, json)
  config.checkClass()
  for (const [key, accepted] of fixedFields) config.only(key, accepted)
  config.number('dropout', 0) // nothing is trained
  const channels = config.integers('block_out_channels', [224, 448, 672, 896])
  const depth = channels.length
  if (depth === 0) throw config.wrong('block_out_channels', 'at least one level')
  const down = blockTypes(
    config,
    'down_block_types',
    ['DownBlock2D', attnDown, attnDown, attnDown],
    ['DownBlock2D', attnDown],
    depth
  )
  const up = blockTypes(config, 'up_block_types', [attnUp, attnUp, attnUp, 'UpBlock2D'], ['UpBlock2D', attnUp], depth)
  const normGroups = config.integer('norm_num_groups', 32)
  if (channels.some((c) => c % normGroups))
    throw config.wrong('block_out_channels', `multiples of norm_num_groups (${normGroups})`)
  // Here the name means what it says: channels per head; null is one head.
  const headWidth = config.raw('attention_head_dim') === null ? null : config.integer('attention_head_dim', 8)
  const heads = (level: number): number => {
    const count = headWidth === null ? 1 : channels[level]! / headWidth
    if (!Number.isInteger(count))
      throw config.wrong('attention_head_dim', `a divisor of the level's ${channels[level]} channels`)
    return count
  }
  const middle = config.raw('mid_block_type') !== null
  const midGroups = config.optionalInteger('attn_norm_num_groups') ?? normGroups
  if (channels[depth - 1]! % midGroups)
    throw config.wrong('attn_norm_num_groups', `a divisor of the last level's ${channels[depth - 1]} channels`)
  return {
    inChannels: config.integer('in_channels', 3),
    outChannels: config.integer('out_channels', 3),
    levels: channels.map((width, i) => ({
      channels: width,
      heads: down[i] === attnDown ? heads(i) : 0,
      upHeads: up[depth - 1 - i] === attnUp ? heads(i) : 0
    })),
    resnets: config.integer('layers_per_block', 2),
    middle,
    midHeads: middle && config.boolean('add_attention', true) ? heads(depth - 1) : 0,
    midGroups,
    normGroups,
    normEps: config.positive('norm_eps', 1e-5),
    downsamplePadding: config.integer('downsample_padding', 1, 0),
    timeWidth: config.optionalInteger('time_embedding_dim') ?? 4 * channels[0]!,
    flipSinToCos: config.boolean('flip_sin_to_cos', true),
    freqShift: config.number('freq_shift', 0),
    sampleSize: config.size('sample_size')
  }
}
