/** Autoencoders of either kind: what a pipeline needs to know of the one that it has. */
import { modelFormat } from '../errors.js'
import type { ConfigJson } from './config-reader.js'
import type { VaeTraits } from './single-file/vae.js'
import { parseTinyVaeConfig, tinyLevels, type TinyVaeConfig } from './taesd.js'
import { parseVaeConfig, vaeFactor, type VaeConfig } from './vae.js'

export type AutoencoderConfig = VaeConfig | TinyVaeConfig

/** AutoencoderTiny, whose encoder gives latents instead of a distribution. */
export const isTiny = (config: AutoencoderConfig): config is TinyVaeConfig => 'encoderBlocks' in config

/** Picture pixels per latent pixel, along each side. */
export const pixelsPerLatent = (config: AutoencoderConfig): number =>
  isTiny(config) ? 2 ** (tinyLevels(config) - 1) : vaeFactor(config)

/** An autoencoder's config.json, of the class that it names itself; AutoencoderKL where it names none. */
export const parseAutoencoderConfig = (json: ConfigJson, source: string): AutoencoderConfig =>
  json._class_name === 'AutoencoderTiny' ? parseTinyVaeConfig(json, source) : parseVaeConfig(json, source)

/** What a VAE file's shapes do not say, from the autoencoder that it replaces; the family's usual values for a tiny one. */
export const traitsOf = (own: AutoencoderConfig, xl: boolean): VaeTraits =>
  isTiny(own)
    ? {
        normGroups: 32,
        scalingFactor: xl ? 0.13025 : 0.18215,
        shiftFactor: 0,
        latentsMean: undefined,
        latentsStd: undefined,
        forceUpcast: true,
        sampleSize: undefined
      }
    : own

/** Whether `other` serves the same latents as `own`. @throws ERR_ND_MODEL_FORMAT, naming its file */
export const checkSameLatents = (own: AutoencoderConfig, other: AutoencoderConfig, path: string): void => {
  const text = (c: AutoencoderConfig): string => `${c.latentChannels} channels, 1/${pixelsPerLatent(c)} of the picture`
  if (own.latentChannels !== other.latentChannels || pixelsPerLatent(own) !== pixelsPerLatent(other))
    throw modelFormat(
      `${path}: expected an autoencoder for the model's latents (${text(own)}) but its own have ${text(other)}`
    )
}

/**
 * Bytes of activations that encoding or decoding a picture takes at most on the CPU, counted from the largest maps.
 * AutoencoderKL: the last level's map, what it is computed from, and the map between a residual block's convolutions.
 */
export const autoencoderBytes = (config: AutoencoderConfig, width: number, height: number): number => {
  const pixels = width * height * 4
  if (isTiny(config)) return pixels * 3 * Math.max(config.encoderChannels, config.decoderChannels)
  const [first, second = first] = config.channels as [number, number?]
  const widens = second === first ? 2 * first : second + first
  return pixels * (first + Math.max(widens, 2 * first))
}
