/** The server's side of a queue over Redis: puts jobs in, follows them, hands out what workers have made. */
import { randomUUID } from 'node:crypto'
import type { Job as BullJob, Queue, QueueEvents } from 'bullmq'
import type { Redis } from 'ioredis'
import { DiffusionError } from '../../errors.js'
import { cancelled, closing, Ended, Job, queueFull } from '../job.js'
import {
  paintedBytes,
  type Painted,
  type PaintJob,
  type PaintQueue,
  type PaintRequest,
  type PaintStep
} from '../painter.js'
import { connected, loadRedis, unavailable } from './connect.js'
import {
  encodeRequest,
  failureOf,
  imageOf,
  inputSeconds,
  keys,
  outputSeconds,
  paintedOf,
  prefix,
  type WireRequest,
  type WireResult,
  type WireStep
} from './messages.js'

export interface RedisQueueOptions {
  url: string
  /** Servers and workers of one name belong together. Default 'paint'. */
  name?: string
  /** Jobs that may wait, of all servers together. Default 64. */
  maxQueued?: number
}

/** BullMQ's numbers grow the other way: 1 goes first. Ours may be anything that its 2^21 hold. */
const middle = 2 ** 20
const bullPriority = (priority: number): number => Math.min(2 ** 21, Math.max(1, middle - Math.round(priority)))

type Bull = BullJob<WireRequest, WireResult>

export class RedisQueue implements PaintQueue {
  onEnd: ((job: PaintJob) => void) | undefined
  private readonly live = new Map<string, PaintJob>()
  /** Jobs whose clients wait for the answer. */
  private readonly awaited = new Set<string>()
  private readonly ended = new Ended<Painted, PaintStep>(256, 256 << 20, paintedBytes)
  private readonly keys: ReturnType<typeof keys>
  private readonly maxQueued: number
  private closed = false
  /** Submissions one after the other, so that the limit holds. */
  private submitting: Promise<unknown> = Promise.resolve()
  private readonly timer: NodeJS.Timeout
  private ticks = 0

  private constructor(
    o: RedisQueueOptions & { name: string },
    private readonly redis: Redis,
    private readonly queue: Queue<WireRequest, WireResult>,
    private readonly events: QueueEvents,
    private readonly eventsRedis: Redis
  ) {
    this.keys = keys(o.name)
    this.maxQueued = o.maxQueued ?? 64
    queue.on('error', () => {})
    events.on('error', () => {})
    events.on('active', ({ jobId }) => this.live.get(jobId)?.begin())
    events.on('progress', ({ jobId, data }) => void this.stepped(jobId, data as unknown as WireStep))
    events.on('completed', ({ jobId }) => void this.settle(jobId))
    events.on('failed', ({ jobId, failedReason }) => this.fail(jobId, failureOf(failedReason)))
    events.on('removed', ({ jobId }) => this.fail(jobId, cancelled()))
    events.on('waiting', ({ jobId }) => void this.tellPosition(jobId))
    events.on('stalled', ({ jobId }) => void this.tellPosition(jobId))
    this.timer = setInterval(() => void this.check(), 1000).unref()
  }

  /** @throws ERR_ND_UNAVAILABLE where Redis does not answer, ERR_ND_UNSUPPORTED without the packages */
  static async open(options: RedisQueueOptions): Promise<RedisQueue> {
    const o = { ...options, name: options.name ?? 'paint' }
    const { bullmq, connect } = await loadRedis(o.url)
    const redis = await connected(connect({ maxRetriesPerRequest: 1, enableOfflineQueue: false }))
    const eventsRedis = await connected(connect({ maxRetriesPerRequest: null }))
    const queue = new bullmq.Queue<WireRequest, WireResult>(o.name, { connection: redis, prefix })
    await queue.waitUntilReady()
    // From the last event that is there, not from the first read: nothing between them is missed.
    const [newest] = await redis.xrevrange(queue.toKey('events'), '+', '-', 'COUNT', 1)
    const events = new bullmq.QueueEvents(o.name, {
      connection: eventsRedis,
      prefix,
      lastEventId: newest?.[0] ?? '0-0'
    })
    await events.waitUntilReady()
    return new RedisQueue(o, redis, queue, events, eventsRedis)
  }

  get running(): readonly PaintJob[] {
    return [...this.live.values()].filter((job) => job.state === 'running')
  }
  get ready(): boolean {
    return !this.closed && this.redis.status === 'ready'
  }
  async counts(): Promise<{ queued: number; running: number; workers: number }> {
    const { queued, running } = await this.waiting()
    return { queued, running, workers: await this.queue.getWorkersCount() }
  }

  submit(request: PaintRequest & { model: string }, signal?: AbortSignal): Promise<PaintJob> {
    const submitted = this.submitting.then(() => this.add(request, signal))
    this.submitting = submitted.catch(() => {})
    return submitted
  }

  private async add(request: PaintRequest & { model: string }, signal?: AbortSignal): Promise<PaintJob> {
    if (this.closed) throw closing()
    const { wire, pictures } = encodeRequest(request)
    const job: PaintJob = new Job(request.task, wire.priority, randomUUID())
    try {
      const { queued } = await this.waiting()
      if (queued >= this.maxQueued) throw queueFull(this.maxQueued, queued)
      const input = this.keys.input(job.id)
      if (pictures.length)
        await this.redis.multi().hset(input, Object.fromEntries(pictures.entries())).expire(input, inputSeconds).exec()
      this.track(job)
      await this.queue.add(request.task, wire, {
        jobId: job.id,
        priority: bullPriority(wire.priority),
        removeOnComplete: { age: outputSeconds, count: 5000 },
        removeOnFail: { age: outputSeconds, count: 5000 }
      })
    } catch (error) {
      this.live.delete(job.id)
      throw error instanceof DiffusionError ? error : unavailable(error)
    }
    if (signal) {
      this.awaited.add(job.id)
      job.follow(signal)
    }
    await this.tellPosition(job.id)
    return job
  }

  async find(id: string): Promise<PaintJob | undefined> {
    const known = this.live.get(id) ?? this.ended.get(id)
    if (known) return known
    if (!/^[0-9a-f-]{36}$/.test(id)) return undefined
    const bull = await this.queue.getJob(id).catch((error: unknown) => Promise.reject(unavailable(error)))
    if (!bull) return undefined
    const job: PaintJob = new Job(bull.data.task, bull.data.priority, id)
    job.created = bull.timestamp
    this.track(job)
    await this.settle(id)
    return job
  }

  async close(now: boolean): Promise<void> {
    this.closed = true
    await this.submitting
    const waited = [...this.awaited].flatMap((id) => this.live.get(id) ?? [])
    if (now) for (const job of waited) job.cancel()
    await Promise.all(waited.map((job) => job.finished.catch(() => {})))
    clearInterval(this.timer)
    // A connection that is down is not waited for.
    this.eventsRedis.disconnect()
    await this.events.close().catch(() => {})
    await this.queue.close().catch(() => {})
    this.redis.disconnect()
  }

  private track(job: PaintJob): void {
    this.live.set(job.id, job)
    job.signal.addEventListener('abort', () => void this.cancel(job), { once: true })
  }

  private end(job: PaintJob): void {
    if (!this.live.delete(job.id)) return
    this.awaited.delete(job.id)
    this.ended.add(job)
    this.onEnd?.(job)
  }

  private fail(id: string, error: unknown): void {
    const job = this.live.get(id)
    if (!job) return
    job.fail(error)
    this.end(job)
  }

  /** Its worker looks for the key; where none has it, it leaves the queue at once. */
  private async cancel(job: PaintJob): Promise<void> {
    this.fail(job.id, job.signal.reason)
    try {
      await this.redis.set(this.keys.cancel(job.id), '1', 'EX', inputSeconds)
      if (await this.queue.remove(job.id)) await this.redis.del(this.keys.input(job.id), this.keys.cancel(job.id))
    } catch {
      // Without Redis nobody can be told; the job is painted for nobody.
    }
  }

  private async stepped(id: string, { step, steps, preview }: WireStep): Promise<void> {
    const job = this.live.get(id)
    if (!job) return
    job.begin()
    const png = preview ? await this.redis.getBuffer(this.keys.preview(id)).catch(() => null) : null
    const image = png && (await imageOf(png).catch(() => null))
    // A later one may have been faster.
    if ((job.last?.step ?? 0) <= step) job.step({ step, steps, ...(image ? { preview: image } : {}) })
  }

  /** Ends the job here where it has ended there. */
  private async settle(id: string): Promise<void> {
    const job = this.live.get(id)
    if (!job) return
    const bull: Bull | undefined = await this.queue.getJob(id)
    if (!bull) return this.fail(id, new DiffusionError('ERR_ND_INTERNAL', 'the job is gone from the queue'))
    const state = await bull.getState()
    if (state === 'failed') return this.fail(id, failureOf(bull.failedReason))
    if (state === 'active') return job.begin()
    if (state !== 'completed') return this.tellPosition(id)
    try {
      const wire = bull.returnvalue
      const fields = Array.from({ length: wire.pictures }, (_, i) => String(i))
      const pictures = fields.length ? await this.redis.hmgetBuffer(wire.key, ...fields) : []
      if (pictures.some((picture) => picture === null))
        throw new DiffusionError('ERR_ND_INTERNAL', `its pictures were kept for ${outputSeconds} s, and are gone`)
      const painted = await paintedOf(wire, pictures as Buffer[])
      job.begin()
      job.done(painted)
      job.started = bull.processedOn ?? job.started
      job.ended = bull.finishedOn ?? job.ended
      this.end(job)
    } catch (error) {
      if (!(error instanceof DiffusionError)) return // Redis did not answer: check() comes back to it
      this.fail(id, error)
    }
  }

  private async waiting(): Promise<{ queued: number; running: number }> {
    const { wait = 0, prioritized = 0, active = 0 } = await this.queue.getJobCounts('wait', 'prioritized', 'active')
    return { queued: wait + prioritized, running: active }
  }

  /** Jobs that workers gave back go first: they lie in a list of their own. */
  private async tellPosition(id: string): Promise<void> {
    const job = this.live.get(id)
    if (!job) return
    const rows = await this.redis
      .multi()
      .zrank(this.queue.toKey('prioritized'), id)
      .llen(this.queue.toKey('wait'))
      .lpos(this.queue.toKey('wait'), id)
      .exec()
      .catch(() => null)
    const [rank, length, place] = (rows ?? []).map(([, value]) => value as number | null)
    if (rank !== null && rank !== undefined) job.wait(rank + (length ?? 0) + 1)
    else if (place !== null && place !== undefined) job.wait((length ?? 0) - place)
  }

  /** Positions every second; and now and then everything, since events are lost where Redis was away for long. */
  private async check(): Promise<void> {
    const all = ++this.ticks % 5 === 0
    for (const [id, job] of this.live)
      await (all ? this.settle(id) : job.state === 'queued' ? this.tellPosition(id) : undefined)?.catch(() => {})
  }
}
