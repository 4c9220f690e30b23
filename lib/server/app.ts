/** The HTTP server: OpenAI's and AUTOMATIC1111's protocols and its own over one queue and one set of models. */
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import cors from '@fastify/cors'
import multipart from '@fastify/multipart'
import swagger from '@fastify/swagger'
import fastify, { type FastifyInstance } from 'fastify'
import { version } from '../binding.js'
import type { LoadOptions } from '../pipeline.js'
import { a1111Routes } from './a1111.js'
import { authorized, messageOf, statusOf } from './http.js'
import { jobRoutes } from './jobs.js'
import { parseJsonBodies } from './json-body.js'
import { defaultLimits, type RequestLimits } from './limits.js'
import { Metrics } from './metrics.js'
import { ModelStore, parseModel } from './models.js'
import { openAiRoutes } from './openai.js'
import { Outputs } from './outputs.js'
import { pageRoutes, pageUrls } from './page.js'
import { LocalQueue, Painter } from './painter.js'

/** Options of createServer(). */
export interface ServerOptions {
  /** 'name=source' or a source; the first is the default. Default: the bundled model. */
  models?: readonly string[]
  /** How each is loaded. */
  load?: LoadOptions
  /** Models in memory at once; default 1. */
  keepModels?: number
  /** Jobs that may wait; default 64. More are refused with 429. */
  maxQueued?: number
  /** redis://…: jobs wait there, and processes of `createWorker` paint them. Default: a queue in this process, which paints. */
  redis?: string
  /** The queue's name in Redis; default 'paint'. */
  queue?: string
  /** Without keys everybody may paint. */
  apiKeys?: readonly string[]
  /** Origins that browsers may call from; none by default; '*' is all. */
  cors?: readonly string[]
  /** Bytes of a request; default 64 MiB. */
  bodyLimit?: number
  /** What one request may ask for; those that are left out have their defaults. */
  limits?: Partial<RequestLimits>
  /** Seconds within which a request must have come in whole, its headers within half of them; default 120. */
  requestTimeout?: number
  /** Where pictures wait for clients that ask for addresses; default a folder of the system's temporary one. */
  outputs?: string
  /** One line of JSON per request on standard output; default false. */
  log?: boolean
}

/** A running server over one queue. */
export interface DiffusionServer {
  readonly app: FastifyInstance
  readonly painter: Painter
  /** Returns the address. */
  listen(port: number, host?: string): Promise<string>
  /** Ends what runs and waits, or cancels it where `now`; then frees everything. */
  close(now?: boolean): Promise<void>
}

/** Open to all: a load balancer asks without a key. */
const open = new Set(['/health', '/ready', ...pageUrls])

export type { RequestLimits }
export { createWorker, type PaintWorker, type PaintWorkerOptions } from './redis/worker.js'

/** Makes the HTTP server: OpenAI's, AUTOMATIC1111's and its own API, and the page. It listens from listen() on. */
export const createServer = async (options: ServerOptions = {}): Promise<DiffusionServer> => {
  const store = new ModelStore(
    (options.models?.length ? options.models : ['postcard']).map(parseModel),
    options.load,
    options.keepModels
  )
  const metrics = new Metrics()
  const maxQueued = options.maxQueued ?? 64
  const queue = options.redis
    ? await (
        await import('./redis/queue.js')
      ).RedisQueue.open({
        url: options.redis,
        maxQueued,
        ...(options.queue === undefined ? {} : { name: options.queue })
      })
    : new LocalQueue(store, { maxQueued })
  queue.onEnd = (job) => metrics.ended(job)
  const painter = new Painter(store, queue, { ...defaultLimits, ...options.limits })
  const outputs = new Outputs(options.outputs ?? join(tmpdir(), `node-diffusion-outputs-${process.pid}`))
  const bodyLimit = options.bodyLimit ?? 64 << 20
  const requestTimeout = (options.requestTimeout ?? 120) * 1000
  const app = fastify({
    logger: options.log ?? false,
    bodyLimit,
    forceCloseConnections: 'idle',
    requestTimeout,
    http: {
      headersTimeout: requestTimeout / 2,
      connectionsCheckingInterval: Math.min(5000, requestTimeout / 2)
    }
  })
  const keys = options.apiKeys ?? []
  let closing = false

  app.addHook('onRequest', async (request, reply) => {
    if (keys.length === 0 || request.method === 'OPTIONS' || open.has(request.url.split('?')[0]!)) return
    if (!authorized(request, keys))
      await reply
        .code(401)
        .header('www-authenticate', 'Bearer')
        .send({
          error: {
            message: 'Expected an API key in the Authorization header',
            type: 'invalid_request_error',
            param: null,
            code: 'invalid_api_key'
          }
        })
  })
  app.addHook('onResponse', (_request, reply, done) => {
    if (reply.statusCode === 429) metrics.refusedOne()
    done()
  })
  app.setErrorHandler((error, _request, reply) =>
    reply.code(statusOf(error)).send({ error: { message: messageOf(error) } })
  )

  const origins = options.cors ?? []
  if (origins.length) await app.register(cors, { origin: origins.includes('*') ? true : [...origins] })
  await app.register(multipart, {
    limits: { fileSize: bodyLimit, files: 16, fields: 64, fieldSize: 1 << 20, headerPairs: 64 }
  })
  await app.register(swagger, {
    openapi: {
      info: { title: 'node-diffusion', description: 'Stable Diffusion over HTTP', version: version() },
      components: { securitySchemes: { key: { type: 'http', scheme: 'bearer' } } }
    }
  })

  parseJsonBodies(app)

  openAiRoutes(app, { painter, outputs, bodyLimit, started: Math.floor(Date.now() / 1000) })
  a1111Routes(app, painter)
  jobRoutes(app, painter)
  pageRoutes(app, painter)
  app.register((scope, _, done) => {
    const tags = ['server']
    scope.get('/health', { schema: { tags, summary: 'Whether the process lives' } }, () => ({ status: 'ok' }))
    scope.get('/ready', { schema: { tags, summary: 'Whether it takes requests' } }, (_request, reply) => {
      const status = closing ? 'closing' : queue.ready ? 'ok' : 'the queue does not answer'
      return reply.code(status === 'ok' ? 200 : 503).send({ status })
    })
    scope.get('/metrics', { schema: { tags, summary: 'Prometheus metrics' } }, async (_request, reply) =>
      reply.type('text/plain; version=0.0.4').send(metrics.text(await queue.counts()))
    )
    scope.get('/openapi.json', { schema: { hide: true } }, () => app.swagger())
    scope.get<{ Params: { name: string } }>(
      '/outputs/:name',
      { schema: { tags, summary: 'A picture that was asked for by address' } },
      async (request, reply) => {
        const found = await outputs.get(request.params.name)
        if (!found) return reply.code(404).send({ error: { message: 'there is no such picture' } })
        return reply.type(found.type).send(found.bytes)
      }
    )
    done()
  })

  return {
    app,
    painter,
    listen: (port, host = '127.0.0.1') => app.listen({ port, host }),
    async close(now = false) {
      closing = true
      await queue.close(now)
      await app.close()
      await store.dispose()
    }
  }
}
