/** What every protocol of the server asks for in the end: a task of a model, as a job of a queue. */
import type { DiffusionImage } from '../image.js'
import type { TaskOptions } from '../pipeline.js'
import type { Task } from '../tasks.js'
import type { GenerationResult } from '../txt2img.js'
import type { StepEvent } from '../txt2img-options.js'
import type { Job } from './job.js'
import { checkLimits, defaultLimits, type RequestLimits } from './limits.js'
import type { ModelStore } from './models.js'
import { JobQueue, type QueueOptions } from './queue.js'

export interface PaintRequest<T extends Task = Task> {
  /** The store's current model where there is none. */
  model?: string | undefined
  task: T
  /** Without signal and onStep, which are the queue's. */
  options: TaskOptions[T]
  priority?: number | undefined
}

export interface Painted {
  readonly model: string
  /** Without what no protocol hands out. */
  readonly result: Pick<GenerationResult, 'images' | 'seeds' | 'timings' | 'warnings'>
}

/** What watchers see of a step. */
export interface PaintStep {
  readonly step: number
  readonly steps: number
  readonly preview?: DiffusionImage
}

export type PaintJob = Job<Painted, PaintStep>

/** Where jobs wait and who works on them: in this process, or over Redis. */
export interface PaintQueue {
  /** @throws ERR_ND_QUEUE_FULL, ERR_ND_CLOSED, ERR_ND_UNAVAILABLE */
  submit(request: PaintRequest & { model: string }, signal?: AbortSignal): Promise<PaintJob>
  find(id: string): Promise<PaintJob | undefined>
  /** Jobs that were asked for here. */
  readonly running: readonly PaintJob[]
  counts(): Promise<{ queued: number; running: number; workers?: number }>
  /** Whether jobs can be taken now. */
  readonly ready: boolean
  /** Called when a job that was asked for here has ended. */
  onEnd: ((job: PaintJob) => void) | undefined
  /** Takes no more jobs; resolves when those whose clients wait have ended, cancelled where `now`. */
  close(now: boolean): Promise<void>
}

/** The bytes of its pictures. */
export const paintedBytes = ({ result }: Painted): number =>
  result.images.reduce((sum, { data }) => sum + data.length, 0)

/** Has a pipeline do what was asked for. */
export const paintWith = async <T extends Task>(
  models: ModelStore,
  request: PaintRequest<T> & { model: string },
  signal: AbortSignal,
  onStep: (step: PaintStep) => void
): Promise<Painted> => {
  const pipeline = await models.use(request.model)
  signal.throwIfAborted()
  const run = pipeline[request.task].bind(pipeline) as (o: TaskOptions[T]) => Promise<GenerationResult>
  const { images, seeds, timings, warnings } = await run({
    ...request.options,
    signal,
    onStep: (e: StepEvent) => onStep({ step: e.step, steps: e.steps, ...(e.image ? { preview: e.image } : {}) })
  })
  return { model: request.model, result: { images, seeds, timings, warnings } }
}

/** The queue of one process. */
export class LocalQueue implements PaintQueue {
  private readonly jobs: JobQueue<Painted, PaintStep>
  readonly ready = true

  constructor(
    private readonly models: ModelStore,
    options: QueueOptions<Painted> = {}
  ) {
    this.jobs = new JobQueue({ keepBytes: 256 << 20, sizeOf: paintedBytes, ...options, concurrency: 1 })
  }

  set onEnd(called: ((job: PaintJob) => void) | undefined) {
    this.jobs.onEnd = called
  }
  get running(): readonly PaintJob[] {
    return this.jobs.running
  }
  // eslint-disable-next-line @typescript-eslint/require-await -- throws as a rejection
  async submit(request: PaintRequest & { model: string }, signal?: AbortSignal): Promise<PaintJob> {
    const { task, priority } = request
    return this.jobs.submit((stop, onStep) => paintWith(this.models, request, stop, onStep), { task, priority, signal })
  }
  find(id: string): Promise<PaintJob | undefined> {
    return Promise.resolve(this.jobs.get(id))
  }
  counts(): Promise<{ queued: number; running: number }> {
    return Promise.resolve({ queued: this.jobs.queued, running: this.jobs.running.length })
  }
  close(now: boolean): Promise<void> {
    return this.jobs.close(now)
  }
}

export class Painter {
  constructor(
    readonly models: ModelStore,
    readonly queue: PaintQueue,
    private readonly limits: RequestLimits = defaultLimits
  ) {}

  /** @throws ERR_ND_QUEUE_FULL, ERR_ND_CLOSED, ERR_ND_UNAVAILABLE, ERR_ND_INVALID_ARGUMENT (an unknown model) */
  async submit<T extends Task>(request: PaintRequest<T>, signal?: AbortSignal): Promise<PaintJob> {
    const model = this.models.entry(request.model ?? this.models.current).name
    await checkLimits(request, this.limits)
    return this.queue.submit({ ...request, model }, signal)
  }
}
