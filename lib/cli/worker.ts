/** `node-diffusion worker`. */
import { invalidArgument } from '../errors.js'
import { createWorker } from '../server/app.js'

export interface WorkerOptions {
  redis?: string
  queue: string
  model?: string[]
  keepModels: number
  lockSeconds: number
  device: string
  threads?: number
}

/** The address of the queue's Redis, from the option or the environment (where no list of processes shows its password). */
export const redisAddress = (given: string | undefined): string | undefined =>
  given ?? (process.env.NODE_DIFFUSION_REDIS || undefined)

/** Works until `signal`; then ends the job that it has, or gives it back to the queue at a second signal. */
export const work = async (o: WorkerOptions, signal: AbortSignal): Promise<void> => {
  const redis = redisAddress(o.redis)
  if (redis === undefined) throw invalidArgument('--redis', 'an address such as redis://127.0.0.1:6379', redis)
  const worker = await createWorker({
    redis,
    queue: o.queue,
    models: o.model ?? ['postcard'],
    load: { device: o.device, ...(o.threads === undefined ? {} : { threads: o.threads }) },
    keepModels: o.keepModels,
    lockSeconds: o.lockSeconds,
    onLog: (line) => process.stdout.write(`${line}\n`)
  })
  process.stdout.write(`waiting for jobs of the queue ${o.queue}\n`)
  await new Promise<void>((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
  if (worker.running) process.stdout.write('ending the job that is there; once more to give it back to the queue\n')
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => void worker.close(true))
  await worker.close()
}
