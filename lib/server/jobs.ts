/** This server's own API: a job is asked for, watched by server-sent events, fetched, cancelled. */
import type { FastifyInstance } from 'fastify'
import { DiffusionError, invalidArgument } from '../errors.js'
import { tasks, type Task } from '../tasks.js'
import { oneOf } from '../validate.js'
import { decodeBase64, disconnected, messageOf, statusOf, streamEvents } from './http.js'
import type { Painter, PaintJob, PaintRequest } from './painter.js'

interface JobBody {
  task?: string
  model?: string
  priority?: number
  /** The task's options; `image` and `mask` in base64. */
  options?: Record<string, unknown>
}

/** Options that may be sent: none that hold functions or tensors, or that could name a file of the server. */
const outside = new Set([
  ...['prompt', 'negativePrompt', 'prompt2', 'negativePrompt2', 'promptWeighting', 'width', 'height', 'steps', 'count'],
  ...[
    'guidanceScale',
    'guidanceRescale',
    'imageGuidanceScale',
    'seed',
    'rng',
    'clipSkip',
    'eta',
    'scheduler',
    'preview'
  ],
  ...['strength', 'aestheticScore', 'negativeAestheticScore', 'originalSize', 'cropsCoordsTopLeft', 'targetSize'],
  ...['subseed', 'subseedStrength', 'seedResizeFromWidth', 'seedResizeFromHeight', 'tiling', 'hires', 'freeU'],
  ...['image', 'mask', 'maskBlur', 'invertMask', 'paddingMaskCrop', 'overlay', 'maskedContent', 'resizeMode']
])

const optionsOf = (given: Record<string, unknown>): Record<string, unknown> => {
  const options: Record<string, unknown> = {}
  for (const [name, value] of Object.entries(given)) {
    if (!outside.has(name)) throw invalidArgument('options', `options among ${[...outside].join(', ')}`, name)
    if (name === 'hires' && typeof (value as { scheduler?: unknown } | null)?.scheduler === 'object')
      throw invalidArgument('hires.scheduler', 'a class name or label', value)
    if (name === 'scheduler' && typeof value !== 'string') throw invalidArgument(name, 'a class name or label', value)
    options[name] = name === 'image' || name === 'mask' ? decodeBase64(name, value) : value
  }
  return options
}

export const jobRoutes = (app: FastifyInstance, painter: Painter): void => {
  const find = async (id: string): Promise<PaintJob> => {
    const job = await painter.queue.find(id)
    if (!job) throw Object.assign(new Error(`there is no job ${id}`), { statusCode: 404 })
    return job
  }
  const view = (job: PaintJob): object => ({
    id: job.id,
    task: job.task,
    state: job.state,
    position: job.position,
    step: job.last?.step ?? 0,
    steps: job.last?.steps ?? 0,
    created: job.created,
    started: job.started ?? null,
    ended: job.ended ?? null,
    ...(job.error === undefined ? {} : { error: messageOf(job.error) }),
    ...(job.result
      ? {
          model: job.result.model,
          seeds: job.result.result.seeds.map((seed) => (seed === null ? null : String(seed))),
          warnings: job.result.result.warnings,
          timings: job.result.result.timings,
          images: job.result.result.images.map((image, i) => ({
            url: `/api/jobs/${job.id}/images/${i}.png`,
            parameters: image.parameters ?? ''
          }))
        }
      : {})
  })

  app.register(
    (scope, _, done) => {
      scope.setErrorHandler((error, _request, reply) =>
        reply
          .code(statusOf(error))
          .headers(statusOf(error) === 429 ? { 'retry-after': '5' } : {})
          .send({ error: { message: messageOf(error), code: error instanceof DiffusionError ? error.code : null } })
      )
      const tags = ['jobs']
      const body = {
        type: 'object',
        required: ['task', 'options'],
        properties: {
          task: { type: 'string', enum: [...tasks] },
          model: { type: 'string' },
          priority: { type: 'integer', minimum: -100, maximum: 100 },
          options: { type: 'object', additionalProperties: true }
        }
      } as const

      scope.post<{ Body: JobBody }>(
        '/jobs',
        { schema: { tags, summary: 'Ask for a job', body } },
        async (request, reply) => {
          const task: Task = oneOf('task', request.body.task, tasks)
          const paint = {
            model: request.body.model,
            task,
            priority: request.body.priority,
            options: optionsOf(request.body.options ?? {})
          } as unknown as PaintRequest
          const job = await painter.submit(paint)
          return reply.code(202).header('location', `/api/jobs/${job.id}`).send(view(job))
        }
      )
      scope.get<{ Params: { id: string } }>('/jobs/:id', { schema: { tags, summary: 'Its state' } }, async (request) =>
        view(await find(request.params.id))
      )
      scope.delete<{ Params: { id: string } }>(
        '/jobs/:id',
        { schema: { tags, summary: 'Cancel it' } },
        async (request) => {
          const job = await find(request.params.id)
          job.cancel()
          return view(job)
        }
      )
      scope.get<{ Params: { id: string } }>(
        '/jobs/:id/events',
        { schema: { tags, summary: 'Server-sent events: state, step, end' } },
        async (request, reply) => {
          const job = await find(request.params.id)
          const gone = disconnected(reply)
          return streamEvents(reply, async (send) => {
            send(view(job), 'state')
            const encoding: Promise<void>[] = []
            const stop = job.watch((event) => {
              if (event.type === 'state') return send(view(job), 'state')
              const { step, steps, preview } = event.event
              encoding.push(
                (preview ? preview.toBuffer('webp') : Promise.resolve(undefined)).then((bytes) =>
                  send(
                    {
                      step,
                      steps,
                      ...(bytes ? { preview: `data:image/webp;base64,${bytes.toString('base64')}` } : {})
                    },
                    'step'
                  )
                )
              )
            })
            try {
              await Promise.race([
                job.finished.catch(() => {}),
                new Promise((resolve) => gone.addEventListener('abort', resolve, { once: true }))
              ])
              await Promise.all(encoding)
              send(view(job), 'end')
            } finally {
              stop()
            }
          })
        }
      )
      scope.get<{ Params: { id: string; name: string } }>(
        '/jobs/:id/images/:name',
        { schema: { tags, summary: 'One of its pictures, in PNG' } },
        async (request, reply) => {
          const index = /^(\d+)\.png$/.exec(request.params.name)?.[1]
          const image = (await find(request.params.id)).result?.result.images[Number(index ?? -1)]
          if (!image) throw Object.assign(new Error('there is no such picture'), { statusCode: 404 })
          return reply.type('image/png').send(await image.toBuffer('png'))
        }
      )
      done()
    },
    { prefix: '/api' }
  )
}
