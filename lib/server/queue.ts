/** Calls that wait for their turn: by priority, then in order. Bounded, so that an overload is told at once and not by a time-out. */
import { randomUUID } from 'node:crypto'
import { DiffusionError } from '../errors.js'

export type JobState = 'queued' | 'running' | 'done' | 'failed' | 'cancelled'

export interface QueueOptions {
  /** Jobs at once; one per pipeline, which is serial anyway. */
  concurrency?: number
  /** Jobs that may wait; one more is refused. */
  maxQueued?: number
  /** Ended jobs that stay readable. */
  keep?: number
}

export interface SubmitOptions {
  /** Higher goes first; 0 by default. */
  priority?: number
  /** Cancels the job, waiting or running. */
  signal?: AbortSignal
  /** For listings and metrics: 'txt2img'. */
  task?: string
}

/** Told to everyone who watches a job. */
export type JobEvent<E> =
  | { readonly type: 'state'; readonly state: JobState; readonly position: number }
  | { readonly type: 'step'; readonly event: E }

/** One call, from being asked for to its end. */
export class Job<T, E> {
  readonly id = randomUUID()
  readonly created = Date.now()
  started: number | undefined
  ended: number | undefined
  state: JobState = 'queued'
  /** The last event of a step. */
  last: E | undefined
  result: T | undefined
  error: unknown
  /** Settles with the job; never an unhandled rejection. */
  readonly finished: Promise<T>
  private readonly watchers = new Set<(event: JobEvent<E>) => void>()
  private readonly stop = new AbortController()
  private settle!: { resolve: (value: T) => void; reject: (error: unknown) => void }

  constructor(
    readonly task: string,
    readonly priority: number,
    private readonly work: JobWork<T, E>
  ) {
    this.finished = new Promise((resolve, reject) => (this.settle = { resolve, reject }))
    this.finished.catch(() => {})
  }

  get signal(): AbortSignal {
    return this.stop.signal
  }

  cancel(reason: unknown = cancelled()): void {
    this.stop.abort(reason)
  }

  /** Calls back until the returned function is called. */
  watch(watcher: (event: JobEvent<E>) => void): () => void {
    this.watchers.add(watcher)
    return () => this.watchers.delete(watcher)
  }

  /** For the queue. */
  tell(event: JobEvent<E>): void {
    if (event.type === 'step') this.last = event.event
    for (const watcher of this.watchers) watcher(event)
  }

  /** For the queue: runs the work and settles. */
  async run(): Promise<void> {
    this.started = Date.now()
    this.become('running')
    try {
      this.stop.signal.throwIfAborted()
      this.finish('done', await this.work(this.stop.signal, (event) => this.tell({ type: 'step', event })))
    } catch (error) {
      this.fail(error)
    }
  }

  fail(error: unknown): void {
    if (this.ended !== undefined) return
    this.error = error
    this.ended = Date.now()
    this.settle.reject(error)
    this.become(this.stop.signal.aborted ? 'cancelled' : 'failed')
  }

  private finish(state: JobState, result: T): void {
    this.result = result
    this.ended = Date.now()
    this.settle.resolve(result)
    this.become(state)
  }

  private become(state: JobState): void {
    this.state = state
    this.tell({ type: 'state', state, position: 0 })
    if (this.ended !== undefined) this.watchers.clear()
  }
}

const cancelled = (): DiffusionError => new DiffusionError('ERR_ND_ABORTED', 'the job was cancelled')

export class JobQueue<T, E> {
  private readonly waiting: Job<T, E>[] = []
  private readonly active = new Set<Job<T, E>>()
  private readonly known = new Map<string, Job<T, E>>()
  private readonly options: Required<QueueOptions>
  private closed = false
  private idle: (() => void)[] = []
  /** Called when a job has ended. */
  onEnd: ((job: Job<T, E>) => void) | undefined

  constructor(options: QueueOptions = {}) {
    this.options = { concurrency: 1, maxQueued: 64, keep: 256, ...options }
  }

  /**
   * @throws ERR_ND_QUEUE_FULL where `maxQueued` wait already, ERR_ND_CLOSED once the queue is closing
   */
  submit(work: JobWork<T, E>, o: SubmitOptions = {}): Job<T, E> {
    if (this.closed) throw new DiffusionError('ERR_ND_CLOSED', 'the server is shutting down; try another one')
    const { concurrency, maxQueued } = this.options
    if (this.waiting.length >= maxQueued && this.active.size >= concurrency)
      throw new DiffusionError(
        'ERR_ND_QUEUE_FULL',
        `Expected at most ${maxQueued} waiting jobs but there are ${this.waiting.length}; try again later`
      )
    const job = new Job<T, E>(o.task ?? 'job', o.priority ?? 0, work)
    this.known.set(job.id, job)
    const at = this.waiting.findIndex((other) => other.priority < job.priority)
    this.waiting.splice(at < 0 ? this.waiting.length : at, 0, job)
    job.signal.addEventListener('abort', () => this.drop(job), { once: true })
    const { signal } = o
    if (signal?.aborted) job.cancel(signal.reason)
    else if (signal) {
      const abort = (): void => job.cancel(signal.reason)
      signal.addEventListener('abort', abort, { once: true })
      void job.finished.catch(() => {}).finally(() => signal.removeEventListener('abort', abort))
    }
    this.next()
    return job
  }

  get(id: string): Job<T, E> | undefined {
    return this.known.get(id)
  }
  /** 0 for one that runs or has ended; 1 for the next one. */
  position(job: Job<T, E>): number {
    return this.waiting.indexOf(job) + 1
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
    if (now) for (const job of [...this.waiting, ...this.active]) job.cancel()
    while (this.waiting.length + this.active.size > 0) await new Promise<void>((resolve) => this.idle.push(resolve))
  }

  /** A cancelled job that waits ends at once; one that runs ends itself. */
  private drop(job: Job<T, E>): void {
    const at = this.waiting.indexOf(job)
    if (at < 0) return
    this.waiting.splice(at, 1)
    job.fail(job.signal.reason)
    this.ended(job)
    this.tellPositions()
  }

  private next(): void {
    while (this.active.size < this.options.concurrency && this.waiting.length) {
      const job = this.waiting.shift()!
      this.active.add(job)
      void job.run().then(() => {
        this.active.delete(job)
        this.ended(job)
        this.next()
      })
    }
    this.tellPositions()
  }

  private tellPositions(): void {
    this.waiting.forEach((job, i) => job.tell({ type: 'state', state: 'queued', position: i + 1 }))
  }

  private ended(job: Job<T, E>): void {
    this.onEnd?.(job)
    if (this.known.size > this.options.keep)
      for (const [id, old] of this.known) {
        if (this.known.size <= this.options.keep) break
        if (old.ended !== undefined) this.known.delete(id)
      }
    for (const resolve of this.idle.splice(0)) resolve()
  }
}

export type JobWork<T, E> = (signal: AbortSignal, onStep: (event: E) => void) => Promise<T>
