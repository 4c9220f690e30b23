import { ConfigReader, isArrayOf, isInteger, type ConfigJson } from './config-reader.js'
import {
  isPixelUNet,
  parsePixelUNet,
  pixelDownTypes,
  pixelFields,
  pixelUpTypes,
  type PixelUNetConfig
} from './pixel-unet.js'

/** One resolution of the UNet. */
export interface UNetLevel {
  readonly channels: number
  /** Residual blocks on the way down; the way up has one more. */
  readonly resnets: number
  /** Attention heads of the down block; 0 where it has no attention. */
  readonly heads: number
  /** Transformer blocks after each residual block on the way down. */
  readonly transformerLayers: number
  /** The same two for the up block of this level. */
  readonly upHeads: number
  readonly upTransformerLayers: number
  /** Width of the text states that cross-attention reads. */
  readonly contextWidth: number
}

/**
 * diffusers UNet2DConditionModel (Rombach et al. 2022; SDXL: Podell et al. 2023), every field resolved: what the
 * native UNet takes. Levels count from the largest map to the smallest.
 */
export interface UNetConfig {
  readonly inChannels: number
  readonly outChannels: number
  readonly levels: readonly UNetLevel[]
  /** Residual blocks of the middle: 2 (UNetMidBlock2DCrossAttn), or 0 where there is none. */
  readonly midResnets: number
  /** Whether the middle has cross-attention, after its first residual block. */
  readonly midAttention: boolean
  readonly midHeads: number
  readonly midTransformerLayers: number
  readonly normGroups: number
  readonly normEps: number
  readonly convInKernel: number
  readonly convOutKernel: number
  readonly downsamplePadding: number
  /** Time embedding: [cos, sin] instead of [sin, cos]. */
  readonly flipSinToCos: boolean
  readonly freqShift: number
  /** Width of the guidance-scale embedding of distilled models (LCM); 0: none. */
  readonly timeCondWidth: number
  /** SDXL's "text_time" embedding: sinusoid width of each time id, and width of text and time ids together; 0: none. */
  readonly addedTimeWidth: number
  readonly addedInputWidth: number
  /** What pixel UNets with T5 (DeepFloyd IF) have beyond or instead; undefined for Stable Diffusion's. */
  readonly pixel?: PixelUNetConfig
  /** Latent size that the model was trained for; the pipeline's default picture is vaeFactor times larger. */
  readonly sampleSize: { readonly height: number; readonly width: number } | undefined
}

const downTypes = ['CrossAttnDownBlock2D', 'DownBlock2D']
const upTypes = ['CrossAttnUpBlock2D', 'UpBlock2D']
const crossAttnDown = 'CrossAttnDownBlock2D'
const crossAttnUp = 'CrossAttnUpBlock2D'

/** Fields of the class that are accepted only where they change nothing that is implemented. */
const fixedFields: readonly [string, readonly (string | number | boolean | null)[]][] = [
  ['center_input_sample', [false]],
  ['mid_block_type', ['UNetMidBlock2DCrossAttn', null]],
  ['mid_block_only_cross_attention', [null, false]],
  ['mid_block_scale_factor', [1]],
  ['act_fn', ['silu', 'swish']],
  ['encoder_hid_dim', [null]],
  ['encoder_hid_dim_type', [null]],
  // The historic name attention_head_dim is the number of heads; diffusers refuses the other one too.
  ['num_attention_heads', [null]],
  ['dual_cross_attention', [false]],
  ['class_embed_type', [null]],
  ['num_class_embeds', [null]],
  ['class_embeddings_concat', [false]],
  ['addition_embed_type', [null, 'text_time']],
  ['resnet_time_scale_shift', ['default']],
  ['resnet_skip_time_act', [false]],
  ['resnet_out_scale_factor', [1]],
  ['time_embedding_type', ['positional']],
  ['time_embedding_act_fn', [null]],
  ['timestep_post_act', [null]],
  ['attention_type', ['default']],
  ['cross_attention_norm', [null]],
  ['downsample_padding', [0, 1]]
]

/**
 * transformer_layers_per_block and its reverse: per level an integer, or an array with one for each attention of the
 * block, which must be equal here. `uses` says how many attentions each level has.
 */
const transformerLayers = (config: ConfigReader, key: string, uses: readonly number[]): readonly number[] => {
  const value = config.raw(key) ?? 1
  const expected = `a non-negative integer or an array of ${uses.length} of them`
  if (isInteger(value, 0)) return uses.map(() => value)
  if (!Array.isArray(value) || value.length !== uses.length) throw config.wrong(key, expected)
  return value.map((level: unknown, i) => {
    if (isInteger(level, 0)) return level
    if (!isArrayOf(level, (e) => isInteger(e, 0)) || level.length < uses[i]!) throw config.wrong(key, expected)
    const used = level.slice(0, uses[i]) as number[]
    if (used.some((n) => n !== used[0])) throw config.refused(key, 'equal numbers within a block')
    return used[0] ?? 0
  })
}

const blockTypes = (
  config: ConfigReader,
  key: string,
  fallback: readonly string[],
  known: readonly string[]
): readonly string[] => {
  // diffusers drops the old prefix "UNetRes" too.
  const types = config.strings(key, fallback).map((type) => type.replace(/^UNetRes/, ''))
  if (types.some((type) => !known.includes(type))) throw config.refused(key, known.join(' and '))
  return types
}

/**
 * Every field that the class knows is honoured or refused by name; missing ones take the class's defaults.
 * @param source path of the file, for messages
 * @param className of a class that has the same fields: ControlNetModel
 * @throws ERR_ND_MODEL_FORMAT, ERR_ND_UNSUPPORTED, naming the field
 */
export const parseUNetConfig = (json: ConfigJson, source: string, className = 'UNet2DConditionModel'): UNetConfig => {
  const config = new ConfigReader(className, source, json)
  config.checkClass()
  const isPixel = isPixelUNet(config)
  for (const [key, accepted] of fixedFields) if (!isPixel || !pixelFields.includes(key)) config.only(key, accepted)
  for (const key of ['convInKernel', 'convOutKernel'] as const) oddKernel(config, kernelFields[key])
  // No effect on the result: computations are in float32 or accumulate in it, and nothing is trained.
  config.boolean('upcast_attention', false)
  config.number('dropout', 0)
  // Both layouts hold the same weights, [C, C, 1, 1] or [C, C].
  config.boolean('use_linear_projection', false)

  const channels = config.integers('block_out_channels', [320, 640, 1280, 1280])
  const depth = channels.length
  if (depth === 0) throw config.wrong('block_out_channels', 'at least one level')
  const down = blockTypes(
    config,
    'down_block_types',
    [crossAttnDown, crossAttnDown, crossAttnDown, 'DownBlock2D'],
    isPixel ? pixelDownTypes : downTypes
  )
  const up = blockTypes(
    config,
    'up_block_types',
    ['UpBlock2D', crossAttnUp, crossAttnUp, crossAttnUp],
    isPixel ? pixelUpTypes : upTypes
  )
  if (down.length !== depth || up.length !== depth)
    throw config.wrong('block_out_channels', `${down.length} down blocks, ${up.length} up blocks and as many channels`)

  const onlyCross = config.raw('only_cross_attention') ?? false
  if (!isPixel && onlyCross !== false && !isArrayOf(onlyCross, (e) => e === false))
    throw config.refused('only_cross_attention', 'false')
  const timeWidth = config.raw('time_embedding_dim') ?? null
  if (!isPixel && timeWidth !== null && timeWidth !== 4 * channels[0]!)
    throw config.refused('time_embedding_dim', `null or 4 · ${channels[0]}`)

  const normGroups = config.integer('norm_num_groups', 32)
  if (channels.some((c) => c % normGroups))
    throw config.wrong('block_out_channels', `multiples of norm_num_groups (${normGroups})`)
  const resnets = config.perLevel('layers_per_block', 2, depth)
  // The field's historic name means heads; the pixel UNets' blocks take it for what it says, the width of a head.
  const perHead = config.perLevel('attention_head_dim', 8, depth)
  const heads = isPixel ? perHead.map((width, i) => channels[i]! / width) : perHead
  const contextWidths = config.perLevel('cross_attention_dim', 1280, depth)
  const layers = transformerLayers(config, 'transformer_layers_per_block', resnets)
  const upLayers = upTransformerLayers(config, layers, resnets)

  const levels = channels.map((width, i): UNetLevel => {
    const downAttends = down[i] === (isPixel ? pixelDownTypes[1] : crossAttnDown)
    const upAttends = up[depth - 1 - i] === (isPixel ? pixelUpTypes[1] : crossAttnUp)
    const middleAttends = i === depth - 1 && config.raw('mid_block_type') !== null
    if ((downAttends || upAttends || middleAttends) && width % perHead[i]!)
      throw config.wrong('attention_head_dim', `a number of heads that divides the level's ${width} channels`)
    return {
      channels: width,
      resnets: resnets[i]!,
      heads: downAttends ? heads[i]! : 0,
      transformerLayers: downAttends ? layers[i]! : 0,
      upHeads: upAttends ? heads[i]! : 0,
      upTransformerLayers: upAttends ? upLayers[i]! : 0,
      contextWidth: contextWidths[i]!
    }
  })
  return {
    inChannels: config.integer('in_channels', 4),
    outChannels: config.integer('out_channels', 4),
    levels,
    midResnets: config.raw('mid_block_type') !== null ? 2 : 0,
    midAttention: config.raw('mid_block_type') !== null,
    midHeads: heads[depth - 1]!,
    midTransformerLayers: layers[depth - 1]!,
    normGroups,
    normEps: config.positive('norm_eps', 1e-5),
    convInKernel: config.integer(kernelFields.convInKernel, 3),
    convOutKernel: config.integer(kernelFields.convOutKernel, 3),
    downsamplePadding: config.integer('downsample_padding', 1, 0),
    flipSinToCos: config.boolean('flip_sin_to_cos', true),
    freqShift: config.number('freq_shift', 0),
    timeCondWidth: config.optionalInteger('time_cond_proj_dim') ?? 0,
    ...addedWidths(config),
    ...(isPixel ? { pixel: parsePixelUNet(config, channels[0]!, contextWidths) } : {}),
    sampleSize: config.size('sample_size')
  }
}

const kernelFields = { convInKernel: 'conv_in_kernel', convOutKernel: 'conv_out_kernel' } as const

/** An even kernel would change the size of the map. */
const oddKernel = (config: ConfigReader, key: string): void => {
  if (config.integer(key, 3) % 2 === 0) throw config.refused(key, 'odd sizes')
}

/** By level, though the config counts up blocks from the smallest map. */
const upTransformerLayers = (
  config: ConfigReader,
  layers: readonly number[],
  resnets: readonly number[]
): readonly number[] => {
  const key = 'reverse_transformer_layers_per_block'
  if ((config.raw(key) ?? null) === null) {
    const forward = config.raw('transformer_layers_per_block')
    if (Array.isArray(forward) && forward.some(Array.isArray))
      throw config.wrong(key, 'an array, as transformer_layers_per_block has arrays')
    return layers
  }
  if (!Array.isArray(config.raw(key))) throw config.wrong(key, `null or an array of ${layers.length}`)
  const uses = [...resnets].reverse().map((n) => n + 1)
  return [...transformerLayers(config, key, uses)].reverse()
}

const addedWidths = (config: ConfigReader): { addedTimeWidth: number; addedInputWidth: number } => {
  if (config.raw('addition_embed_type') !== 'text_time') return { addedTimeWidth: 0, addedInputWidth: 0 }
  const required = (key: string): number => {
    const value = config.optionalInteger(key)
    if (value === undefined) throw config.wrong(key, 'a positive integer, as addition_embed_type is "text_time",')
    return value
  }
  return {
    addedTimeWidth: required('addition_time_embed_dim'),
    addedInputWidth: required('projection_class_embeddings_input_dim')
  }
}
