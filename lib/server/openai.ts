/** OpenAI's images API: generations, edits, variations, models. */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import sharp, { type Metadata } from 'sharp'
import { invalidArgument } from '../errors.js'
import type { DiffusionImage, ImageFormat } from '../image.js'
import type { Txt2ImgOptions } from '../txt2img-options.js'
import { oneOf } from '../validate.js'
import { disconnected, messageOf, retryAfter, statusOf, streamEvents } from './http.js'
import type { Outputs } from './outputs.js'
import type { Painter, PaintJob, PaintRequest } from './painter.js'

export interface OpenAiContext {
  readonly painter: Painter
  readonly outputs: Outputs
  readonly started: number
  /** Bytes of a form. */
  readonly bodyLimit: number
}

/** OpenAI's fields, and after them this server's own, which clients may add. */
const generationSchema = {
  type: 'object',
  required: ['prompt'],
  properties: {
    prompt: { type: 'string', minLength: 1, maxLength: 32000 },
    model: { type: 'string' },
    n: { type: ['integer', 'null'], minimum: 1, maximum: 10 },
    size: { type: ['string', 'null'], description: "'auto' (the model's own) or 'WIDTHxHEIGHT', multiples of 8" },
    response_format: { type: ['string', 'null'], enum: ['url', 'b64_json', null] },
    output_format: { type: ['string', 'null'], enum: ['png', 'jpeg', 'webp', null] },
    output_compression: { type: ['integer', 'null'], minimum: 0, maximum: 100 },
    stream: { type: ['boolean', 'null'] },
    partial_images: { type: ['integer', 'null'], minimum: 0, maximum: 3 },
    user: { type: 'string' },
    background: { type: ['string', 'null'], enum: ['auto', 'opaque', null], description: 'pictures are opaque' },
    negative_prompt: { type: 'string' },
    steps: { type: 'integer', minimum: 1, maximum: 1000 },
    guidance_scale: { type: 'number' },
    seed: { type: 'integer', minimum: 0 },
    scheduler: { type: 'string' },
    strength: { type: 'number', minimum: 0, maximum: 1 },
    priority: { type: 'integer' }
  }
} as const

interface GenerationBody {
  prompt: string
  model?: string
  n?: number | null
  size?: string | null
  response_format?: 'url' | 'b64_json' | null
  output_format?: 'png' | 'jpeg' | 'webp' | null
  output_compression?: number | null
  stream?: boolean | null
  partial_images?: number | null
  negative_prompt?: string
  steps?: number
  guidance_scale?: number
  seed?: number
  scheduler?: string
  strength?: number
  priority?: number
}

/** 'auto', or width and height. */
export const parseSize = (size: string | null | undefined): { width?: number; height?: number } => {
  if (size === undefined || size === null || size === 'auto') return {}
  const match = /^(\d{1,4})x(\d{1,4})$/.exec(size)
  if (!match) throw invalidArgument('size', "'auto' or 'WIDTHxHEIGHT'", size)
  return { width: Number(match[1]), height: Number(match[2]) }
}

const commonOptions = (body: GenerationBody): Txt2ImgOptions => ({
  prompt: body.prompt,
  count: body.n ?? 1,
  ...parseSize(body.size),
  ...(body.negative_prompt === undefined ? {} : { negativePrompt: body.negative_prompt }),
  ...(body.steps === undefined ? {} : { steps: body.steps }),
  ...(body.guidance_scale === undefined ? {} : { guidanceScale: body.guidance_scale }),
  ...(body.seed === undefined ? {} : { seed: body.seed }),
  ...(body.scheduler === undefined ? {} : { scheduler: body.scheduler })
})

const encode = (image: DiffusionImage, body: GenerationBody): Promise<Buffer> => {
  const format: ImageFormat = body.output_format ?? 'png'
  return image.toBuffer(format, format === 'png' ? {} : { quality: body.output_compression ?? 90 })
}

/** The answer to a finished job. */
const answer = async (
  job: PaintJob,
  body: GenerationBody,
  { outputs }: OpenAiContext,
  request: FastifyRequest
): Promise<object> => {
  const { result } = await job.finished
  const format = body.output_format ?? 'png'
  const data = await Promise.all(
    result.images.map(async (image) => {
      const bytes = await encode(image, body)
      if (body.response_format === 'url')
        return { url: `${request.protocol}://${request.host}/outputs/${await outputs.put(bytes, format)}` }
      return { b64_json: bytes.toString('base64') }
    })
  )
  const { width, height } = result.images[0]!
  return { created: Math.floor(job.created / 1000), data, output_format: format, size: `${width}x${height}` }
}

/** Partial pictures as they come, then the whole one. */
const stream = (
  reply: FastifyReply,
  kind: 'image_generation' | 'image_edit',
  job: PaintJob,
  body: GenerationBody
): Promise<void> =>
  streamEvents(reply, async (send) => {
    const wanted = body.partial_images ?? 0
    let sent = 0
    let sending = Promise.resolve()
    const stop = job.watch((event) => {
      if (event.type !== 'step' || !event.event.preview || sent >= wanted) return
      const { preview, step, steps } = event.event
      if (step >= steps || step < ((sent + 1) * steps) / (wanted + 1)) return
      const index = sent++
      sending = sending.then(async () => {
        const bytes = await encode(preview, body)
        send({
          type: `${kind}.partial_image`,
          b64_json: bytes.toString('base64'),
          partial_image_index: index,
          created_at: Math.floor(Date.now() / 1000),
          size: `${preview.width}x${preview.height}`,
          quality: 'auto',
          background: 'opaque',
          output_format: body.output_format ?? 'png'
        })
      })
    })
    try {
      const { result } = await job.finished
      await sending
      for (const image of result.images)
        send({
          type: `${kind}.completed`,
          b64_json: (await encode(image, body)).toString('base64'),
          created_at: Math.floor(Date.now() / 1000),
          size: `${image.width}x${image.height}`,
          quality: 'auto',
          background: 'opaque',
          output_format: body.output_format ?? 'png',
          usage: { total_tokens: 0, input_tokens: 0, output_tokens: 0 }
        })
    } catch (error) {
      send({ type: 'error', error: errorBody(error) }, 'error')
    } finally {
      stop()
    }
  })

const errorBody = (error: unknown): object => {
  const status = statusOf(error)
  const type = status === 429 ? 'rate_limit_error' : status < 500 ? 'invalid_request_error' : 'server_error'
  return { message: messageOf(error), type, param: null, code: (error as { code?: string }).code ?? null }
}

/** A multipart form: fields as text, files as bytes. Several files of one name make an array. */
interface Form {
  readonly fields: Record<string, string>
  readonly files: Map<string, Buffer[]>
}

const readParts = async (request: FastifyRequest, most: number): Promise<Form> => {
  const fields: Record<string, string> = {}
  const files = new Map<string, Buffer[]>()
  let bytes = 0
  for await (const part of request.parts()) {
    const name = part.fieldname.replace(/\[\]$/, '')
    if (part.type === 'file') {
      const file = await part.toBuffer()
      bytes += file.length
      if (bytes > most) throw Object.assign(new Error(`Expected a form of at most ${most} bytes`), { statusCode: 413 })
      files.set(name, [...(files.get(name) ?? []), file])
    } else fields[name] = String(part.value)
  }
  return { fields, files }
}

/** The form's own reader has no status for what it cannot read: that is the client's fault. */
const readForm = (request: FastifyRequest, most: number): Promise<Form> =>
  readParts(request, most).catch((error: Error & { statusCode?: number }) => {
    throw error.statusCode === undefined ? Object.assign(error, { statusCode: 400 }) : error
  })

const numbers = new Set([
  'n',
  'output_compression',
  'partial_images',
  'steps',
  'guidance_scale',
  'seed',
  'strength',
  'priority'
])
const known = new Set(Object.keys(generationSchema.properties))

/** A form's fields as a body of the JSON kind. */
const formBody = (fields: Record<string, string>): GenerationBody => {
  const body: Record<string, unknown> = { prompt: '' }
  for (const [name, text] of Object.entries(fields)) {
    if (!known.has(name)) continue
    const value = numbers.has(name) ? Number(text) : name === 'stream' ? text === 'true' : text
    if (typeof value === 'number' && !Number.isFinite(value)) throw invalidArgument(name, 'a number', text)
    body[name] = value
  }
  if (body.output_format !== undefined) oneOf('output_format', body.output_format, ['png', 'jpeg', 'webp'])
  if (body.response_format !== undefined) oneOf('response_format', body.response_format, ['url', 'b64_json'])
  if (body.background !== undefined) oneOf('background', body.background, ['auto', 'opaque'])
  const n = (body.n as number | undefined) ?? 1
  if (!Number.isInteger(n) || n < 1 || n > 10) throw invalidArgument('n', 'an integer from 1 to 10', n)
  return body as unknown as GenerationBody
}

const metadataOf = async (name: string, bytes: Buffer): Promise<Metadata> =>
  sharp(bytes)
    .metadata()
    .catch(() => Promise.reject(invalidArgument(name, 'a picture that can be read', 'bytes that are none')))

/** OpenAI's masks are transparent where the picture is to change; ours are white there. */
const maskOf = async (png: Buffer): Promise<Buffer> => {
  const { hasAlpha } = await metadataOf('mask', png)
  if (!hasAlpha)
    throw invalidArgument('mask', 'a PNG that is transparent where the picture is to change', 'one without alpha')
  return sharp(png).extractChannel('alpha').negate().png().toBuffer()
}

export const openAiRoutes = (app: FastifyInstance, context: OpenAiContext): void => {
  const { painter } = context

  const run = async (
    request: FastifyRequest,
    reply: FastifyReply,
    body: GenerationBody,
    kind: 'image_generation' | 'image_edit',
    paint: PaintRequest
  ): Promise<unknown> => {
    const partial = body.stream && (body.partial_images ?? 0) > 0
    const options = { ...paint.options, ...(partial ? { preview: true } : {}) }
    const job = await painter.submit({ ...paint, options, priority: body.priority }, disconnected(reply))
    if (body.stream) return stream(reply, kind, job, body)
    return answer(job, body, context, request)
  }

  app.register((scope, _, done) => {
    scope.setErrorHandler((error, _request, reply) => {
      const status = statusOf(error)
      if (status === 429) reply.header('retry-after', retryAfter)
      return reply.code(status).send({ error: errorBody(error) })
    })

    scope.post<{ Body: GenerationBody }>(
      '/v1/images/generations',
      { schema: { tags: ['openai'], summary: 'Text to image', body: generationSchema } },
      (request, reply) =>
        run(request, reply, request.body, 'image_generation', {
          model: request.body.model,
          task: 'txt2img',
          options: commonOptions(request.body)
        })
    )

    scope.post(
      '/v1/images/edits',
      {
        schema: {
          tags: ['openai'],
          summary: 'A picture, or its masked part, painted anew',
          consumes: ['multipart/form-data']
        }
      },
      async (request, reply) => {
        const { fields, files } = await readForm(request, context.bodyLimit)
        const body = formBody(fields)
        if (body.prompt === '') throw invalidArgument('prompt', 'a text', body.prompt)
        const image = picture(files)
        const strength = body.strength === undefined ? {} : { strength: body.strength }
        const mask = files.get('mask')?.[0]
        const { hasAlpha } = await sharp(image)
          .metadata()
          .catch(() => ({ hasAlpha: false }))
        const shown = mask ?? (hasAlpha ? image : undefined)
        const { count, ...rest } = commonOptions(body)
        const size = await sizeOf(image, rest)
        const paint: PaintRequest = shown
          ? {
              task: 'inpaint',
              options: { ...rest, ...size, count: count ?? 1, image, mask: await maskOf(shown), ...strength }
            }
          : { task: 'img2img', options: { ...rest, count: count ?? 1, image, ...strength } }
        return run(request, reply, body, 'image_edit', { ...paint, model: body.model })
      }
    )

    scope.post(
      '/v1/images/variations',
      { schema: { tags: ['openai'], summary: 'Pictures like this one', consumes: ['multipart/form-data'] } },
      async (request, reply) => {
        const { fields, files } = await readForm(request, context.bodyLimit)
        const body = formBody(fields)
        const options = { ...commonOptions(body), image: picture(files), strength: body.strength ?? 0.6 }
        return run(request, reply, body, 'image_edit', { model: body.model, task: 'img2img', options })
      }
    )

    scope.get('/v1/models', { schema: { tags: ['openai'], summary: 'The models of this server' } }, () => ({
      object: 'list',
      data: painter.models.entries.map(({ name }) => modelObject(name, context.started))
    }))

    scope.get<{ Params: { model: string } }>(
      '/v1/models/:model',
      { schema: { tags: ['openai'], summary: 'One model' } },
      (request) => modelObject(painter.models.entry(request.params.model).name, context.started)
    )
    done()
  })
}

const modelObject = (id: string, created: number): object => ({
  id,
  object: 'model',
  created,
  owned_by: 'node-diffusion'
})

const picture = (files: Map<string, Buffer[]>): Buffer => {
  const images = files.get('image') ?? []
  if (images.length !== 1) throw invalidArgument('image', 'one picture', `${images.length} of them`)
  return images[0]!
}

/** Inpainting's sizes default to the model's; here they are the picture's, in whole latents. */
const sizeOf = async (
  image: Buffer,
  o: { width?: number; height?: number }
): Promise<{ width?: number; height?: number }> => {
  if (o.width !== undefined) return {}
  const { width, height } = await metadataOf('image', image)
  return { width: Math.max(8, width - (width % 8)), height: Math.max(8, height - (height % 8)) }
}
