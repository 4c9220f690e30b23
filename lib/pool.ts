/** One model on several devices. */
import { native } from './binding.js'
import { disposedError } from './components.js'
import { chooseDevice } from './device.js'
import { DiffusionError, invalidArgument } from './errors.js'
import type { EditOptions, Img2ImgOptions, InpaintOptions } from './img2img-options.js'
import type { LoadOptions } from './load-options.js'
import type { OutpaintOptions } from './outpaint.js'
import { Pipeline, type TaskOptions } from './pipeline.js'
import type { StreamEvent } from './stream.js'
import type { SuperResolutionOptions } from './super-resolution.js'
import type { Task } from './tasks.js'
import type { GenerationResult } from './txt2img.js'
import type { Txt2ImgOptions } from './txt2img-options.js'
import type { UnconditionalOptions } from './unconditional.js'

/** The options of PipelinePool.fromPretrained. */
export interface PoolOptions extends Omit<LoadOptions, 'device'> {
  /** 'all': every GPU that can be used; or devices by name, as `device` of Pipeline takes them. */
  devices: 'all' | readonly string[]
}

interface Waiting {
  readonly start: (pipe: Pipeline) => void
  readonly fail: (error: Error) => void
}

/** @throws DiffusionError ERR_ND_CUDA_UNAVAILABLE, ERR_ND_INVALID_ARGUMENT */
const devicesOf = (devices: unknown): string[] => {
  if (devices === 'all') {
    const { cuda, cudaReason } = native().inspect()
    const usable = (cuda ?? []).filter((gpu) => !gpu.reason).map((gpu) => `cuda:${gpu.index}`)
    if (usable.length === 0) {
      const reason = (cuda ?? []).map((gpu) => gpu.reason).join('; ') || cudaReason
      throw new DiffusionError(
        'ERR_ND_CUDA_UNAVAILABLE',
        `Expected CUDA devices for 'all' but ${reason}; name the devices, or use Pipeline with device 'auto'`
      )
    }
    return usable
  }
  if (!Array.isArray(devices) || devices.length === 0 || devices.some((device) => typeof device !== 'string'))
    throw invalidArgument('devices', "'all' or a list of devices such as ['cuda:0', 'cuda:1']", devices)
  return devices as string[]
}

/**
 * The same model on several devices: a call goes to the device that is free first, and waits in line where none is. A
 * picture is the same whichever device paints it, as far as they compute alike. Dispose of it when done:
 * `await pool.dispose()`, or `await using pool = …`.
 */
export class PipelinePool {
  private readonly free: Pipeline[]
  private readonly line: Waiting[] = []
  private disposed: Promise<void> | undefined

  private constructor(
    /** One per device, in their order. */
    readonly pipelines: readonly Pipeline[]
  ) {
    this.free = [...pipelines]
  }

  /**
   * Loads the model on every device: on the first, which also downloads what is missing and is the one that
   * `onProgress` tells of, then on all others at once. Options as Pipeline.fromPretrained's.
   * @throws as Pipeline.fromPretrained; nothing stays loaded then
   */
  static async fromPretrained(source: string, options: PoolOptions): Promise<PipelinePool> {
    const { devices, onProgress, ...shared } = options ?? {}
    if ('device' in shared)
      throw invalidArgument('device', 'nothing next to devices', (shared as { device: unknown }).device)
    const names = devicesOf(devices)
    for (const device of names) chooseDevice(device, shared.dtype ?? 'auto')
    const first = await Pipeline.fromPretrained(source, {
      ...shared,
      ...(onProgress ? { onProgress } : {}),
      device: names[0]!
    })
    const others = await Promise.allSettled(
      names.slice(1).map((device) => Pipeline.fromPretrained(source, { ...shared, device }))
    )
    const loaded = others.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []))
    const failed = others.find((result) => result.status === 'rejected')
    if (failed) {
      await Promise.all([first, ...loaded].map((pipe) => pipe.dispose()))
      throw failed.reason
    }
    return new PipelinePool([first, ...loaded])
  }

  /** 'cpu' or 'cuda:0', one per pipeline. */
  get devices(): readonly string[] {
    return this.pipelines.map((pipe) => pipe.device)
  }
  /** What the model can do: see Pipeline. */
  get tasks(): readonly Task[] {
    return this.pipelines[0]!.tasks
  }
  /** What came up while loading, on the first device. */
  get warnings(): readonly string[] {
    return this.pipelines[0]!.warnings
  }

  /**
   * Any work with one pipeline, as soon as one is free.
   * @throws what the work throws; signal.reason where it is aborted while it waits; DiffusionError ERR_ND_DISPOSED
   */
  async run<T>(work: (pipe: Pipeline) => Promise<T>, signal?: AbortSignal): Promise<T> {
    const pipe = await this.acquire(signal)
    try {
      return await work(pipe)
    } finally {
      this.release(pipe)
    }
  }

  /** As Pipeline.txt2img, on the device that is free first; the others likewise. */
  txt2img(options: Txt2ImgOptions): Promise<GenerationResult> {
    return this.run((pipe) => pipe.txt2img(options), options?.signal)
  }
  /** As Pipeline.img2img. */
  img2img(options: Img2ImgOptions): Promise<GenerationResult> {
    return this.run((pipe) => pipe.img2img(options), options?.signal)
  }
  /** As Pipeline.inpaint. */
  inpaint(options: InpaintOptions): Promise<GenerationResult> {
    return this.run((pipe) => pipe.inpaint(options), options?.signal)
  }
  /** As Pipeline.outpaint. */
  outpaint(options: OutpaintOptions): Promise<GenerationResult> {
    return this.run((pipe) => pipe.outpaint(options), options?.signal)
  }
  /** As Pipeline.edit. */
  edit(options: EditOptions): Promise<GenerationResult> {
    return this.run((pipe) => pipe.edit(options), options?.signal)
  }
  /** As Pipeline.superResolution. */
  superResolution(options: SuperResolutionOptions): Promise<GenerationResult> {
    return this.run((pipe) => pipe.superResolution(options), options?.signal)
  }
  /** As Pipeline.unconditional. */
  unconditional(options: UnconditionalOptions = {}): Promise<GenerationResult> {
    return this.run((pipe) => pipe.unconditional(options), options.signal)
  }

  /** As Pipeline.stream, on the device that is free first, which is the caller's until the stream ends. */
  async *stream<K extends Task>(task: K, options: TaskOptions[K]): AsyncGenerator<StreamEvent, void, undefined> {
    const pipe = await this.acquire(options?.signal)
    try {
      yield* pipe.stream(task, options)
    } finally {
      this.release(pipe)
    }
  }

  /** Something for every pipeline alike: `pool.each((pipe) => pipe.loadLora('style.safetensors'))`. */
  each<T>(work: (pipe: Pipeline) => Promise<T>): Promise<T[]> {
    return Promise.all(this.pipelines.map(work))
  }

  /** Ends what waits, waits for what runs, and gives all memory back. */
  dispose(): Promise<void> {
    this.disposed ??= (async () => {
      for (const waiting of this.line.splice(0)) waiting.fail(disposedError())
      await Promise.all(this.pipelines.map((pipe) => pipe.dispose()))
    })()
    return this.disposed
  }
  /** As dispose. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose()
  }

  private async acquire(signal: AbortSignal | undefined): Promise<Pipeline> {
    if (this.disposed) throw disposedError()
    // What is no signal is the pipeline's to refuse.
    if (!(signal instanceof AbortSignal)) signal = undefined
    signal?.throwIfAborted()
    const free = this.free.shift()
    if (free) return free
    return new Promise((resolve, reject) => {
      const aborted = (): void => {
        this.line.splice(this.line.indexOf(waiting), 1)
        reject(signal!.reason as Error)
      }
      const waiting: Waiting = {
        start: (pipe) => {
          signal?.removeEventListener('abort', aborted)
          resolve(pipe)
        },
        fail: (error) => {
          signal?.removeEventListener('abort', aborted)
          reject(error)
        }
      }
      signal?.addEventListener('abort', aborted, { once: true })
      this.line.push(waiting)
    })
  }

  private release(pipe: Pipeline): void {
    const next = this.line.shift()
    if (next) next.start(pipe)
    else this.free.push(pipe)
  }
}
