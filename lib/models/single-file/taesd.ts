/**
 * TAESD in its original layout (github.com/madebyollin/taesd): taesd_encoder.safetensors and taesd_decoder.safetensors,
 * whose layers are numbered through (0.weight, 1.conv.0.weight …), or both in one file under prefixes of those names.
 */
import { basename, dirname, join } from 'node:path'
import { modelFormat } from '../../errors.js'
import { isFolder } from '../files.js'
import type { Component } from '../folder.js'
import { parseTinyVaeConfig, type TinyVaeConfig } from '../taesd.js'
import type { TensorSource } from '../weights.js'
import { Checkpoint, type CheckpointReader } from './checkpoint.js'

type Side = 'encoder' | 'decoder'
interface Half {
  readonly tensors: Checkpoint
  /** Of the number of a layer to diffusers' number. */
  readonly shift: 0 | 1
}

const firstConvolution = (tensors: Checkpoint): number | undefined =>
  [0, 1].find((i) => tensors.has(`${i}.weight`) && tensors.has(`${i}.bias`))

/**
 * A half by its shapes: the encoder begins with a convolution from few channels (pictures) to many; the decoder counts its
 * clamp, which has no weights, as layer 0.
 */
const halfOf = (tensors: Checkpoint): { side: Side; half: Half } | undefined => {
  const first = firstConvolution(tensors)
  if (first === undefined || !tensors.some(/^\d+\.conv\.0\.weight$/)) return undefined
  return { side: first === 0 ? 'encoder' : 'decoder', half: { tensors, shift: first as 0 | 1 } }
}

/** diffusers' own names in one file. */
const layersOf = (checkpoint: Checkpoint, side: Side): Half | undefined => {
  const tensors = checkpoint.under(`${side}.layers.`)
  return tensors.size > 0 ? { tensors, shift: 0 } : undefined
}

const findHalves = (checkpoint: Checkpoint): Partial<Record<Side, Half>> => {
  const halves: Partial<Record<Side, Half>> = {}
  for (const side of ['encoder', 'decoder'] as const) {
    const layers = layersOf(checkpoint, side)
    if (layers) halves[side] = layers
  }
  for (const prefix of ['', 'taesd_encoder.', 'taesd_decoder.', 'encoder.', 'decoder.']) {
    const found = halfOf(prefix === '' ? checkpoint : checkpoint.under(prefix))
    if (found) halves[found.side] ??= found.half
  }
  return halves
}

/** Whether this is a tiny autoencoder, or half of one, rather than an AutoencoderKL. */
export const isTinyCheckpoint = (checkpoint: Checkpoint): boolean => Object.keys(findHalves(checkpoint)).length > 0

/** Blocks of every level: layers with parts are blocks, plain convolutions lie between the levels. */
const blocksOf = ({ tensors }: Half, side: Side): number[] => {
  const layers = new Map<number, boolean>()
  for (const name of tensors.names) {
    const layer = /^(\d+)\.(conv\.\d+\.)?(weight|bias)$/.exec(name)
    if (!layer)
      throw modelFormat(
        `${tensors.path}: tensor ${tensors.prefix}${name} belongs to no part of TAESD that is known here`
      )
    layers.set(Number(layer[1]), layer[2] !== undefined)
  }
  // conv, blocks, conv, blocks, … , conv: one run of blocks after every convolution but the last.
  const runs: number[] = []
  for (const [, isBlock] of [...layers].sort(([a], [b]) => a - b))
    if (isBlock && runs.length > 0) runs[runs.length - 1]!++
    else runs.push(0)
  runs.pop()
  if (runs.length === 0 || runs.some((n) => n === 0))
    throw modelFormat(`${tensors.path}: expected blocks between the ${side}'s convolutions but there are none`)
  return runs
}

const sourcesOf = ({ tensors, shift }: Half, side: Side, file: number): TensorSource[] =>
  tensors.names.map((name) => ({
    name: name.replace(/^\d+/, (layer) => `${side}.layers.${Number(layer) - shift}`),
    file,
    stored: tensors.prefix + name
  }))

/** The file next to this one that holds the other half: …encoder… and …decoder…. */
const siblingOf = (path: string): string | undefined => {
  const name = basename(path)
  const other = name.includes('decoder')
    ? name.replace('decoder', 'encoder')
    : name.includes('encoder')
      ? name.replace('encoder', 'decoder')
      : undefined
  return other && join(dirname(path), other)
}

/**
 * Reads it; the other half is taken from the file next to this one, where there is one.
 * @throws ERR_ND_MODEL_FORMAT, ERR_ND_UNSUPPORTED, what readHeader throws
 */
export const readTinyFile = async (
  checkpoint: Checkpoint,
  readHeader: CheckpointReader,
  exists: (path: string) => boolean
): Promise<Component<TinyVaeConfig>> => {
  const { path } = checkpoint
  const halves = findHalves(checkpoint)
  const files = [path]
  const fileOf: Partial<Record<Side, number>> = {}
  for (const side of ['encoder', 'decoder'] as const) if (halves[side]) fileOf[side] = 0
  const missing = (['encoder', 'decoder'] as const).find((side) => !halves[side])
  const sibling = missing && siblingOf(path)
  if (missing && sibling && exists(sibling) && !(await isFolder(sibling))) {
    const other = findHalves(await Checkpoint.read(sibling, readHeader))[missing]
    if (other) {
      halves[missing] = other
      fileOf[missing] = files.push(sibling) - 1
    }
  }
  const { encoder, decoder } = halves
  const encoderBlocks = encoder ? blocksOf(encoder, 'encoder') : []
  const decoderBlocks = decoder ? blocksOf(decoder, 'decoder') : []
  const last = (half: Half): string => `${Math.max(...half.tensors.names.map((name) => parseInt(name, 10)))}.weight`
  const first = (half: Half): string => `${half.shift}.weight`
  const width = (half: Half | undefined): number => (half ? half.tensors.dimension(first(half), 0) : 64)
  const levels = Math.max(encoderBlocks.length, decoderBlocks.length)
  const filled = (blocks: readonly number[]): readonly number[] =>
    blocks.length ? blocks : Array<number>(levels).fill(1)
  const config = parseTinyVaeConfig(
    {
      _class_name: 'AutoencoderTiny',
      in_channels: encoder ? encoder.tensors.dimension(first(encoder), 1) : 3,
      out_channels: decoder ? decoder.tensors.dimension(last(decoder), 0) : 3,
      latent_channels: decoder
        ? decoder.tensors.dimension(first(decoder), 1)
        : encoder!.tensors.dimension(last(encoder!), 0),
      encoder_block_out_channels: Array<number>(levels).fill(width(encoder)),
      decoder_block_out_channels: Array<number>(levels).fill(width(decoder)),
      num_encoder_blocks: filled(encoderBlocks),
      num_decoder_blocks: filled(decoderBlocks)
    },
    path
  )
  const tensors = (['encoder', 'decoder'] as const).flatMap((side) =>
    halves[side] ? sourcesOf(halves[side], side, fileOf[side]!) : []
  )
  return {
    folder: path,
    config: { ...config, encoderBlocks, decoderBlocks },
    weights: { files, tensors, variant: undefined }
  }
}
