/** `node-diffusion serve`. */
import { createServer } from '../server/app.js'
import { redisAddress } from './worker.js'

export interface ServeOptions {
  model?: string[]
  port: number
  host: string
  apiKey?: string[]
  cors?: string[]
  maxQueued: number
  keepModels: number
  redis?: string
  queue: string
  outputs?: string
  device: string
  threads?: number
  log?: boolean
}

/** Serves until `signal`; then takes no more jobs, ends those that it has, and returns. */
export const serve = async (o: ServeOptions, signal: AbortSignal): Promise<void> => {
  const fromEnvironment = (process.env.NODE_DIFFUSION_API_KEYS ?? '').split(',').filter((key) => key !== '')
  const apiKeys = [...(o.apiKey ?? []), ...fromEnvironment]
  const redis = redisAddress(o.redis)
  const server = await createServer({
    models: o.model ?? ['postcard'],
    load: { device: o.device, ...(o.threads === undefined ? {} : { threads: o.threads }) },
    keepModels: o.keepModels,
    maxQueued: o.maxQueued,
    apiKeys,
    cors: o.cors ?? [],
    log: o.log ?? false,
    ...(redis === undefined ? {} : { redis, queue: o.queue }),
    ...(o.outputs === undefined ? {} : { outputs: o.outputs })
  })
  const address = await server.listen(o.port, o.host)
  process.stdout.write(`node-diffusion serves at ${address} (${address}/openapi.json)\n`)
  if (apiKeys.length === 0 && !/^(127\.|localhost$|::1$)/.test(o.host))
    process.stderr.write('Everybody who reaches this address may paint: --api-key asks for a key\n')
  await new Promise<void>((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
  process.stdout.write('ending the jobs that are there; press Ctrl+C again to leave at once\n')
  process.once('SIGINT', () => void server.close(true))
  await server.close()
}
