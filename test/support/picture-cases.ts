/** The img2img, inpainting and editing cases of the references, as calls of this library. */
import type { RawImage } from 'node-diffusion'
import { optionsOf, type PipelineCase } from './cases.js'
import type { TestFile } from './safetensors.js'

export type PictureTask = 'img2img' | 'inpaint' | 'edit'

const tasks: Record<string, PictureTask> = {
  StableDiffusionImg2ImgPipeline: 'img2img',
  StableDiffusionXLImg2ImgPipeline: 'img2img',
  StableDiffusionInpaintPipeline: 'inpaint',
  StableDiffusionXLInpaintPipeline: 'inpaint',
  StableDiffusionInstructPix2PixPipeline: 'edit'
}

/** undefined for the other pipelines. */
export const taskOf = (c: PipelineCase): PictureTask | undefined => tasks[c.pipeline]

const pictureOf = (tensors: TestFile, name: string): RawImage => {
  const { data, shape } = tensors.get(name)
  const [height, width, channels] = shape as [number, number, 1 | 3]
  return { data: data as Uint8Array, width, height, channels }
}

export const pictureOptionsOf = (c: PipelineCase, tensors: TestFile): Record<string, unknown> => {
  const { image, mask_image, strength, image_guidance_scale, ...args } = c.args
  const options: Record<string, unknown> = { ...optionsOf({ ...c, args }) }
  if (image) options.image = pictureOf(tensors, `${c.case}.image`)
  if (mask_image) options.mask = pictureOf(tensors, `${c.case}.mask_image`)
  if (strength !== undefined) options.strength = strength
  if (image_guidance_scale !== undefined) options.imageGuidanceScale = image_guidance_scale
  return options
}
