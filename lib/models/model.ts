import { invalidArgument } from '../errors.js'
import { traitsOf, type AutoencoderConfig } from './autoencoder.js'
import { isFolder } from './files.js'
import { type Component, type ModelFolder, readFolder, readVaeFolder, type UnconditionalFolder } from './folder.js'
import type { CheckpointReader } from './single-file/checkpoint.js'
import { readSingleFile, readVaeFile } from './single-file/index.js'
import { isSdxl } from './pipeline-classes.js'
import type { PredictionType } from './single-file/scheduler.js'
import type { VaeTraits } from './single-file/vae.js'

export interface ReadModelOptions {
  readonly readHeader: CheckpointReader
  /** Folders: weights from *.VARIANT.safetensors. */
  readonly variant?: string | undefined
  /** Folders: the variant to take where a component has it and `variant` is not given. */
  readonly prefer?: string | undefined
  /** Single files: a diffusers folder with the configurations to use. */
  readonly config?: string | undefined
  /** Another VAE: a folder, or a file in the original layout. */
  readonly vae?: string | undefined
  readonly predictionType?: PredictionType | undefined
}

const predictionTypes: readonly PredictionType[] = ['epsilon', 'v_prediction', 'sample']

const isSingleFile = async (path: string): Promise<boolean> => /\.safetensors$/i.test(path) && !(await isFolder(path))

/** An autoencoder by itself: a folder, or a file in its original layout. @param own of the model that it is for */
export const readVae = async (
  path: string,
  own: VaeTraits,
  readHeader: CheckpointReader
): Promise<Component<AutoencoderConfig>> =>
  (await isSingleFile(path)) ? readVaeFile(path, own, readHeader) : readVaeFolder(path, { readHeader })

/**
 * Reads a model's description, wherever it is: a folder in the diffusers layout, or a single file in the original one.
 * @throws ERR_ND_INVALID_ARGUMENT, ERR_ND_MODEL_NOT_FOUND, ERR_ND_MODEL_FORMAT, ERR_ND_UNSUPPORTED
 */
export const readModel = async (
  path: string,
  options: ReadModelOptions
): Promise<ModelFolder | UnconditionalFolder> => {
  const { readHeader, variant, prefer, config, vae, predictionType } = options
  if (predictionType !== undefined && !predictionTypes.includes(predictionType))
    throw invalidArgument('predictionType', predictionTypes.map((type) => `'${type}'`).join(', '), predictionType)
  const otherVae =
    vae === undefined
      ? undefined
      : (own: VaeTraits): Promise<Component<AutoencoderConfig>> => readVae(vae, own, readHeader)

  if (await isSingleFile(path)) {
    if (variant !== undefined) throw invalidArgument('variant', 'nothing, as a single file has no variants,', variant)
    return readSingleFile(path, {
      readHeader,
      ...(config === undefined ? {} : { config }),
      ...(predictionType === undefined ? {} : { predictionType }),
      ...(otherVae ? { otherVae } : {})
    })
  }
  if (config !== undefined)
    throw invalidArgument('config', 'nothing, as a diffusers folder has its own configurations,', config)
  const model = await readFolder(path, {
    readHeader,
    ...(variant === undefined ? {} : { variant }),
    ...(prefer === undefined ? {} : { prefer })
  })
  const { scheduler } = model
  if (otherVae && !model.vae) throw invalidArgument('vae', 'nothing, as this model paints pixels,', vae)
  return {
    ...model,
    vae: otherVae && model.vae ? await otherVae(traitsOf(model.vae.config, isSdxl(model.className))) : model.vae,
    scheduler: predictionType
      ? { ...scheduler, config: { ...scheduler.config, prediction_type: predictionType } }
      : scheduler
  }
}
