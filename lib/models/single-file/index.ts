import { existsSync } from 'node:fs'
import { modelFormat, unsupported } from '../../errors.js'
import { parseClipTextConfig } from '../clip-text.js'
import { checkWidths, readModelFolder, type Component, type ModelFolder, type TextComponent } from '../folder.js'
import { isSdxl } from '../pipeline-classes.js'
import type { TokenizerSource } from '../tokenizer-source.js'
import { parseUNetConfig } from '../unet.js'
import { traitsOf, type AutoencoderConfig } from '../autoencoder.js'
import { parseVaeConfig, type VaeConfig } from '../vae.js'
import type { ComponentWeights } from '../weights.js'
import { Checkpoint, type CheckpointReader } from './checkpoint.js'
import {
  describeForeign,
  type Family,
  familyNames,
  isXlFamily,
  findVae,
  recognise,
  type TextPart,
  textParts,
  unetPrefix
} from './recognise.js'
import { type PredictionType, readPrediction, schedulerFor } from './scheduler.js'
import { isTinyCheckpoint, readTinyFile } from './taesd.js'
import { projectionWidth, textConfigJson, textWeights } from './text.js'
import { unetConfigJson, unetWeights } from './unet.js'
import { type VaeTraits, vaeConfigJson, vaeWeights } from './vae.js'

export interface ReadSingleFileOptions {
  readonly readHeader: CheckpointReader
  /** A diffusers folder with the configurations (and tokenizers) to use; its weights, where it has some, are not read. */
  readonly config?: string
  /** Instead of what the file says, or of what is assumed where it says nothing. */
  readonly predictionType?: PredictionType
  /** Reads the VAE to use instead of the file's own. */
  readonly otherVae?: (own: VaeTraits) => Promise<Component<AutoencoderConfig>>
}

/** What SD's VAEs have in common and their shapes do not say; the scaling of latents differs for SDXL. */
const vaeTraits = (family: Family, latentSide: number): VaeTraits => ({
  normGroups: 32,
  scalingFactor: isXlFamily(family) ? 0.13025 : 0.18215,
  shiftFactor: 0,
  latentsMean: undefined,
  latentsStd: undefined,
  forceUpcast: true,
  sampleSize: { height: 8 * latentSide, width: 8 * latentSide }
})

/** Shapes do not say how channels are grouped: only the sizes of released models are known. */
const checkRealSize = (unet: Checkpoint): void => {
  const width = unet.dimension('input_blocks.0.0.weight', 0)
  if (width % 64 === 0) return
  throw unsupported(
    `${unet.path}: expected a UNet whose first level has a multiple of 64 channels, as every released model does, but it has ${width}: ` +
      "the number of heads and of norm groups cannot be told from the file; give config, a diffusers folder with the model's configurations"
  )
}

const readVaeComponent = (vae: Checkpoint, traits: VaeTraits): Component<VaeConfig> => ({
  folder: vae.path,
  config: parseVaeConfig(vaeConfigJson(vae, traits), vae.path),
  weights: vaeWeights(vae)
})

/**
 * A file that holds an autoencoder alone in its original layout: a VAE, with or without the prefix first_stage_model.,
 * or TAESD.
 * @param own what the shapes do not say, from the VAE that this one replaces: both serve the same latents
 * @throws ERR_ND_UNSUPPORTED, ERR_ND_MODEL_FORMAT, what readHeader throws
 */
export const readVaeFile = async (
  path: string,
  own: VaeTraits,
  readHeader: CheckpointReader
): Promise<Component<AutoencoderConfig>> => {
  const checkpoint = await Checkpoint.read(path, readHeader)
  if (isTinyCheckpoint(checkpoint)) return readTinyFile(checkpoint, readHeader, existsSync)
  const vae = findVae(checkpoint)
  if (vae) return readVaeComponent(vae, own)
  if (checkpoint.some(/^(encoder\.down_blocks|decoder\.up_blocks)\./))
    throw unsupported(
      `${path}: expected a VAE in its original layout but this one is in the diffusers layout; give the folder that has its config.json too`
    )
  throw describeForeign(
    checkpoint,
    'a VAE in its original layout (encoder.*, decoder.*, with or without first_stage_model.)'
  )
}

const noVae = (path: string): Error =>
  modelFormat(`${path}: expected a VAE (first_stage_model.*) but the file has none; give one with the option vae`)

/** CLIP's own vocabulary: OpenCLIP's tokenizers of SD2 and SDXL pad with "!" (id 0). */
const builtInTokenizer = (part: TextPart, vocabSize: number, path: string): TokenizerSource => {
  if (vocabSize !== 49408)
    throw unsupported(
      `${path}: expected CLIP's vocabulary of 49408 tokens for ${part.prefix}* but the embedding has ${vocabSize}; give config, a diffusers folder with the model's tokenizer`
    )
  return { builtIn: 'clip', padToken: part.layout === 'openclip' ? '!' : '<|endoftext|>' }
}

/**
 * Reads a checkpoint in the original layout (latent-diffusion's for SD1 and SD2, generative-models' for SDXL): what
 * readModelFolder would give for the same model in a diffusers folder, from the tensors' names and shapes.
 * @throws ERR_ND_MODEL_NOT_FOUND, ERR_ND_MODEL_FORMAT, ERR_ND_UNSUPPORTED, each naming the file and what to do
 */
export const readSingleFile = async (path: string, options: ReadSingleFileOptions): Promise<ModelFolder> => {
  const checkpoint = await Checkpoint.read(path, options.readHeader)
  const family = recognise(checkpoint)
  return options.config === undefined
    ? fromShapes(checkpoint, family, options)
    : withConfig(checkpoint, family, options.config, options)
}

const presentTexts = (checkpoint: Checkpoint, family: Family) =>
  textParts[family].map((part) => ({ part, text: checkpoint.under(part.prefix) })).filter(({ text }) => text.size > 0)

const fromShapes = async (
  checkpoint: Checkpoint,
  family: Family,
  options: ReadSingleFileOptions
): Promise<ModelFolder> => {
  const { path } = checkpoint
  const unet = checkpoint.under(unetPrefix)
  checkRealSize(unet)
  const prediction = readPrediction(checkpoint, family, options.predictionType)
  const texts = presentTexts(checkpoint, family)
  const projected = texts.find(({ part }) => part.projected)
  const refiner = family === 'refiner'
  const timeIds = refiner ? 5 : 6
  const sampleSize = isXlFamily(family) ? 128 : family === 'sd2' && prediction.type === 'v_prediction' ? 96 : 64
  const unetJson = unetConfigJson(unet, {
    heads: family === 'sd1' ? 'eight' : 'width64',
    pooledWidth: projected ? projectionWidth(projected.text) : 0,
    timeIds,
    sampleSize
  })
  const traits = vaeTraits(family, sampleSize)
  const vae = findVae(checkpoint)
  if (!vae && !options.otherVae) throw noVae(path)
  const encoders = texts.map(({ part, text }): { part: TextPart; encoder: TextComponent } => {
    const className = part.projected ? 'CLIPTextModelWithProjection' : 'CLIPTextModel'
    const json = textConfigJson(text, part.layout, part.projected)
    const config = parseClipTextConfig(json, className, path)
    return { part, encoder: { kind: 'clip-text', folder: path, config, weights: textWeights(text, part.layout) } }
  })
  const [first, second] = (['text_encoder', 'text_encoder_2'] as const).map((component) => {
    const found = encoders.find(({ part }) => part.component === component)
    return found && { ...found, tokenizer: builtInTokenizer(found.part, found.encoder.config.vocabSize, path) }
  })
  const unetConfig = parseUNetConfig(unetJson, path)
  checkWidths(path, unetConfig, [first?.encoder ?? null, second?.encoder ?? null], timeIds, 'the UNet')
  return {
    path,
    className: refiner
      ? 'StableDiffusionXLImg2ImgPipeline'
      : family === 'sdxl'
        ? 'StableDiffusionXLPipeline'
        : 'StableDiffusionPipeline',
    index: {},
    unet: { folder: path, config: unetConfig, weights: unetWeights(unet) },
    vae: options.otherVae ? await options.otherVae(traits) : readVaeComponent(vae!, traits),
    textEncoder: first?.encoder ?? null,
    tokenizer: first?.tokenizer ?? null,
    textEncoder2: second?.encoder ?? null,
    tokenizer2: second?.tokenizer ?? null,
    scheduler: schedulerFor(family, prediction),
    noisingScheduler: null,
    requiresAestheticsScore: refiner,
    forceZerosForEmptyPrompt: !refiner,
    warnings: prediction.warnings
  }
}

/** The folder says what the shapes do not; the file has the weights. */
const withConfig = async (
  checkpoint: Checkpoint,
  family: Family,
  folder: string,
  options: ReadSingleFileOptions
): Promise<ModelFolder> => {
  const { path } = checkpoint
  const weightsOf = (component: string): ComponentWeights => {
    if (component === 'unet') return unetWeights(checkpoint.under(unetPrefix))
    if (component === 'vae') {
      const vae = findVae(checkpoint)
      if (vae) return vaeWeights(vae)
      if (!options.otherVae) throw noVae(path)
      return { files: [], tensors: [], variant: undefined } // replaced below
    }
    const part = presentTexts(checkpoint, family).find((p) => p.part.component === component)
    if (!part) throw modelFormat(`${path}: expected a ${component}, as ${folder} has, but the file has none`)
    return textWeights(part.text, part.part.layout)
  }
  const tokenizerOf = (component: string, vocabSize: number): TokenizerSource =>
    builtInTokenizer(
      textParts[family].find((part) => part.component === component)!,
      vocabSize,
      path
    )
  const model = await readModelFolder(folder, { ...options, origin: { weightsOf, tokenizerOf } })
  const clip = [model.textEncoder, model.textEncoder2].every((text) => !text || text.kind === 'clip-text')
  if (
    isSdxl(model.className) !== isXlFamily(family) ||
    model.requiresAestheticsScore !== (family === 'refiner') ||
    !clip ||
    !model.vae
  )
    throw modelFormat(
      `${path}: expected config for ${familyNames[family]}, as the file's tensors are, but ${folder} is of a ${model.className}`
    )
  const { scheduler } = model
  return {
    ...model,
    path,
    vae: options.otherVae ? await options.otherVae(traitsOf(model.vae.config, isXlFamily(family))) : model.vae,
    scheduler: options.predictionType
      ? { ...scheduler, config: { ...scheduler.config, prediction_type: options.predictionType } }
      : scheduler
  }
}
