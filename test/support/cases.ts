/** The pipeline cases of test/reference/tiny/*.json, as calls of this library. */
import { readFileSync } from 'node:fs'
import { createScheduler, parseConfigJson, type Txt2ImgOptions } from 'node-diffusion'
import { reference } from './paths.js'
import { TestFile } from './safetensors.js'

export interface PipelineCase {
  case: string
  pipeline: string
  seed: number
  scheduler: Record<string, unknown> & { class: string }
  args: Record<string, unknown>
}

export interface Family {
  cases: PipelineCase[]
  tensors: TestFile
}

export const family = (name: string): Family => ({
  cases: parseConfigJson(readFileSync(reference('tiny', `${name}.json`), 'utf8')) as unknown as PipelineCase[],
  tensors: new TestFile(reference('tiny', `${name}.safetensors`))
})

/** diffusers' argument names → this library's options. */
const optionNames: Record<string, keyof Txt2ImgOptions> = {
  prompt: 'prompt',
  negative_prompt: 'negativePrompt',
  prompt_2: 'prompt2',
  num_inference_steps: 'steps',
  guidance_scale: 'guidanceScale',
  guidance_rescale: 'guidanceRescale',
  height: 'height',
  width: 'width',
  eta: 'eta',
  num_images_per_prompt: 'count',
  clip_skip: 'clipSkip',
  original_size: 'originalSize',
  crops_coords_top_left: 'cropsCoordsTopLeft',
  target_size: 'targetSize',
  denoising_end: 'denoisingEnd'
}

export const optionsOf = (c: PipelineCase): Txt2ImgOptions => {
  const options: Record<string, unknown> = { seed: c.seed, scheduler: createScheduler(c.scheduler) }
  for (const [name, value] of Object.entries(c.args)) {
    const key = optionNames[name]
    if (!key) throw new Error(`no option for ${name}`)
    options[key] = value
  }
  return options
}
