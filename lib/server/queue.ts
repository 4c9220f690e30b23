/** Calls that wait for their turn: by priority, then in order. Bounded, so that an overload is told at once and not by a time-out. */
import { cancelled, closing, Ended, Job, queueFull } from './job.js'

export interface QueueOptions<T = unknown> {
  /** Jobs at once; one per pipeline, which is serial anyway. */
  concurrency?: number
  /** Jobs that may wait; one more is refused. */
  maxQueued?: number
  /** Ended jobs that stay readable. */
  keep?: number
  /** Bytes of their results. */
  keepBytes?: number
  /** Bytes of a result. */
  sizeOf?: (result: T) => number
}

export interface SubmitOptions {
  /** Higher goes first; 0 by default. */
  priority?: number | undefined
  /** Cancels the job, waiting or running. */
  signal?: AbortSignal | undefined
  /** For listings and metrics: 'txt2img'. */
  task?: string
}

interface Waiting<T, E extends object> {
  readonly job: Job<T, E>
  readonly work: JobWork<T, E>
}

export class JobQueue<T, E extends object> {
  private readonly waiting: Waiting<T, E>[] = []
  private readonly active = new Set<Job<T, E>>()
  private readonly ended: Ended<T, E>
  private readonly options: Required<QueueOptions<T>>
  private closed = false
  private idle: (() => void)[] = []
  /** Called when a job has ended. */
  onEnd: ((job: Job<T, E>) => void) | undefined

  constructor(options: QueueOptions<T> = {}) {
    this.options = { concurrency: 1, maxQueued: 64, keep: 256, keepBytes: Infinity, sizeOf: () => 0, ...options }
    this.ended = new Ended(this.options.keep, this.options.keepBytes, this.options.sizeOf)
  }

  /**
   * @throws ERR_ND_QUEUE_FULL where `maxQueued` wait already, ERR_ND_CLOSED once the queue is closing
   */
  submit(work: JobWork<T, E>, o: SubmitOptions = {}): Job<T, E> {
    if (this.closed) throw closing()
    const { concurrency, maxQueued } = this.options
    if (this.waiting.length >= maxQueued && this.active.size >= concurrency)
      throw queueFull(maxQueued, this.waiting.length)
    const job = new Job<T, E>(o.task ?? 'job', o.priority ?? 0)
    const at = this.waiting.findIndex((other) => other.job.priority < job.priority)
    this.waiting.splice(at < 0 ? this.waiting.length : at, 0, { job, work })
    job.signal.addEventListener('abort', () => this.drop(job), { once: true })
    job.follow(o.signal)
    this.next()
    return job
  }

  get(id: string): Job<T, E> | undefined {
    const is = (job: Job<T, E>): boolean => job.id === id
    return this.ended.get(id) ?? [...this.active].find(is) ?? this.waiting.map(({ job }) => job).find(is)
  }
  get queued(): number {
    return this.waiting.length
  }
  get running(): readonly Job<T, E>[] {
    return [...this.active]
  }

  /** Takes no more jobs; resolves when all that were taken have ended, cancelled where `now`. */
  async close(now = false): Promise<void> {
    this.closed = true
    if (now) for (const job of [...this.waiting.map(({ job }) => job), ...this.active]) job.cancel()
    while (this.waiting.length + this.active.size > 0) await new Promise<void>((resolve) => this.idle.push(resolve))
  }

  /** A cancelled job that waits ends at once; one that runs ends itself. */
  private drop(job: Job<T, E>): void {
    const at = this.waiting.findIndex((other) => other.job === job)
    if (at < 0) return
    this.waiting.splice(at, 1)
    job.fail(job.signal.reason)
    this.end(job)
    this.tellPositions()
  }

  private next(): void {
    while (this.active.size < this.options.concurrency && this.waiting.length) {
      const { job, work } = this.waiting.shift()!
      this.active.add(job)
      void this.run(job, work).then(() => {
        this.active.delete(job)
        this.end(job)
        this.next()
      })
    }
    this.tellPositions()
  }

  private async run(job: Job<T, E>, work: JobWork<T, E>): Promise<void> {
    job.begin()
    try {
      job.signal.throwIfAborted()
      job.done(await work(job.signal, (event) => job.step(event)))
    } catch (error) {
      job.fail(error ?? cancelled())
    }
  }

  private tellPositions(): void {
    this.waiting.forEach(({ job }, i) => job.wait(i + 1))
  }

  private end(job: Job<T, E>): void {
    this.ended.add(job)
    this.onEnd?.(job)
    for (const resolve of this.idle.splice(0)) resolve()
  }
}

export type JobWork<T, E> = (signal: AbortSignal, onStep: (event: E) => void) => Promise<T>
