import { randomInt } from 'node:crypto'
import { access, constants } from 'node:fs/promises'
import { basename, dirname, extname, join, resolve } from 'node:path'
import { animation } from '../animation.js'
import { contactSheet } from '../contact-sheet.js'
import { DiffusionError, invalidArgument } from '../errors.js'
import { type DiffusionImage, imageFormat, writeAtomically } from '../image.js'
import { Pipeline, type GenerationResult, type StepEvent, type Txt2ImgOptions } from '../index.js'
import { checkControlArguments, loadControls, type ControlArguments } from './control.js'
import {
  hiresOptions,
  marginOptions,
  repaintOptions,
  resizeOptions,
  variationOptions,
  type ModeOptions
} from './modes.js'
import { given } from './arguments.js'
import { attentionSheet } from './attention.js'
import { makeProgress } from './progress.js'
import { checkPrompt, paintsWithoutText, withoutTextOptions } from './without-text.js'

/** The options of the command line, as commander hands them over. */
export interface PaintOptions extends ModeOptions, ControlArguments {
  output: string
  model: string
  device: string
  dtype?: string
  steps?: number
  seed?: bigint
  scheduler?: string
  guidance?: number
  guidanceRescale?: number
  negative?: string
  image?: string
  strength?: number
  mask?: string
  imageGuidance?: number
  width?: number
  height?: number
  count: number
  clipSkip?: number
  eta?: number
  rng?: 'cpu' | 'cuda'
  threads?: number
  weights?: boolean
  lora?: { path: string; strength?: number }[]
  embedding?: { path: string; token?: string }[]
  showSteps?: boolean
  animate?: string
  attention?: true
  vaeTiling?: true
  quiet?: boolean
}

/** out.png → out-2.png where there are several, out-steps.png for the steps. */
export const withSuffix = (path: string, suffix: string): string => {
  const extension = extname(path)
  return join(dirname(path), `${basename(path, extension)}${suffix}${extension}`)
}

export const checkOutput = async (path: string): Promise<void> => {
  imageFormat(path)
  await checkFolder('--output', path)
}

const checkFolder = async (option: string, path: string): Promise<void> => {
  const folder = dirname(resolve(path))
  try {
    await access(folder, constants.W_OK)
  } catch (cause) {
    throw new DiffusionError(
      'ERR_ND_INVALID_ARGUMENT',
      `Expected a folder that can be written to for ${option} but received ${folder}`,
      {
        cause
      }
    )
  }
}

const animatedFormat = (path: string): 'webp' | 'gif' => {
  const format = extname(path).toLowerCase()
  if (format === '.webp') return 'webp'
  if (format === '.gif') return 'gif'
  throw invalidArgument('--animate', 'a file name ending in .webp or .gif', path)
}

/** Only what was given: the pipeline has the defaults. */
const txt2imgOptions = (prompt: string | undefined, o: PaintOptions): Txt2ImgOptions => ({
  ...variationOptions(o),
  ...given({
    prompt,
    negativePrompt: o.negative,
    width: o.width,
    height: o.height,
    steps: o.steps,
    guidanceScale: o.guidance,
    guidanceRescale: o.guidanceRescale,
    clipSkip: o.clipSkip,
    eta: o.eta,
    rng: o.rng,
    scheduler: o.scheduler,
    promptWeighting: o.weights,
    attentionMaps: o.attention,
    vaeTiling: o.vaeTiling
  })
})

const checkPictureOptions = (o: PaintOptions): void => {
  const needing = (names: readonly (keyof PaintOptions)[], option: string, value: unknown): void => {
    for (const name of names)
      if (o[name] !== undefined && value === undefined)
        throw invalidArgument(option, `a picture for --${name.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`)}`, value)
  }
  needing(['mask', 'strength', 'imageGuidance', 'resizeMode', 'outpaint'], '--image', o.image)
  if (o.outpaint === undefined)
    needing(['maskBlur', 'maskedContent', 'invertMask', 'paddingMaskCrop', 'outpaintFill', 'overlap'], '--mask', o.mask)
  if (o.image !== undefined && o.hires !== undefined)
    throw invalidArgument('--hires', 'nothing next to --image (only text to image has a second pass)', o.hires)
  if (o.outpaint !== undefined && o.mask !== undefined)
    throw invalidArgument('--mask', 'nothing next to --outpaint, which makes its own', o.mask)
}

/** The task that the options and the model ask for. */
const run = (pipe: Pipeline, options: Txt2ImgOptions, o: PaintOptions): Promise<GenerationResult> => {
  const { image, mask } = o
  const strength = given({ strength: o.strength })
  if (image === undefined) return pipe.txt2img({ ...options, ...hiresOptions(o) })
  if (o.outpaint !== undefined) {
    const rest = { ...options }
    delete rest.width
    delete rest.height
    return pipe.outpaint({ ...rest, image, ...strength, ...marginOptions(o) })
  }
  const common = { ...options, image, ...resizeOptions(o) }
  if (mask !== undefined) return pipe.inpaint({ ...common, mask, ...strength, ...repaintOptions(o) })
  if (pipe.tasks.includes('edit') && o.strength === undefined)
    return pipe.edit({ ...common, ...given({ imageGuidanceScale: o.imageGuidance }) })
  return pipe.img2img({ ...common, ...strength })
}

/** Paints `count` pictures, the k-th with seed + k, each written as soon as it is done, and prints their paths. */
export const paint = async (prompt: string | undefined, o: PaintOptions, signal: AbortSignal): Promise<void> => {
  await checkOutput(o.output)
  if (o.animate !== undefined) {
    animatedFormat(o.animate)
    await checkFolder('--animate', o.animate)
  }
  checkPictureOptions(o)
  checkControlArguments(o)
  const progress = makeProgress(o.quiet ?? false)
  const say = (text: string): void => void (o.quiet || process.stderr.write(`${text}\n`))
  const loading = performance.now()
  const pipe = await Pipeline.fromPretrained(o.model, {
    device: o.device,
    ...(o.dtype === undefined ? {} : { dtype: o.dtype }),
    ...(o.threads === undefined ? {} : { threads: o.threads }),
    signal
  })
  try {
    const reason = pipe.deviceReason ? ` (${pipe.deviceReason})` : ''
    say(`${o.model} on ${pipe.device}${reason}, loaded in ${((performance.now() - loading) / 1000).toFixed(2)} s`)
    for (const warning of pipe.warnings) say(`warning: ${warning}`)
    checkPrompt(prompt, o, pipe)
    for (const { path, ...rest } of o.lora ?? []) await pipe.loadLora(path, rest)
    for (const { path, ...rest } of o.embedding ?? []) await pipe.loadTextualInversion(path, rest)
    const withoutText = paintsWithoutText(pipe)
    const options = withoutText ? {} : { ...txt2imgOptions(prompt, o), ...(await loadControls(pipe, o)) }
    const first = o.seed ?? BigInt(randomInt(2 ** 32))
    for (let k = 0; k < o.count; k++) {
      // Variations are of one seed, towards one subseed after the other.
      const varied = o.subseed !== undefined && (o.subseedStrength ?? 0) > 0
      const seed = first + (varied ? 0n : BigInt(k))
      const started = performance.now()
      const stepImages: DiffusionImage[] = []
      let begun = false
      const common = {
        seed,
        signal,
        preview: (o.showSteps ?? false) || o.animate !== undefined,
        onStep(event: StepEvent) {
          if (!begun) progress.start(o.count > 1 ? `picture ${k + 1}/${o.count}` : 'painting', event.steps)
          begun = true
          progress.update(event.step)
          if (event.image) stepImages.push(event.image)
        }
      }
      const variation = varied ? { subseed: o.subseed! + BigInt(k) } : {}
      const running = withoutText
        ? pipe.unconditional({ ...withoutTextOptions(o), ...common })
        : run(pipe, { ...options, ...variation, ...common }, o)
      const result = await running.finally(() => progress.stop())
      const image = result.images[0]!
      for (const warning of result.warnings) say(`warning: ${warning}`)
      const path = o.count > 1 ? withSuffix(o.output, `-${k + 1}`) : o.output
      await image.save(path)
      say(`seed ${seed}: ${((performance.now() - started) / 1000).toFixed(2)} s`)
      process.stdout.write(`${path}\n`)
      const write = async (sheet: DiffusionImage, suffix: string): Promise<void> => {
        const sheetPath = withSuffix(path, suffix)
        await sheet.save(sheetPath)
        process.stdout.write(`${sheetPath}\n`)
      }
      if (o.showSteps && stepImages.length)
        await write(await contactSheet(stepImages, { labels: stepImages.map((_, i) => String(i + 1)) }), '-steps')
      if (o.animate !== undefined) {
        const file = o.count > 1 ? withSuffix(o.animate, `-${k + 1}`) : o.animate
        await writeAtomically(file, await animation([...stepImages, image], { format: animatedFormat(file) }))
        process.stdout.write(`${file}\n`)
      }
      const attention = await attentionSheet(result)
      if (attention) await write(attention, '-attention')
    }
  } finally {
    await pipe.dispose()
  }
}
