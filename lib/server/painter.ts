/** What every protocol of the server asks for in the end: a task of a model, as a job of the queue. */
import type { DiffusionImage } from '../image.js'
import type { TaskOptions } from '../pipeline.js'
import type { Task } from '../tasks.js'
import type { GenerationResult } from '../txt2img.js'
import type { StepEvent } from '../txt2img-options.js'
import type { Metrics } from './metrics.js'
import type { ModelStore } from './models.js'
import { JobQueue, type Job, type QueueOptions } from './queue.js'

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
  readonly result: GenerationResult
}

/** What watchers see of a step. */
export interface PaintStep {
  readonly step: number
  readonly steps: number
  readonly preview?: DiffusionImage
}

export type PaintJob = Job<Painted, PaintStep>

export class Painter {
  readonly queue: JobQueue<Painted, PaintStep>

  constructor(
    readonly models: ModelStore,
    private readonly metrics: Metrics,
    options: QueueOptions = {}
  ) {
    this.queue = new JobQueue({ ...options, concurrency: 1 })
    this.queue.onEnd = (job) => this.metrics.ended(job)
  }

  /** @throws ERR_ND_QUEUE_FULL, ERR_ND_CLOSED, ERR_ND_INVALID_ARGUMENT (an unknown model) */
  submit<T extends Task>(request: PaintRequest<T>, signal?: AbortSignal): PaintJob {
    const model = this.models.entry(request.model ?? this.models.current).name
    return this.queue.submit(
      async (stop, onStep) => {
        const pipeline = await this.models.use(model)
        stop.throwIfAborted()
        const run = pipeline[request.task].bind(pipeline) as (o: TaskOptions[T]) => Promise<GenerationResult>
        const result = await run({
          ...request.options,
          signal: stop,
          onStep: (e: StepEvent) => onStep({ step: e.step, steps: e.steps, ...(e.image ? { preview: e.image } : {}) })
        })
        return { model, result }
      },
      {
        task: request.task,
        ...(request.priority === undefined ? {} : { priority: request.priority }),
        ...(signal ? { signal } : {})
      }
    )
  }
}
