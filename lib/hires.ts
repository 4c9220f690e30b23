/** AUTOMATIC1111's "hires fix": a picture painted small, enlarged, and painted on at the larger size. */
import { controlParameters, type ResolvedControls } from './control-options.js'
import { invalidArgument } from './errors.js'
import { DiffusionImage } from './image.js'
import type { ResolvedPicture } from './img2img-options.js'
import { hiresFields, upscalers, type ResolvedHires, type Size } from './hires-options.js'
import { cropMiddle, interpolate } from './interpolate.js'
import { createScheduler, type Scheduler } from './schedulers/index.js'
import { generate, parametersText, type GenerationResult, type Txt2ImgModels } from './txt2img.js'
import { texts, type ResolvedOptions, type StepEvent } from './txt2img-options.js'
import { finite } from './validate.js'

const nearest = (image: DiffusionImage, { width, height }: Size): DiffusionImage => {
  const data = new Uint8Array(width * height * 3)
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const fromY = Math.floor(((y + 0.5) * image.height) / height)
      const fromX = Math.floor(((x + 0.5) * image.width) / width)
      const at = (fromY * image.width + fromX) * 3
      data.set(image.data.subarray(at, at + 3), (y * width + x) * 3)
    }
  return new DiffusionImage({ data, width, height })
}

/** The first pass's result as what the second begins with. */
const enlarged = (
  first: GenerationResult,
  h: ResolvedHires,
  factor: number
): Pick<ResolvedPicture, 'pictures' | 'latents'> => {
  const how = upscalers[h.upscaler].latent
  const [size, cover] = [h.size, h.cover]
  if (!how)
    return {
      pictures: h.upscaler === 'nearest' ? first.images.map((image) => nearest(image, cover)) : first.images,
      latents: undefined
    }
  const large = interpolate(first.latents, cover.height / factor, cover.width / factor, how)
  return { pictures: [], latents: cropMiddle(large, size.height / factor, size.width / factor) }
}

/**
 * The steps and the strength with which img2img runs `h.steps` steps, the last part of a longer schedule. A latent
 * consistency model chooses its steps from the part that strength leaves.
 */
const schedule = (h: ResolvedHires, consistency: boolean): { steps: number; strength: number } => {
  const { steps, denoisingStrength } = h
  if (denoisingStrength === 0 || consistency) return { steps, strength: denoisingStrength }
  const total = Math.floor(steps / Math.min(denoisingStrength, 0.999))
  if (total > 1000)
    throw invalidArgument(
      'hires.denoisingStrength',
      `at least ${(steps / 1000).toFixed(3)}, of which ${steps} steps can be the last part,`,
      denoisingStrength
    )
  return { steps: total, strength: Math.min((steps + 0.5) / total, 1) }
}

/** Text to image in two passes; events and timings go on through both. Controls steer both. */
export const paintTwice = async (
  o: ResolvedOptions,
  h: ResolvedHires,
  models: Txt2ImgModels,
  controls?: ResolvedControls
): Promise<GenerationResult> => {
  const listener = o.onStep
  let done = { step: 0, evaluation: 0 }
  const forward = (extra: number) =>
    listener &&
    ((e: StepEvent): void =>
      listener({
        ...e,
        evaluation: e.evaluation + before.evaluation,
        step: e.step + before.step,
        steps: e.steps + before.step + extra
      }))
  let before = { step: 0, evaluation: 0 }
  const count = (call: ((e: StepEvent) => void) | undefined) =>
    call &&
    ((e: StepEvent): void => {
      done = { step: e.steps, evaluation: e.evaluation }
      call(e)
    })
  const latent = upscalers[h.upscaler].latent !== undefined
  const firstListener = count(forward(h.steps))
  const rest = { ...o }
  delete rest.onStep
  const first = await generate(
    {
      ...rest,
      attentionMaps: false,
      outputType: latent ? 'latent' : 'image',
      ...(firstListener ? { onStep: firstListener } : {})
    },
    models,
    undefined,
    controls
  )
  before = done
  const resolved = (choice: Scheduler | string | undefined, usual: Scheduler): Scheduler =>
    typeof choice === 'string' ? createScheduler(choice, models.scheduler.toJSON()) : (choice ?? usual)
  const firstScheduler = resolved(o.scheduler, models.scheduler)
  const secondScheduler = resolved(h.scheduler, firstScheduler)
  const consistency = models.consistency && ['LCMScheduler', 'TCDScheduler'].includes(secondScheduler.className)
  const { steps, strength } = schedule(h, consistency)
  const common = { ...rest }
  delete common.timesteps
  delete common.sigmas
  delete common.latents
  if (h.prompt !== undefined) {
    delete common.promptEmbeds
    delete common.negativePromptEmbeds
  }
  const prompts = h.prompt === undefined ? o.prompts : texts('hires.prompt', h.prompt, o.prompts.length)
  const negativePrompts =
    h.negativePrompt === undefined
      ? o.negativePrompts
      : texts('hires.negativePrompt', h.negativePrompt, o.prompts.length)
  const secondListener = forward(0)
  const second: ResolvedOptions = {
    ...common,
    prompts,
    prompts2: h.prompt === undefined ? o.prompts2 : prompts,
    negativePrompts,
    negativePrompts2: h.negativePrompt === undefined ? o.negativePrompts2 : negativePrompts,
    ...h.size,
    steps,
    guidanceScale: h.guidanceScale === undefined ? o.guidanceScale : finite('hires.guidanceScale', h.guidanceScale),
    scheduler: secondScheduler,
    ...(secondListener ? { onStep: secondListener } : {})
  }
  const begin: ResolvedPicture = {
    task: 'img2img',
    ...enlarged(first, h, models.factor),
    masks: [],
    strength,
    denoisingStart: undefined,
    imageGuidanceScale: 1,
    scores: undefined,
    resizeMode: 'crop',
    repaint: undefined
  }
  const result = await generate(second, models, begin, controls)
  const seeds = result.seeds.map((seed, i) => (first.seeds[i] === null ? null : seed))
  const fields = {
    ...(controls && controlParameters(controls)),
    ...hiresFields(o.steps, h, secondScheduler.label.sampler)
  }
  result.images.forEach((image, i) => {
    image.parameters = parametersText(o, firstScheduler, models, i, seeds[i] ?? null, undefined, fields)
  })
  const sum = (name: keyof GenerationResult['timings']): number => first.timings[name] + result.timings[name]
  return {
    ...result,
    seeds,
    warnings: [...new Set([...first.warnings, ...result.warnings])],
    timings: {
      text: sum('text'),
      encode: sum('encode'),
      denoise: sum('denoise'),
      decode: sum('decode'),
      total: sum('total')
    }
  }
}
