/** One call of a server, from being asked for to its end; a queue drives it. */
import { randomUUID } from 'node:crypto'
import { DiffusionError } from '../errors.js'

export type JobState = 'queued' | 'running' | 'done' | 'failed' | 'cancelled'

/** Told to everyone who watches a job. */
export type JobEvent<E> =
  | { readonly type: 'state'; readonly state: JobState; readonly position: number }
  | { readonly type: 'step'; readonly event: E }

export class Job<T, E extends object> {
  created = Date.now()
  started: number | undefined
  ended: number | undefined
  state: JobState = 'queued'
  /** 0 for one that runs or has ended; 1 for the next one. */
  position = 0
  /** The last of each that events of steps have told: a preview stays until there is a newer one. */
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
    readonly id: string = randomUUID()
  ) {
    this.finished = new Promise((resolve, reject) => (this.settle = { resolve, reject }))
    this.finished.catch(() => {})
  }

  get signal(): AbortSignal {
    return this.stop.signal
  }

  cancel(reason: unknown = cancelled()): void {
    if (this.ended === undefined) this.stop.abort(reason)
  }

  /** Cancels when `signal` does. */
  follow(signal: AbortSignal | undefined): void {
    if (signal?.aborted) this.cancel(signal.reason)
    else if (signal) {
      const abort = (): void => this.cancel(signal.reason)
      signal.addEventListener('abort', abort, { once: true })
      void this.finished.catch(() => {}).finally(() => signal.removeEventListener('abort', abort))
    }
  }

  /** Calls back until the returned function is called. */
  watch(watcher: (event: JobEvent<E>) => void): () => void {
    this.watchers.add(watcher)
    return () => this.watchers.delete(watcher)
  }

  // The rest is for queues.

  step(event: E): void {
    if (this.ended !== undefined) return
    this.last = { ...this.last, ...event }
    this.tell({ type: 'step', event })
  }

  /** It waits, at `position`: new, or given back by a worker. */
  wait(position: number): void {
    if (this.ended !== undefined || (this.state === 'queued' && this.position === position)) return
    this.started = undefined
    this.become('queued', position)
  }

  begin(): void {
    if (this.ended !== undefined || this.state === 'running') return
    this.started = Date.now()
    this.become('running')
  }

  done(result: T): void {
    if (this.ended !== undefined) return
    this.result = result
    this.ended = Date.now()
    this.settle.resolve(result)
    this.become('done')
  }

  fail(error: unknown): void {
    if (this.ended !== undefined) return
    this.error = error
    this.ended = Date.now()
    this.settle.reject(error)
    const aborted = error instanceof DiffusionError && error.code === 'ERR_ND_ABORTED'
    this.become(this.stop.signal.aborted || aborted ? 'cancelled' : 'failed')
  }

  private become(state: JobState, position = 0): void {
    this.state = state
    this.position = position
    this.tell({ type: 'state', state, position })
    if (this.ended !== undefined) this.watchers.clear()
  }

  private tell(event: JobEvent<E>): void {
    for (const watcher of this.watchers) watcher(event)
  }
}

export const cancelled = (): DiffusionError => new DiffusionError('ERR_ND_ABORTED', 'the job was cancelled')

export const closing = (): DiffusionError =>
  new DiffusionError('ERR_ND_CLOSED', 'the server is shutting down; try another one')

export const queueFull = (most: number, waiting: number): DiffusionError =>
  new DiffusionError(
    'ERR_ND_QUEUE_FULL',
    `Expected at most ${most} waiting jobs but there are ${waiting}; try again later`
  )

/** Ended jobs stay readable for a while: the newest, as long as their results fit. */
export class Ended<T, E extends object> {
  private readonly jobs = new Map<string, { job: Job<T, E>; bytes: number }>()
  private bytes = 0

  constructor(
    private readonly keep: number,
    private readonly keepBytes: number,
    private readonly sizeOf: (result: T) => number
  ) {}

  get(id: string): Job<T, E> | undefined {
    return this.jobs.get(id)?.job
  }

  add(job: Job<T, E>): void {
    const bytes = job.result === undefined ? 0 : this.sizeOf(job.result)
    this.jobs.set(job.id, { job, bytes })
    this.bytes += bytes
    for (const [id, old] of this.jobs) {
      if (this.jobs.size <= this.keep && this.bytes <= this.keepBytes) break
      this.jobs.delete(id)
      this.bytes -= old.bytes
    }
  }
}
