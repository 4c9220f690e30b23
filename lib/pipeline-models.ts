/** What a call needs to know of the pipeline's model. */
import { pixelsPerLatent } from './models/autoencoder.js'
import type { ModelFolder } from './models/folder.js'
import { isSdxl, partsOf } from './models/pipeline-classes.js'
import { paintedChannels } from './tasks.js'
import type { Txt2ImgModels } from './txt2img.js'

type OfPipeline = Pick<Txt2ImgModels, 'adapters' | 'ipAdapters' | 'scheduler' | 'name' | 'hasPreviewVae' | 'tokenizers'>

/** @param own what the folder does not say: the pipeline's present state */
export const modelsOf = (folder: ModelFolder, own: OfPipeline): Txt2ImgModels => {
  const unet = folder.unet.config
  const parts = partsOf(folder.className)
  const xl = isSdxl(folder.className)
  const latentChannels = paintedChannels(folder)
  const factor = folder.vae ? pixelsPerLatent(folder.vae.config) : 1
  const sample = unet.sampleSize
  return {
    ...own,
    unet,
    xl,
    factor,
    defaultSize: { width: (sample?.width ?? 64) * factor, height: (sample?.height ?? 64) * factor },
    defaultGuidanceScale: parts.guidanceScale ?? 7.5,
    defaultSteps: parts.steps ?? 50,
    lowerCase: parts.lowerCase ?? false,
    guidedBelowOne: parts.guidedBelowOne ?? false,
    latentChannels,
    autoencoder: folder.vae?.config,
    extraChannels: unet.inChannels - latentChannels,
    aestheticScores: folder.requiresAestheticsScore,
    consistency: parts.consistency ?? false,
    defaultPagScale: parts.pagScale ?? 0,
    timeCondWidth: unet.timeCondWidth,
    // SDXL's second encoder reads prompt2, also where it is the only one.
    promptOf: xl ? (folder.textEncoder ? [0, 1] : [1]) : [0],
    zerosForEmpty: xl && folder.forceZerosForEmptyPrompt
  }
}
