/** Requests and results as they travel through Redis: JSON in the queue, pictures beside it under keys that expire. */
import { DiffusionError, invalidArgument, type ErrorCode } from '../../errors.js'
import { DiffusionImage, loadImage } from '../../image.js'
import type { TaskOptions } from '../../pipeline.js'
import { readPngText } from '../../png-metadata.js'
import type { Task } from '../../tasks.js'
import { cancelled } from '../job.js'
import type { Painted, PaintRequest } from '../painter.js'

/** All keys of BullMQ begin with it; ours with `${prefix}:${queue}-pictures`. */
export const prefix = 'node-diffusion'

/** Seconds. */
export const inputSeconds = 24 * 3600
export const outputSeconds = 3600

export const keys = (queue: string) => ({
  /** A hash of the pictures that a request brought. */
  input: (id: string): string => `${prefix}:${queue}-pictures:in:${id}`,
  /** A hash of the pictures that one attempt of a job made. */
  output: (id: string, token: string): string => `${prefix}:${queue}-pictures:out:${id}:${token}`,
  preview: (id: string): string => `${prefix}:${queue}-pictures:preview:${id}`,
  /** Is there when the job is to end. */
  cancel: (id: string): string => `${prefix}:${queue}-pictures:cancel:${id}`
})

export interface WireRequest {
  readonly model: string
  readonly task: Task
  readonly options: unknown
  /** How many pictures lie under its key. */
  readonly pictures: number
  readonly priority: number
}

export interface WireResult {
  readonly model: string
  readonly seeds: readonly (string | null)[]
  readonly timings: Painted['result']['timings']
  readonly warnings: readonly string[]
  /** The key of the pictures, and how many there are. */
  readonly key: string
  readonly pictures: number
}

export interface WireStep {
  readonly step: number
  readonly steps: number
  readonly preview: boolean
}

/** What JSON cannot hold is put in such an object. */
type Marked = { $picture: number } | { $bigint: string }

const isPlain = (value: object): boolean => {
  const prototype: unknown = Object.getPrototypeOf(value)
  return prototype === Object.prototype || prototype === null
}

/** @throws ERR_ND_INVALID_ARGUMENT for what cannot leave the process: functions, tensors, sharp instances */
export const encodeRequest = (request: PaintRequest & { model: string }): { wire: WireRequest; pictures: Buffer[] } => {
  const pictures: Buffer[] = []
  const encode = (name: string, value: unknown): unknown => {
    if (value instanceof Uint8Array) {
      pictures.push(Buffer.from(value.buffer, value.byteOffset, value.byteLength))
      return { $picture: pictures.length - 1 } satisfies Marked
    }
    if (typeof value === 'bigint') return { $bigint: String(value) } satisfies Marked
    if (Array.isArray(value)) return value.map((item, i) => encode(`${name}[${i}]`, item))
    if (typeof value === 'object' && value !== null && isPlain(value) && !Object.keys(value).some((k) => k[0] === '$'))
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, encode(`${name}.${key}`, item)]))
    if (value === null || ['string', 'number', 'boolean', 'undefined'].includes(typeof value)) return value
    throw invalidArgument(name, 'numbers, texts and encoded pictures (a queue over Redis carries nothing else)', value)
  }
  const { model, task } = request
  const options = encode('options', request.options)
  return { wire: { model, task, options, pictures: pictures.length, priority: request.priority ?? 0 }, pictures }
}

export const decodeRequest = (wire: WireRequest, pictures: readonly Buffer[]): PaintRequest & { model: string } => {
  const decode = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(decode)
    if (typeof value !== 'object' || value === null) return value
    const marked = value as Partial<Record<'$picture' | '$bigint', unknown>>
    if (typeof marked.$picture === 'number') return pictures[marked.$picture]
    if (typeof marked.$bigint === 'string') return BigInt(marked.$bigint)
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, decode(item)]))
  }
  return { model: wire.model, task: wire.task, options: decode(wire.options) as TaskOptions[Task] }
}

const seedOf = (text: string | null): number | bigint | null => {
  if (text === null) return null
  const seed = BigInt(text)
  return seed <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(seed) : seed
}

/** A picture out of the PNG file that a worker made, with its parameters. */
export const imageOf = async (png: Buffer): Promise<DiffusionImage> =>
  new DiffusionImage({ ...(await loadImage(png)), parameters: readPngText(png).parameters })

export const paintedOf = async (wire: WireResult, pictures: readonly Buffer[]): Promise<Painted> => ({
  model: wire.model,
  result: {
    images: await Promise.all(pictures.map(imageOf)),
    seeds: wire.seeds.map(seedOf),
    timings: wire.timings,
    warnings: wire.warnings
  }
})

/** Errors travel as text: the code, then the message. */
export const failureText = (error: unknown): string =>
  `${error instanceof DiffusionError ? error.code : 'ERR_ND_INTERNAL'}: ${(error as Error).message}`

export const failureOf = (text: string): DiffusionError => {
  const [, code, message] = /^(ERR_ND_[A-Z_]+): ([^]*)$/.exec(text) ?? []
  if (code === 'ERR_ND_ABORTED') return cancelled()
  if (code) return new DiffusionError(code as ErrorCode, message!)
  if (/stalled more than/.test(text))
    return new DiffusionError('ERR_ND_INTERNAL', 'the job was given up: every worker that took it died or fell silent')
  return new DiffusionError('ERR_ND_INTERNAL', text)
}
