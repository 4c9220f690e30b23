/** The part of UNet2DConditionModel's config that the pixel UNets of DeepFloyd IF use (Saharia et al. 2022, appendix B). */
import { isArrayOf, type ConfigReader } from './config-reader.js'

type PixelActivation = 'none' | 'silu' | 'gelu'

export interface PixelUNetConfig {
  /** Attention to text and pixels at once, residual blocks that change the size. */
  readonly addedKv: true
  readonly activation: PixelActivation
  /** Of the time embedding; 0: four times the first level's channels. */
  readonly timeWidth: number
  /** Of the time embedding, once for all blocks; and whether blocks then have none of their own. */
  readonly timeActivation: PixelActivation
  readonly skipTimeActivation: boolean
  /** The time scales and shifts instead of being added. */
  readonly scaleShift: boolean
  /** What residual blocks divide their result by. */
  readonly outputScale: number
  readonly midOutputScale: number
  /** Super-resolution: told the noise level of the small picture. */
  readonly classTimestep: boolean
  /** Width of the text's states; 0: they come as wide as cross-attention reads. */
  readonly encoderWidth: number
  /** Heads of the attention that makes one vector of the text; 0: none. */
  readonly textPoolHeads: number
  /** The text through a group norm before each attention; attention to the text alone. */
  readonly normText: boolean
  readonly textOnly: boolean
  readonly midTextOnly: boolean
}

/** Without attention, and with. */
export const pixelDownTypes = ['ResnetDownsampleBlock2D', 'SimpleCrossAttnDownBlock2D']
export const pixelUpTypes = ['ResnetUpsampleBlock2D', 'SimpleCrossAttnUpBlock2D']

/** Fields that are read here. */
export const pixelFields: readonly string[] = [
  'mid_block_type',
  'mid_block_only_cross_attention',
  'mid_block_scale_factor',
  'act_fn',
  'encoder_hid_dim',
  'encoder_hid_dim_type',
  'class_embed_type',
  'addition_embed_type',
  'resnet_time_scale_shift',
  'resnet_skip_time_act',
  'resnet_out_scale_factor',
  'time_embedding_act_fn',
  'cross_attention_norm'
]

export const isPixelUNet = (config: ConfigReader): boolean =>
  ['down_block_types', 'up_block_types'].some((key) =>
    config.strings(key, []).some((type) => [...pixelDownTypes, ...pixelUpTypes].includes(type))
  )

const activations: Readonly<Record<string, PixelActivation>> = { silu: 'silu', swish: 'silu', gelu: 'gelu' }

const activation = (config: ConfigReader, key: string, fallback: string | null): PixelActivation => {
  const value = config.raw(key) ?? fallback
  if (value === null) return 'none'
  const known = typeof value === 'string' ? activations[value] : undefined
  if (known === undefined) throw config.refused(key, '"silu", "swish" or "gelu"')
  return known
}

/** A boolean, or one for every level, which must be equal here. */
const sameForAll = (config: ConfigReader, key: string): boolean => {
  const value = config.raw(key) ?? false
  const list = Array.isArray(value) ? value : [value]
  if (!isArrayOf(list, (e) => typeof e === 'boolean')) throw config.wrong(key, 'true, false or an array of them')
  if (list.some((e) => e !== list[0])) throw config.refused(key, 'the same for every level')
  return (list[0] ?? false) as boolean
}

export const parsePixelUNet = (
  config: ConfigReader,
  channels: number,
  contextWidths: readonly number[]
): PixelUNetConfig => {
  config.only('mid_block_type', ['UNetMidBlock2DSimpleCrossAttn'])
  config.only('resnet_time_scale_shift', ['default', 'scale_shift'])
  config.only('class_embed_type', [null, 'timestep'])
  config.only('addition_embed_type', [null, 'text'])
  config.only('encoder_hid_dim_type', [null, 'text_proj'])
  config.only('cross_attention_norm', [null, 'group_norm'])
  config.only('mid_block_only_cross_attention', [null, true, false])
  config.only('transformer_layers_per_block', [1])
  config.only('time_cond_proj_dim', [null])
  if (contextWidths.some((width) => width !== contextWidths[0]))
    throw config.refused('cross_attention_dim', 'one width for all levels')
  const normText = config.raw('cross_attention_norm') === 'group_norm'
  if (normText && contextWidths[0]! % 32)
    throw config.wrong('cross_attention_dim', 'a multiple of 32, as cross_attention_norm is "group_norm",')
  const encoderWidth = config.optionalInteger('encoder_hid_dim') ?? 0
  if (encoderWidth === 0 && config.raw('encoder_hid_dim_type') === 'text_proj')
    throw config.wrong('encoder_hid_dim', 'a width, as encoder_hid_dim_type is "text_proj",')
  const pools = config.raw('addition_embed_type') === 'text'
  const textPoolHeads = config.integer('addition_embed_type_num_heads', 64)
  if (pools && (encoderWidth || contextWidths[0]!) % textPoolHeads)
    throw config.wrong('addition_embed_type_num_heads', "a number that divides the text's width")
  const textOnly = sameForAll(config, 'only_cross_attention')
  // As the class: the middle block follows a single value, not an array.
  const followed = Array.isArray(config.raw('only_cross_attention')) ? false : textOnly
  return {
    addedKv: true,
    activation: activation(config, 'act_fn', 'silu'),
    timeWidth: config.optionalInteger('time_embedding_dim') ?? 4 * channels,
    timeActivation: activation(config, 'time_embedding_act_fn', null),
    skipTimeActivation: config.boolean('resnet_skip_time_act', false),
    scaleShift: config.raw('resnet_time_scale_shift') === 'scale_shift',
    outputScale: config.positive('resnet_out_scale_factor', 1),
    midOutputScale: config.positive('mid_block_scale_factor', 1),
    classTimestep: config.raw('class_embed_type') === 'timestep',
    encoderWidth,
    textPoolHeads: pools ? textPoolHeads : 0,
    normText,
    textOnly,
    midTextOnly: (config.raw('mid_block_only_cross_attention') as boolean | null | undefined) ?? followed
  }
}
