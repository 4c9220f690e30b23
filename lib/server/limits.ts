/** What one request may ask for: a mistake, or ill will, must not take the machine from everybody else. */
import sharp from 'sharp'
import { invalidArgument } from '../errors.js'
import type { PaintRequest } from './painter.js'

/** The most that one request gets; more is refused before it waits. */
export interface RequestLimits {
  /** Pixels of a picture that is painted, the second pass of `hires` too; default 2048 × 2048. */
  pixels: number
  /** Pictures of a request; default 64. */
  images: number
  /** Default 1000. */
  steps: number
  /** Characters of a prompt; default 32000. */
  characters: number
  /** Pixels of a picture that is sent; default 64 million. */
  inputPixels: number
}

export const defaultLimits: RequestLimits = {
  pixels: 2048 * 2048,
  images: 64,
  steps: 1000,
  characters: 32_000,
  inputPixels: 64_000_000
}

/** Where a request leaves the size to the model. */
const assumedSide = 1024

const sideOf = (value: unknown): number => (typeof value === 'number' && value > 0 ? value : assumedSide)
const numberOf = (value: unknown): number => (typeof value === 'number' ? value : 1)
const listOf = (value: unknown): unknown[] => (Array.isArray(value) ? value : [value])

const checkPicture = async (name: string, bytes: Uint8Array, most: number): Promise<void> => {
  const size = await sharp(bytes, { limitInputPixels: false })
    .metadata()
    .catch(() => undefined)
  if (!size) throw invalidArgument(name, 'a picture that can be read', 'bytes that are none')
  if (size.width * size.height > most)
    throw invalidArgument(name, `a picture of at most ${most} pixels`, `${size.width}x${size.height}`)
}

/** Only what would be too much is looked at here: wrong types are the pipeline's to tell. @throws ERR_ND_INVALID_ARGUMENT */
export const checkLimits = async ({ options }: PaintRequest, limits: RequestLimits): Promise<void> => {
  const o = options as Readonly<Record<string, unknown>>
  for (const name of ['prompt', 'negativePrompt', 'prompt2', 'negativePrompt2'])
    for (const text of listOf(o[name]))
      if (typeof text === 'string' && text.length > limits.characters)
        throw invalidArgument(name, `at most ${limits.characters} characters`, `${text.length} of them`)
  const prompts = Array.isArray(o.prompt) ? o.prompt.length : 1
  if (prompts * numberOf(o.count ?? 1) > limits.images)
    throw invalidArgument('count', `at most ${limits.images} pictures in one request`, o.count ?? prompts)
  const hires = (typeof o.hires === 'object' && o.hires !== null ? o.hires : {}) as Readonly<Record<string, unknown>>
  for (const steps of [o.steps, hires.steps])
    if (numberOf(steps) > limits.steps) throw invalidArgument('steps', `at most ${limits.steps}`, steps)
  const [width, height] = [sideOf(o.width), sideOf(o.height)]
  const scale = numberOf(hires.scale ?? 1)
  const asked = [
    [width, height],
    [numberOf(hires.width ?? width * scale), numberOf(hires.height ?? height * scale)]
  ] as const
  for (const [w, h] of asked)
    if (w * h > limits.pixels) throw invalidArgument('width and height', `at most ${limits.pixels} pixels`, `${w}x${h}`)
  for (const name of ['image', 'mask'])
    for (const picture of listOf(o[name]))
      if (picture instanceof Uint8Array) await checkPicture(name, picture, limits.inputPixels)
}
