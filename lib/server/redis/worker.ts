/** A worker of a queue over Redis: takes one job after the other and paints it. Any number of them, on any machines. */
import type { Job as BullJob } from 'bullmq'
import type { Redis } from 'ioredis'
import { DiffusionError } from '../../errors.js'
import type { LoadOptions } from '../../pipeline.js'
import { cancelled } from '../job.js'
import { ModelStore, parseModel } from '../models.js'
import { paintWith, type Painted, type PaintStep } from '../painter.js'
import { connected, loadRedis } from './connect.js'
import {
  decodeRequest,
  failureText,
  keys,
  outputSeconds,
  prefix,
  type WireRequest,
  type WireResult,
  type WireStep
} from './messages.js'

/** Options of createWorker(). */
export interface PaintWorkerOptions {
  /** redis://host:port, as the server's. */
  redis: string
  /** The queue's name, as the server's; default 'paint'. */
  queue?: string
  /** 'name=source' or a source, as the server's. Default: the bundled model. */
  models?: readonly string[]
  /** How each is loaded. */
  load?: LoadOptions
  /** Models in memory at once; default 1. */
  keepModels?: number
  /** A worker that is silent for so long counts as dead, and another one takes its job; default 30. */
  lockSeconds?: number
  /** Called with one line for each job that begins, ends or is given back. */
  onLog?: (line: string) => void
}

/** A running worker: it takes jobs from the queue until it is closed. */
export interface PaintWorker {
  /** Jobs at work: 0 or 1. */
  readonly running: number
  /** Takes no more jobs; ends the one that it has, or gives it back to the queue where `handBack`; frees the models. */
  close(handBack?: boolean): Promise<void>
}

/** Thrown into a job that another worker is to have. */
const handedBack = new DiffusionError('ERR_ND_CLOSED', 'the worker is shutting down')
const cancelMilliseconds = 250
/** A job that has brought down so many workers is not given to one more. */
const recoveries = 2

/** Makes a worker that paints what servers put into a Redis queue. */
export const createWorker = async (o: PaintWorkerOptions): Promise<PaintWorker> => {
  const name = o.queue ?? 'paint'
  const key = keys(name)
  const log = o.onLog ?? (() => {})
  const store = new ModelStore((o.models?.length ? o.models : ['postcard']).map(parseModel), o.load, o.keepModels)
  const { bullmq, connect } = await loadRedis(o.redis)
  const redis = await connected(connect({ maxRetriesPerRequest: null }))
  const running = new Map<string, AbortController>()
  let handBack = false

  const paint = async (job: BullJob<WireRequest, WireResult>, token: string): Promise<WireResult> => {
    const id = job.id!
    const stop = new AbortController()
    running.set(id, stop)
    const lookForCancel = async (): Promise<void> => {
      if (await redis.exists(key.cancel(id))) stop.abort(cancelled())
    }
    const watch = setInterval(() => void lookForCancel().catch(() => {}), cancelMilliseconds)
    const teller = new StepTeller(redis, key.preview(id), (step) => job.updateProgress(step))
    try {
      if (handBack) throw handedBack
      await lookForCancel()
      stop.signal.throwIfAborted()
      const request = decodeRequest(job.data, await inputOf(redis, key.input(id), job.data.pictures))
      log(`job ${id}: ${request.task} with ${request.model}, attempt ${job.attemptsStarted}`)
      const painted = await paintWith(store, request, stop.signal, (step) => teller.tell(step))
      await teller.end()
      const output = key.output(id, token)
      await keep(redis, output, painted)
      log(`job ${id}: done in ${painted.result.timings.total.toFixed(2)} s`)
      return wireOf(painted, output)
    } catch (error) {
      if (stop.signal.reason === handedBack || error === handedBack) {
        log(`job ${id}: given back`)
        await job.moveToWait(token)
        throw new bullmq.WaitingError()
      }
      log(`job ${id}: ${(error as Error).message}`)
      throw new bullmq.UnrecoverableError(failureText(error))
    } finally {
      clearInterval(watch)
      running.delete(id)
    }
  }

  const lock = (o.lockSeconds ?? 30) * 1000
  const worker = new bullmq.Worker<WireRequest, WireResult>(name, (job, token) => paint(job, token!), {
    connection: redis,
    prefix,
    concurrency: 1,
    lockDuration: lock,
    stalledInterval: lock / 2,
    maxStalledCount: recoveries,
    runRetryDelay: 1000,
    drainDelay: 2
  })
  worker.on('error', (error) => log(`redis: ${error.message}`))
  // Only when the queue has taken the end: a worker that was too slow must not take the pictures from the one that has the job.
  const clear = (job?: BullJob): unknown => job && redis.del(key.input(job.id!), key.preview(job.id!)).catch(() => {})
  worker.on('completed', clear)
  worker.on('failed', clear)
  // Another worker has the job by now: what is painted here is for nobody.
  worker.on('lockRenewalFailed', (ids) => ids.forEach((id) => running.get(id)?.abort(lostLock)))
  await worker.waitUntilReady()

  return {
    get running() {
      return running.size
    },
    async close(now = false) {
      handBack ||= now
      if (now) for (const stop of running.values()) stop.abort(handedBack)
      await worker.close()
      redis.disconnect()
      await store.dispose()
    }
  }
}

const lostLock = new DiffusionError('ERR_ND_INTERNAL', 'the worker was silent for too long; another one has the job')

const inputOf = async (redis: Redis, key: string, count: number): Promise<Buffer[]> => {
  if (count === 0) return []
  const pictures = await redis.hmgetBuffer(key, ...Array.from({ length: count }, (_, i) => String(i)))
  if (pictures.some((picture) => picture === null))
    throw new DiffusionError('ERR_ND_INTERNAL', 'the pictures of the request are gone from the queue')
  return pictures as Buffer[]
}

const keep = async (redis: Redis, key: string, { result }: Painted): Promise<void> => {
  const pictures = await Promise.all(result.images.map((image) => image.toBuffer('png')))
  if (pictures.length === 0) return
  await redis.multi().hset(key, Object.fromEntries(pictures.entries())).expire(key, outputSeconds).exec()
}

const wireOf = ({ model, result }: Painted, key: string): WireResult => ({
  model,
  seeds: result.seeds.map((seed) => (seed === null ? null : String(seed))),
  timings: result.timings,
  warnings: result.warnings,
  key,
  pictures: result.images.length
})

/** Tells of steps, one message at a time: where steps are faster than Redis, only the newest goes out. */
class StepTeller {
  private next: PaintStep | undefined
  private telling: Promise<void> | undefined

  constructor(
    private readonly redis: Redis,
    private readonly previewKey: string,
    private readonly send: (step: WireStep) => Promise<void>
  ) {}

  tell(step: PaintStep): void {
    this.next = step
    this.telling ??= this.run()
  }

  /** When all has been told. */
  async end(): Promise<void> {
    await this.telling
  }

  private async run(): Promise<void> {
    try {
      for (let step = this.next; step; step = this.next) {
        this.next = undefined
        if (step.preview) await this.redis.set(this.previewKey, await step.preview.toBuffer('png'), 'EX', 600)
        await this.send({ step: step.step, steps: step.steps, preview: step.preview !== undefined })
      }
    } catch {
      // Progress is a courtesy; the picture is not late for it.
    } finally {
      this.telling = undefined
    }
  }
}
