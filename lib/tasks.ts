/** What a model can do, read from its UNet's input channels. */
import { unsupported, type DiffusionError } from './errors.js'
import { isUnconditional, type ModelFolder, type UnconditionalFolder } from './models/folder.js'
import { isSdxl, partsOf } from './models/pipeline-classes.js'

export const tasks = ['txt2img', 'img2img', 'inpaint', 'edit', 'superResolution', 'unconditional'] as const
/** What a model can do; the names of Pipeline's methods. */
export type Task = (typeof tasks)[number]

type AnyFolder = ModelFolder | UnconditionalFolder

/** Channels of what the loop works on: of the latents, or of pictures where there is no autoencoder. */
export const paintedChannels = ({ vae, unet, className }: AnyFolder): number => {
  if (vae) return vae.config.latentChannels
  // A super-resolution UNet sees the small picture, enlarged, beside the one that it paints.
  const upscales = partsOf(className).tasks?.includes('superResolution') ?? false
  return upscales ? Math.floor(unet.config.inChannels / 2) : unet.config.inChannels
}

/**
 * With L latent channels, a UNet of L input channels paints and repaints, one of 2L + 1 (latents, mask, masked picture)
 * inpaints, one of 2L (latents, picture) is InstructPix2Pix's. SDXL's refiner paints from pictures only. None: unknown.
 */
export const tasksOf = (folder: AnyFolder): readonly Task[] => {
  const { inChannels, outChannels } = folder.unet.config
  const latentChannels = paintedChannels(folder)
  // A model in pixel space may predict its variance beside the noise.
  if (isUnconditional(folder))
    return outChannels === inChannels || outChannels === 2 * inChannels ? ['unconditional'] : []
  const only = partsOf(folder.className).tasks
  if (only) {
    const expected = only.includes('superResolution') ? 2 * latentChannels : latentChannels
    // Twice the channels: the variance, too, is predicted.
    const variance = folder.vae === null && outChannels === 2 * latentChannels
    return inChannels === expected && (outChannels === latentChannels || variance) ? only : []
  }
  if (outChannels !== latentChannels) return []
  switch (inChannels) {
    case latentChannels:
      return folder.requiresAestheticsScore ? ['img2img', 'inpaint'] : ['txt2img', 'img2img', 'inpaint']
    case 2 * latentChannels + 1:
      return ['inpaint']
    case 2 * latentChannels:
      return isSdxl(folder.className) ? [] : ['edit']
    default:
      return []
  }
}

export const unetChannelsError = (folder: AnyFolder): DiffusionError => {
  const latentChannels = paintedChannels(folder)
  return unsupported(
    `${folder.path}: expected a UNet from ${latentChannels} channels, as the VAE's latents have (or ${2 * latentChannels + 1} for ` +
      `inpainting, ${2 * latentChannels} for InstructPix2Pix, not SDXL), to ${latentChannels}, but this one goes from ` +
      `${folder.unet.config.inChannels} to ${folder.unet.config.outChannels}`
  )
}

export const taskError = (task: Task, able: readonly Task[], folder: AnyFolder): DiffusionError =>
  unsupported(
    `Expected a model for ${task} but this one, with a UNet of ${folder.unet.config.inChannels} input channels` +
      `${folder.requiresAestheticsScore ? ' and aesthetic scores (a refiner)' : ''}, is for ${able.join(', ')}`
  )
