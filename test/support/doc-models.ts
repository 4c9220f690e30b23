/** Tiny models under the names that the documentation gives to real ones. */
import { mkdirSync, symlinkSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { reference } from './paths.js'
import { editModel, inpaintModel, lcmModel, refinerModel, upscalerModel } from './picture-models.js'

type Make = (path: string) => void
const tiny =
  (name: string): Make =>
  (path) =>
    symlinkSync(reference('models', name), path)

const models: Readonly<Record<string, Make>> = {
  'models/stable-diffusion-v1-5': tiny('tiny-sd15'),
  'stable-diffusion-v1-5/stable-diffusion-v1-5': tiny('tiny-sd15'),
  'stable-diffusion-v1-5': tiny('tiny-sd15'),
  'models/stable-diffusion-2-1': tiny('tiny-sd2'),
  'models/stable-diffusion-xl-base-1.0': tiny('tiny-sdxl'),
  'models/stable-diffusion-xl-refiner-1.0': (path) => void refinerModel(path),
  'models/stable-diffusion-inpainting': (path) => void inpaintModel(path),
  'models/instruct-pix2pix': (path) => void editModel(path),
  'models/stable-diffusion-x4-upscaler': (path) => void upscalerModel(path),
  'sdxl-turbo': tiny('tiny-sdxl'),
  'sdxl_lightning_4step.safetensors': tiny('tiny-sdxl'), // a folder, whatever its name says
  LCM_Dreamshaper_v7: (path) => void lcmModel(path),
  'ddpm-cat-256': tiny('tiny-ddpm'),
  './ldm-text2im-large-256': tiny('tiny-ldm-bert'),
  'lllyasviel/control_v11p_sd15_canny': tiny('tiny-controlnet-sd15'),
  taesd: tiny('tiny-taesd'),
  'v1-5-pruned-emaonly.safetensors': tiny('tiny-sd15'), // a folder as well
  'models/ip-adapter-plus_sd15.safetensors': tiny('tiny-ip-adapter-plus.safetensors'),
  'models/image_encoder': tiny('tiny-clip-vision'),
  'watercolour.safetensors': (path) => symlinkSync(reference('loras', 'kohya.safetensors'), path),
  'more-details.safetensors': (path) => symlinkSync(reference('loras', 'peft.safetensors'), path)
}

/** Puts the models that a program names into `folder`, and says which they are. */
export const placeModels = (code: string, folder: string): string[] => {
  const named = Object.keys(models).filter((name) => code.includes(`'${name}'`))
  for (const name of named) {
    const path = join(folder, name)
    mkdirSync(dirname(path), { recursive: true })
    models[name]!(path)
  }
  return named
}
