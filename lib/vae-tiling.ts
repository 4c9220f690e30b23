/** When pictures go through the autoencoder in tiles, and in which. */
import { invalidArgument } from './errors.js'
import { autoencoderBytes, isTiny, pixelsPerLatent, type AutoencoderConfig } from './models/autoencoder.js'
import { integerIn, knownKeys } from './validate.js'

/**
 * 'auto' (default): where a whole picture would take more than 4 GiB, in tiles as large as that allows; true: diffusers'
 * enable_vae_tiling;
 * or tiles of `tileSize` pixels (default: what the autoencoder was trained on, else 512), each sharing a share of
 * `overlap` (0 to below 1, default 0.25; AutoencoderTiny 0.125) with the next; false: never.
 */
export type VaeTilingOption = boolean | 'auto' | { readonly tileSize?: number; readonly overlap?: number }

export interface VaeTiling {
  readonly tileSize: number
  readonly overlap: number
}

const bound = 4 * 2 ** 30

const usual = (config: AutoencoderConfig): VaeTiling =>
  isTiny(config) ? { tileSize: 512, overlap: 0.125 } : { tileSize: config.sampleSize?.height ?? 512, overlap: 0.25 }

/** Pixels of the shortest tile where `length` latents are cut every `step` latents: the last one may be a sliver. */
const rest = (length: number, step: number): number => length - (Math.ceil(length / step) - 1) * step

/**
 * Each tile is normalised by itself: the larger, the less it differs from the whole, and the less is computed twice. The
 * largest within the bound whose last row and column are no slivers; slivers have a tone of their own.
 */
const largest = (
  config: AutoencoderConfig,
  { width, height }: { readonly width: number; readonly height: number }
): VaeTiling => {
  const { tileSize: least, overlap } = usual(config)
  const factor = pixelsPerLatent(config)
  for (let tile = Math.ceil(Math.max(width, height) / factor); tile * factor > least; tile--) {
    const step = Math.floor(tile * (1 - overlap))
    if (autoencoderBytes(config, tile * factor, tile * factor) > bound) continue
    if ([width, height].some((side) => rest(Math.ceil(side / factor), step) < Math.min(side / factor, step / 2)))
      continue
    return { tileSize: tile * factor, overlap }
  }
  return usual(config)
}

/** Undefined where the picture is not tiled. @param size of the largest picture, in pixels */
export const resolveTiling = (
  value: VaeTilingOption | undefined,
  config: AutoencoderConfig,
  size: { readonly width: number; readonly height: number }
): VaeTiling | undefined => {
  const option = value === undefined ? 'auto' : value
  if (option === false) return undefined
  if (option === true) return usual(config)
  if (option === 'auto')
    return autoencoderBytes(config, size.width, size.height) > bound ? largest(config, size) : undefined
  if (typeof option !== 'object' || option === null)
    throw invalidArgument('vaeTiling', "true, false, 'auto' or { tileSize, overlap }", option)
  knownKeys('vaeTiling', option, ['tileSize', 'overlap'])
  const { tileSize, overlap } = { ...usual(config), ...option }
  const factor = pixelsPerLatent(config)
  if (integerIn('vaeTiling.tileSize', tileSize, 2 * factor, 8192) % factor !== 0)
    throw invalidArgument('vaeTiling.tileSize', `a multiple of ${factor}`, tileSize)
  if (typeof overlap !== 'number' || !(overlap >= 0 && overlap < 1))
    throw invalidArgument('vaeTiling.overlap', 'a number from 0 to below 1', overlap)
  return { tileSize, overlap }
}

/** What to tell where 'auto' has chosen tiles. */
export const tilingWarning = (
  option: VaeTilingOption | undefined,
  tiling: VaeTiling | undefined
): string | undefined =>
  tiling && (option ?? 'auto') === 'auto'
    ? `The picture goes through the autoencoder in tiles of ${tiling.tileSize} pixels, as it would take more than 4 GiB at once; vaeTiling: false forbids it`
    : undefined
