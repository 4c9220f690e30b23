import { basename, dirname, join } from 'node:path'
import { modelFormat, unsupported } from '../errors.js'
import { ConfigReader, type ConfigJson } from './config-reader.js'
import { isFile, isFolder, readJson } from './files.js'
import { Checkpoint, type CheckpointReader, TensorNames, unknownTensor } from './single-file/checkpoint.js'
import { checkQuantization, describeForeign } from './single-file/recognise.js'
import { encoderName } from './single-file/unet.js'
import { parseUNetConfig, type UNetConfig } from './unet.js'
import { findWeights, type ComponentWeights } from './weights.js'

/** diffusers ControlNetModel (Zhang et al. 2023), every field resolved: what the native ControlNet takes. */
export interface ControlNetConfig {
  /** Its copy of the UNet's way down and middle. */
  readonly unet: UNetConfig
  /** Channels of the picture: 3. */
  readonly pictureChannels: number
  /** conditioning_embedding_out_channels: each after the first halves the picture. */
  readonly pictureWidths: Int32Array
  /** controlnet_conditioning_channel_order 'bgr'. */
  readonly bgr: boolean
  /** global_pool_conditions: means over the map join the UNet, and the branch without the prompt is left alone (guess mode). */
  readonly globalPool: boolean
}

export interface ControlNetSource {
  readonly config: ControlNetConfig
  readonly weights: ComponentWeights
}

/** Whose ControlNet it is to be. */
export interface ControlledModel {
  readonly unet: UNetConfig
  readonly latentChannels: number
  /** Picture pixels per latent pixel. */
  readonly factor: number
}

export interface ReadControlOptions {
  readonly readHeader: CheckpointReader
  readonly variant?: string | undefined
}

/** What ControlNetModel shares with UNet2DConditionModel; other fields are not its own. */
const shared = [
  'in_channels',
  'flip_sin_to_cos',
  'freq_shift',
  'down_block_types',
  'only_cross_attention',
  'block_out_channels',
  'layers_per_block',
  'downsample_padding',
  'mid_block_scale_factor',
  'act_fn',
  'norm_num_groups',
  'norm_eps',
  'cross_attention_dim',
  'transformer_layers_per_block',
  'encoder_hid_dim',
  'encoder_hid_dim_type',
  'attention_head_dim',
  'use_linear_projection',
  'class_embed_type',
  'addition_embed_type',
  'addition_time_embed_dim',
  'num_class_embeds',
  'upcast_attention',
  'resnet_time_scale_shift',
  'projection_class_embeddings_input_dim'
] as const

/** @throws ERR_ND_MODEL_FORMAT, ERR_ND_UNSUPPORTED, naming the field */
export const parseControlNetConfig = (json: ConfigJson, source: string): ControlNetConfig => {
  const config = new ConfigReader('ControlNetModel', source, json)
  config.checkClass()
  config.only('mid_block_type', ['UNetMidBlock2DCrossAttn', 'UNetMidBlock2D'])
  config.only('conditioning_channels', [3])
  config.only('controlnet_conditioning_channel_order', ['rgb', 'bgr'])
  const widths = config.integers('conditioning_embedding_out_channels', [16, 32, 96, 256])
  if (widths.length === 0) throw config.wrong('conditioning_embedding_out_channels', 'at least one width')
  // The whole of a UNet around what the class describes; only the way down and the middle are used.
  const down = config.strings('down_block_types', [
    'CrossAttnDownBlock2D',
    'CrossAttnDownBlock2D',
    'CrossAttnDownBlock2D',
    'DownBlock2D'
  ])
  const own = Object.fromEntries(shared.filter((key) => config.has(key)).map((key) => [key, json[key]]))
  const heads = config.raw('num_attention_heads') ?? null
  const plainMiddle = config.raw('mid_block_type') === 'UNetMidBlock2D'
  const unet = parseUNetConfig(
    {
      ...own,
      ...(heads === null ? {} : { attention_head_dim: heads }),
      ...(plainMiddle ? { mid_block_type: null } : {}),
      up_block_types: down.map((type) => (/CrossAttn/.test(type) ? 'CrossAttnUpBlock2D' : 'UpBlock2D')).reverse()
    },
    source,
    'ControlNetModel'
  )
  return {
    // UNetMidBlock2D has one residual block here, and no attention.
    unet: plainMiddle ? { ...unet, midResnets: 1, midAttention: false } : unet,
    pictureChannels: 3,
    pictureWidths: Int32Array.from(widths),
    bgr: config.string('controlnet_conditioning_channel_order', 'rgb') === 'bgr',
    globalPool: config.boolean('global_pool_conditions', false)
  }
}

/** What other kinds of steering networks look like, the most telling names first. */
const others: readonly (readonly [pattern: RegExp, what: string])[] = [
  [/^lllite_/, 'a ControlNet-LLLite, which is not supported'],
  [
    /(^|\.)(control_add_embedding|task_embedding|transformer_layes|spatial_ch_projs)\b/,
    'a ControlNet-Union, which is not supported'
  ],
  [/^lora_controlnet$|\.(up|down)$/, 'a Control-LoRA, which is not supported'],
  [/^(down_blocks\.\d+\.)?(ctrl|base)_/, 'a ControlNet-XS, which is not supported'],
  [/^difference$/, 'the difference of a ControlNet to a model, which is not supported; use the whole ControlNet'],
  [/^(controlnet_blocks|controlnet_x_embedder|controlnet_mode_embedder)\./, 'a ControlNet of another kind of model'],
  [/^(adapter\.)?(body\.\d+\.(resnets|block\d|in_conv)|conv_in\.weight$)/, 'a T2I-Adapter: use loadT2iAdapter']
]

const foreign = (checkpoint: Checkpoint): Error => {
  const diffusers = checkpoint.has('controlnet_cond_embedding.conv_in.weight')
  for (const [pattern, what] of others)
    if (checkpoint.some(pattern) && !(diffusers && /T2I/.test(what)))
      return unsupported(`${checkpoint.path}: expected a ControlNet but this seems to be ${what}`)
  return describeForeign(checkpoint, 'a ControlNet (control_model.*, or diffusers names)')
}

/** The tensors of a single file under diffusers' names. */
const namesOf = (whole: Checkpoint): { names: readonly string[]; weights: ComponentWeights } => {
  checkQuantization(whole)
  if (whole.some(others[1]![0]) || whole.some(others[2]![0]) || whole.has('difference')) throw foreign(whole)
  const found = new TensorNames(whole)
  if (whole.has('controlnet_cond_embedding.conv_in.weight')) {
    for (const name of whole.names) found.add(name, name)
    return { names: whole.names, weights: found.weights() }
  }
  const net = ['control_model.', '']
    .map((prefix) => whole.under(prefix))
    .find((c) => c.has('input_hint_block.0.weight'))
  if (!net) throw foreign(whole)
  const tensors = new TensorNames(net)
  const names: string[] = []
  const hints = net.names
    .flatMap((name) => /^input_hint_block\.(\d+)\.weight$/.exec(name)?.slice(1).map(Number) ?? [])
    .sort((a, b) => a - b)
  const encoder = encoderName(net)
  const present = (stored: string): string | undefined => {
    const [, list, index, field] =
      /^(input_hint_block|zero_convs|middle_block_out)\.(\d+)(?:\.0)?\.(weight|bias)$/.exec(stored) ?? []
    if (list === 'zero_convs') return `controlnet_down_blocks.${index}.${field}`
    if (list === 'middle_block_out') return `controlnet_mid_block.${field}`
    if (list !== 'input_hint_block') return encoder(stored)
    const at = hints.indexOf(Number(index))
    const module = at === 0 ? 'conv_in' : at === hints.length - 1 ? 'conv_out' : `blocks.${at - 1}`
    return `controlnet_cond_embedding.${module}.${field}`
  }
  for (const stored of net.names) {
    const name = present(stored)
    if (name === undefined) throw unknownTensor(net, stored, 'a ControlNet')
    names.push(name)
    tensors.add(name, stored)
  }
  return { names, weights: tensors.weights() }
}

const countOf = (names: readonly string[], list: string): number =>
  new Set(names.flatMap((name) => (name.startsWith(list) ? [/^\d+/.exec(name.slice(list.length))?.[0]] : []))).size

/**
 * A single file's configuration: what its shapes do not say (heads, groups, paddings) is as the model's UNet has it, of
 * which it is a copy.
 */
const configOf = (
  file: Checkpoint,
  names: readonly string[],
  weights: ComponentWeights,
  model: ControlledModel
): ControlNetConfig => {
  const stored = new Map(weights.tensors.map((t) => [t.name, t.stored]))
  const size = (name: string, index: number): number => file.dimension(stored.get(name) ?? name, index)
  const { unet } = model
  const levels = unet.levels.map((level, i) => {
    const layers = countOf(names, `down_blocks.${i}.attentions.0.transformer_blocks.`)
    return { ...level, transformerLayers: layers, heads: layers ? level.heads || level.upHeads || unet.midHeads : 0 }
  })
  const midLayers = countOf(names, 'mid_block.attentions.0.transformer_blocks.')
  const halvings = countOf(names, 'controlnet_cond_embedding.blocks.') / 2
  return {
    unet: {
      ...unet,
      inChannels: size('conv_in.weight', 1),
      levels,
      convInKernel: 3,
      midResnets: countOf(names, 'mid_block.resnets.'),
      midAttention: midLayers > 0,
      midTransformerLayers: midLayers,
      timeCondWidth: 0,
      addedTimeWidth: stored.has('add_embedding.linear_1.weight') ? unet.addedTimeWidth : 0,
      addedInputWidth: stored.has('add_embedding.linear_1.weight') ? size('add_embedding.linear_1.weight', 1) : 0
    },
    pictureChannels: size('controlnet_cond_embedding.conv_in.weight', 1),
    pictureWidths: Int32Array.from([
      size('controlnet_cond_embedding.conv_in.weight', 0),
      ...Array.from({ length: Math.floor(halvings) }, (_, i) =>
        size(`controlnet_cond_embedding.blocks.${2 * i + 1}.weight`, 0)
      )
    ]),
    bgr: false,
    // Nothing in the file says so: by its name, as AUTOMATIC1111's extension does.
    globalPool: /shuffle/i.test(basename(file.path))
  }
}

/** @throws ERR_ND_MODEL_FORMAT naming the field of the config that does not fit, with both values */
const checkFit = (source: string, config: ControlNetConfig, model: ControlledModel): void => {
  const own = config.unet
  const { unet, latentChannels, factor } = model
  const list = (values: readonly number[]): string =>
    values.length === 1 ? String(values[0]) : `[${values.join(', ')}]`
  const same = (key: string, ours: readonly number[], theirs: readonly number[]): void => {
    if (list(ours) === list(theirs)) return
    throw modelFormat(
      `${source}: expected ${key} ${list(theirs)}, as the pipeline's UNet has, but received ${list(ours)}; is this ControlNet for another model?`
    )
  }
  const per = (c: UNetConfig, field: 'channels' | 'resnets'): number[] => c.levels.map((level) => level[field])
  const width = (c: UNetConfig): number[] => [...new Set(c.levels.map((level) => level.contextWidth))]
  same('block_out_channels', per(own, 'channels'), per(unet, 'channels'))
  same('layers_per_block', per(own, 'resnets'), per(unet, 'resnets'))
  same('cross_attention_dim', width(own), width(unet))
  same('downsample_padding', [own.downsamplePadding], [unet.downsamplePadding])
  if (own.addedTimeWidth || unet.addedTimeWidth) {
    same('addition_time_embed_dim', [own.addedTimeWidth], [unet.addedTimeWidth])
    same('projection_class_embeddings_input_dim', [own.addedInputWidth], [unet.addedInputWidth])
  }
  if (own.inChannels !== latentChannels)
    throw modelFormat(
      `${source}: expected in_channels ${latentChannels}, as latents have, but received ${own.inChannels}`
    )
  if (unet.midResnets === 0)
    throw unsupported(`${source}: expected a UNet with a middle block for a ControlNet but the pipeline's has none`)
  const reduction = 2 ** (config.pictureWidths.length - 1)
  if (reduction !== factor)
    throw modelFormat(
      `${source}: expected conditioning_embedding_out_channels of ${1 + Math.log2(factor)} widths, to bring pictures down to ` +
        `latents (1 : ${factor}), but it has ${config.pictureWidths.length} (1 : ${reduction})`
    )
}

/**
 * Reads a ControlNet's description: a diffusers folder, or one .safetensors file in the original layout (control_model.*)
 * or with diffusers' names.
 * @throws ERR_ND_MODEL_NOT_FOUND, ERR_ND_MODEL_FORMAT (also where it does not fit the model), ERR_ND_UNSUPPORTED
 */
export const readControlNet = async (
  path: string,
  model: ControlledModel,
  options: ReadControlOptions
): Promise<ControlNetSource> => {
  const { readHeader, variant } = options
  if (await isFolder(path)) {
    const source = join(path, 'config.json')
    const config = parseControlNetConfig(await readJson(source, "the ControlNet's config"), source)
    checkFit(source, config, model)
    return { config, weights: await findWeights(path, 'unet', readHeader, variant) }
  }
  const file = await Checkpoint.read(path, readHeader)
  const beside = join(dirname(path), 'config.json')
  const { names, weights } = namesOf(file)
  const json = (await isFile(beside)) ? await readJson(beside, "the ControlNet's config") : undefined
  const config =
    json?._class_name === 'ControlNetModel'
      ? parseControlNetConfig(json, beside)
      : configOf(file, names, weights, model)
  checkFit(path, config, model)
  return { config, weights }
}
