import { dirname, join } from 'node:path'
import { modelFormat, unsupported } from '../errors.js'
import { ConfigReader, type ConfigJson } from './config-reader.js'
import type { ControlledModel, ReadControlOptions } from './controlnet.js'
import { isFile, isFolder, readJson } from './files.js'
import { Checkpoint, TensorNames, unknownTensor } from './single-file/checkpoint.js'
import { describeForeign } from './single-file/recognise.js'
import { findWeights, type ComponentWeights } from './weights.js'

/** diffusers T2IAdapter (Mou et al. 2023), every field resolved: what the native adapter takes. */
export interface T2iAdapterConfig {
  readonly kind: 'full' | 'fullXl' | 'light'
  /** Channels of the picture: 3, or 1 for grey. */
  readonly inChannels: number
  readonly widths: Int32Array
  readonly resnets: number
  /** Sides of pictures are multiples of it. */
  readonly downscaleFactor: number
}

export interface T2iAdapterSource {
  readonly config: T2iAdapterConfig
  readonly weights: ComponentWeights
}

const kinds: Readonly<Record<string, T2iAdapterConfig['kind']>> = {
  full_adapter: 'full',
  full_adapter_xl: 'fullXl',
  light_adapter: 'light'
}

/** @throws ERR_ND_MODEL_FORMAT, ERR_ND_UNSUPPORTED, naming the field */
export const parseT2iAdapterConfig = (json: ConfigJson, source: string): T2iAdapterConfig => {
  const config = new ConfigReader('T2IAdapter', source, json)
  config.checkClass()
  config.only('adapter_type', Object.keys(kinds))
  config.only('in_channels', [1, 3])
  const kind = kinds[config.string('adapter_type', 'full_adapter')]!
  const widths = config.integers('channels', [320, 640, 1280, 1280])
  if (widths.length === 0) throw config.wrong('channels', 'at least one width')
  if (kind === 'light' && widths.some((w) => w % 4)) throw config.wrong('channels', 'multiples of 4')
  return {
    kind,
    inChannels: config.integer('in_channels', 3),
    widths: Int32Array.from(widths),
    resnets: config.integer('num_res_blocks', 2, 0),
    downscaleFactor: config.integer('downscale_factor', 8)
  }
}

/** Channels and reduction of every map that an adapter makes. */
const madeBy = (c: T2iAdapterConfig): { channels: number; reduction: number }[] => {
  const widths = [...c.widths, ...(c.kind === 'light' ? [c.widths.at(-1)!] : [])]
  let reduction = c.downscaleFactor
  return widths.map((channels, i) => {
    if (c.kind === 'fullXl' ? i === 2 : i > 0) reduction *= 2
    return { channels, reduction }
  })
}

/** The maps of the UNet's way down that adapters are added to, the middle last. */
const takenBy = ({ unet, factor }: ControlledModel): { channels: number; reduction: number }[] => {
  const last = unet.levels.length - 1
  const places = unet.levels.map((level, i) => ({
    channels: level.channels,
    // Before the downsampler where there is attention, else after it.
    reduction: factor * 2 ** (level.heads > 0 || i === last ? i : i + 1)
  }))
  return [...places, ...(unet.midResnets ? [places[last]!] : [])]
}

/** @throws ERR_ND_MODEL_FORMAT with the map that does not fit */
const checkFit = (source: string, config: T2iAdapterConfig, model: ControlledModel): void => {
  const made = madeBy(config)
  const taken = takenBy(model)
  const levels = model.unet.levels.length
  made.forEach((map, i) => {
    const place = taken[i]
    if (place && map.channels === place.channels && map.reduction === place.reduction) return
    if (i >= levels) return // left over: as diffusers, for nothing where it is not like the middle
    throw modelFormat(
      `${source}: expected ${place!.channels} channels at 1 : ${place!.reduction} of the picture for map ${i} of the T2I-Adapter (channels, downscale_factor, adapter_type), ` +
        `as the pipeline's UNet has there, but received ${map.channels} at 1 : ${map.reduction}; is it for another model?`
    )
  })
}

const tooFew = (source: string): Error =>
  modelFormat(`${source}: expected a T2I-Adapter's config.json, or a file whose kind its tensors tell`)

/** Kind and sizes of a file without a config, from its tensors. @param a without the prefix "adapter." */
const configOf = (a: Checkpoint, model: ControlledModel): T2iAdapterConfig => {
  const count = a.count('body.')
  if (count === 0) throw tooFew(a.path)
  const light = a.has('body.0.out_conv.weight')
  const width = (i: number): number =>
    light ? a.dimension(`body.${i}.out_conv.weight`, 0) : a.dimension(`body.${i}.resnets.0.block1.weight`, 0)
  const widths = Array.from({ length: light ? count - 1 : count }, (_, i) => width(i))
  const tiles = a.dimension(light ? 'body.0.in_conv.weight' : 'conv_in.weight', 1)
  const resnets = a.count('body.0.resnets.')
  // The XL kind is told by what the UNet needs: it has no map at the latents' own size.
  const xl = !light && model.unet.levels[0]!.heads === 0
  for (const inChannels of [3, 1]) {
    const downscaleFactor = Math.sqrt(tiles / inChannels)
    if (Number.isInteger(downscaleFactor))
      return {
        kind: light ? 'light' : xl ? 'fullXl' : 'full',
        inChannels,
        widths: Int32Array.from(widths),
        resnets,
        downscaleFactor
      }
  }
  throw unsupported(
    `${a.path}: expected a picture of 1 or 3 channels in square tiles but conv_in reads ${tiles} channels`
  )
}

/**
 * From T2I-Adapter's own names (TencentARC's files t2iadapter_*_sd14v1): residual blocks in one flat list, of which each level
 * has equally many, or, in the light one, in a body of each level. Undefined where the file has others.
 */
const originalNames = (file: Checkpoint, levels: number): ((stored: string) => string) | undefined => {
  if (file.some(/^body\.0\.body\.0\.block1\./)) return (stored) => stored.replace(/^(body\.\d+)\.body\./, '$1.resnets.')
  if (!file.some(/^body\.0\.block1\./)) return undefined
  const other = file.names.find((name) => /^body\.\d+\.(skep|down_opt)\./.test(name))
  if (other !== undefined) throw unknownTensor(file, other, 'a T2I-Adapter')
  const each = file.count('body.') / levels
  if (!Number.isInteger(each))
    throw modelFormat(
      `${file.path}: expected residual blocks for each of the UNet's ${levels} levels but the T2I-Adapter has ${file.count('body.')}; is it for another model?`
    )
  return (stored) =>
    stored.replace(/^body\.(\d+)\.(in_conv|block\d)\./, (_, index: string, part: string) => {
      const level = `body.${Math.floor(Number(index) / each)}`
      return part === 'in_conv' ? `${level}.in_conv.` : `${level}.resnets.${Number(index) % each}.${part}.`
    })
}

/** diffusers' names, with or without the prefix "adapter.", or the original ones. */
const namesOf = (file: Checkpoint, levels: number): { inner: Checkpoint; weights: ComponentWeights } => {
  const original = originalNames(file, levels)
  const inner = original
    ? file.renamed(original)
    : ['adapter.', ''].map((prefix) => file.under(prefix)).find((c) => c.some(/^body\.0\.resnets\.0\.block1\./))
  if (!inner) {
    if (file.some(/^(controlnet_|control_model\.|input_hint_block\.)/))
      throw unsupported(`${file.path}: expected a T2I-Adapter but this seems to be a ControlNet: use loadControlNet`)
    throw describeForeign(file, 'a T2I-Adapter (adapter.body.*)')
  }
  const stored = original ? file : inner
  const names = new TensorNames(stored)
  for (const name of stored.names) names.add(`adapter.${original ? original(name) : name}`, name)
  return { inner, weights: names.weights() }
}

/**
 * Reads a T2I-Adapter's description: a diffusers folder, or one .safetensors file with diffusers' names or the original ones.
 * @throws ERR_ND_MODEL_NOT_FOUND, ERR_ND_MODEL_FORMAT (also where it does not fit the model), ERR_ND_UNSUPPORTED
 */
export const readT2iAdapter = async (
  path: string,
  model: ControlledModel,
  options: ReadControlOptions
): Promise<T2iAdapterSource> => {
  const { readHeader, variant } = options
  if (await isFolder(path)) {
    const source = join(path, 'config.json')
    const config = parseT2iAdapterConfig(await readJson(source, "the T2I-Adapter's config"), source)
    checkFit(source, config, model)
    return { config, weights: await findWeights(path, 'unet', readHeader, variant) }
  }
  const { inner, weights } = namesOf(await Checkpoint.read(path, readHeader), model.unet.levels.length)
  const beside = join(dirname(path), 'config.json')
  const json = (await isFile(beside)) ? await readJson(beside, "the T2I-Adapter's config") : undefined
  const config = json?._class_name === 'T2IAdapter' ? parseT2iAdapterConfig(json, beside) : configOf(inner, model)
  checkFit(path, config, model)
  return { config, weights }
}
