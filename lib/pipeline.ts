import { basename } from 'node:path'
import { native, translating, translatingSync, type NativeSession } from './binding.js'
import { ControlModels, type ControlNet, type LoadControlOptions, type T2iAdapter } from './control.js'
import {
  controlSize,
  mentionsControl,
  resolveControls,
  type ControlOptions,
  type ResolvedControls
} from './control-options.js'
import { disposedError, TextEncoder, UNet, Vae } from './components.js'
import { DiffusionError, invalidArgument, unsupported } from './errors.js'
import { addNoise, type AddNoiseOptions, type AddNoiseResult } from './forward-diffusion.js'
import { paintTwice } from './hires.js'
import type { Component, ModelFolder, TextComponent } from './models/folder.js'
import { readModel } from './models/model.js'
import { isSdxl, partsOf } from './models/pipeline-classes.js'
import type { CheckpointReader } from './models/single-file/checkpoint.js'
import { loadTokenizer } from './models/tokenizer-source.js'
import { vaeFactor } from './models/vae.js'
import type { ComponentWeights } from './models/weights.js'
import { outpaintOptions, type OutpaintOptions } from './outpaint.js'
import { createScheduler, Scheduler } from './schedulers/index.js'
import {
  resolveEdit,
  resolveImg2Img,
  resolveInpaint,
  type EditOptions,
  type Img2ImgOptions,
  type InpaintOptions
} from './img2img-options.js'
import { checkScheduler, chooseScheduler } from './pipeline-scheduler.js'
import { resolveSource } from './source.js'
import { resolveSuperResolution, type SuperResolutionOptions } from './super-resolution.js'
import { paintedChannels, taskError, tasks, tasksOf, unetChannelsError, type Task } from './tasks.js'
import type { Tokenizer } from './tokenizer/tokenizer.js'
import { generate, type GenerationResult, type Txt2ImgModels } from './txt2img.js'
import { resolveOptions, type ResolvedOptions, type StepEvent, type Txt2ImgOptions } from './txt2img-options.js'
import { integerIn, knownKeys, oneOf } from './validate.js'

export interface LoadOptions {
  /** 'auto' (default): the best there is; 'cpu'; 'cuda', 'cuda:1': that one, or an error. */
  device?: string
  /** 'auto' (default) or 'float32': what the CPU computes in. Weights keep the file's type. */
  dtype?: string
  /** CPU threads; default: the physical cores. */
  threads?: number
  /** Instead of the model's own: an instance, a diffusers class name or an AUTOMATIC1111 label. */
  scheduler?: Scheduler | string
  /** Another AutoencoderKL: a folder, or a .safetensors file in the original layout. */
  vae?: string
  /** Single files: a diffusers folder with the configurations and tokenizers to use; its weights are not read. */
  config?: string
  /** What the UNet predicts, where the model does not say it (single files of Stable Diffusion 2) or says it wrongly. */
  predictionType?: 'epsilon' | 'v_prediction' | 'sample'
  /** Take *.VARIANT.safetensors. */
  variant?: string
  /** Ends the loading between two components. */
  signal?: AbortSignal
  /** Components laid out; before that, of models from the hub, bytes of all files (`component: 'download'`). */
  onProgress?: (event: { component: string; loaded: number; total: number; file?: string }) => void
  /** Hub: a branch, tag or commit; 'main' by default. */
  revision?: string
  /** Hub: where models are kept; default HF_HUB_CACHE, or hub/ in HF_HOME: Python's cache, read and filled in place. */
  cacheDir?: string
  /** Hub: instead of HF_TOKEN or what `hf auth login` stored; false sends none. */
  token?: string | false
  /** Hub: read the cache alone, as HF_HUB_OFFLINE=1 does. */
  localFilesOnly?: boolean
  /** SHA-256 that a downloaded single file must have. */
  sha256?: string
}

const known: readonly (keyof LoadOptions)[] = [
  'device',
  'dtype',
  'threads',
  'scheduler',
  'vae',
  'config',
  'predictionType',
  'variant',
  'signal',
  'onProgress',
  'revision',
  'cacheDir',
  'token',
  'localFilesOnly',
  'sha256'
]

/** What `for await (const e of pipe.stream(…))` yields: the steps, and at the end the result. */
export type StreamEvent =
  ({ readonly type: 'step' } & StepEvent) | { readonly type: 'result'; readonly result: GenerationResult }

/** Every task's options. */
export interface TaskOptions {
  txt2img: Txt2ImgOptions
  img2img: Img2ImgOptions
  inpaint: InpaintOptions
  edit: EditOptions
  superResolution: SuperResolutionOptions
}

/**
 * A model, loaded and ready. Calls may overlap: they run one after another, in order, where a picture is given from when
 * it is decoded.
 * Dispose of it when done: `await pipe.dispose()`, or `await using pipe = …`.
 */
export class Pipeline {
  /** 'cpu' or 'cuda:0', and why 'auto' chose it. */
  readonly device: string
  readonly deviceReason: string
  /** What came up while loading; told once, here. */
  readonly warnings: readonly string[]
  /** What this model can do: the methods of these names work, the others reject. */
  readonly tasks: readonly Task[]
  /** Undefined in a later stage of a cascade that comes without a text encoder; so is textEncoder. */
  readonly tokenizer: Tokenizer
  readonly tokenizer2: Tokenizer | undefined
  readonly textEncoder: TextEncoder
  /** SDXL's second one. */
  readonly textEncoder2: TextEncoder | undefined
  readonly unet: UNet
  private readonly autoencoder: Vae | undefined
  private readonly controls: ControlModels
  private current: Scheduler
  private disposed: Promise<void> | undefined

  private constructor(
    private readonly native: NativeSession,
    private readonly folder: ModelFolder,
    private readonly tokenizers: readonly Tokenizer[],
    choice: { device: string; reason: string },
    scheduler: Scheduler,
    private readonly name: string
  ) {
    const owner = { session: () => this.session() }
    const encoders = loadedEncoders(folder).map(
      (e, i) => new TextEncoder(owner, i, { ...e.config }, e.config.maxPositions)
    )
    this.device = choice.device
    this.deviceReason = choice.reason
    this.warnings = [...folder.warnings, ...scheduler.warnings]
    this.tasks = tasksOf(folder)
    this.tokenizer = tokenizers[0]!
    this.tokenizer2 = tokenizers[1]
    this.textEncoder = encoders[0]!
    this.textEncoder2 = encoders[1]
    this.unet = new UNet(owner, { ...folder.unet.config }, folder.unet.config.inChannels)
    const vae = folder.vae?.config
    if (vae)
      this.autoencoder = new Vae(
        owner,
        { ...vae },
        { picture: vae.inChannels, latent: vae.latentChannels },
        vaeFactor(vae)
      )
    this.current = scheduler
    const unet = folder.unet.config
    const controlled = vae && { unet, latentChannels: vae.latentChannels, factor: vaeFactor(vae) }
    this.controls = new ControlModels(owner, controlled, readHeader)
  }

  /**
   * Loads a model: a folder in the diffusers layout, a .safetensors checkpoint in the original one (SD1, SD2, SDXL),
   * 'org/name' on the Hugging Face hub, an https address of a checkpoint, or 'postcard', the bundled one.
   * @throws DiffusionError ERR_ND_MODEL_NOT_FOUND, ERR_ND_MODEL_FORMAT, ERR_ND_UNSUPPORTED, ERR_ND_INVALID_ARGUMENT,
   *   ERR_ND_CUDA_UNAVAILABLE, ERR_ND_OUT_OF_MEMORY, ERR_ND_NO_BINARY, ERR_ND_DOWNLOAD, ERR_ND_ACCESS; signal.reason
   */
  static async fromPretrained(source: string, options: LoadOptions = {}): Promise<Pipeline> {
    knownKeys('fromPretrained', options, known)
    const { signal } = options
    if (signal !== undefined && !(signal instanceof AbortSignal))
      throw invalidArgument('signal', 'an AbortSignal', signal)
    signal?.throwIfAborted()
    const choice = chooseDevice(options.device ?? 'auto', options.dtype ?? 'auto')
    const threads = options.threads === undefined ? 0 : integerIn('threads', options.threads, 1, 1024)
    const { variant, config, predictionType } = options
    if (predictionType !== undefined && options.scheduler instanceof Scheduler)
      throw invalidArgument(
        'predictionType',
        'nothing next to a scheduler instance, which has its own,',
        predictionType
      )
    const { path, prefer, warnings } = await resolveSource(source, options)
    const read = await readModel(path, { readHeader, variant, prefer, config, predictionType, vae: options.vae })
    const folder = { ...read, warnings: [...warnings, ...read.warnings] }
    if (tasksOf(folder).length === 0) throw unetChannelsError(folder)
    const scheduler = chooseScheduler(options.scheduler, folder)
    const tokenizers = [
      [folder.textEncoder, folder.tokenizer] as const,
      [folder.textEncoder2, folder.tokenizer2] as const
    ].flatMap(([encoder, tokenizer]) => (encoder && tokenizer ? [loadTokenizer(encoder.kind, tokenizer)] : []))

    const session = translatingSync(() => new (native().Session)({ device: choice.device, threads }))
    const parts: [kind: 'textEncoder' | 'unet' | 'vae', component: Component<object>][] = [
      ...loadedEncoders(folder).map(
        ({ kind, ...e }) =>
          ['textEncoder', { ...e, config: { kind, ...e.config } }] as ['textEncoder', Component<object>]
      ),
      ['unet', folder.unet],
      ...(folder.vae ? [['vae', folder.vae] as ['vae', Component<object>]] : [])
    ]
    try {
      for (const [i, [kind, component]] of parts.entries()) {
        signal?.throwIfAborted()
        await loadComponent(session, kind, component.config, component.weights)
        options.onProgress?.({ component: kind, loaded: i + 1, total: parts.length })
      }
    } catch (error) {
      await session.unload()
      throw error
    }
    return new Pipeline(session, folder, tokenizers, choice, scheduler, basename(source, '.safetensors'))
  }

  /** @throws DiffusionError ERR_ND_UNSUPPORTED where the model paints pixels */
  get vae(): Vae {
    if (!this.autoencoder) throw unsupported('Expected a model with an autoencoder but this one paints pixels')
    return this.autoencoder
  }

  get scheduler(): Scheduler {
    return this.current
  }
  set scheduler(value: Scheduler | string) {
    this.current = typeof value === 'string' ? createScheduler(value, this.current.toJSON()) : checkScheduler(value)
  }

  /** Text to image. @throws DiffusionError; signal.reason when aborted; what onStep throws */
  async txt2img(options: Txt2ImgOptions): Promise<GenerationResult> {
    const models = this.modelsFor('txt2img', options)
    const run = (o: ResolvedOptions, controls?: ResolvedControls): Promise<GenerationResult> => {
      if (o.hires && !this.autoencoder)
        throw unsupported('hires is for models with an autoencoder; a cascade has superResolution for it')
      return o.hires ? paintTwice(o, o.hires, models, controls) : generate(o, models, undefined, controls)
    }
    if (!mentionsControl(options)) return run(resolveOptions(options, models))
    const controls = await this.controlsFor('txt2img', options, models)
    const size = controls && controlSize(controls)
    return run(resolveOptions(options, size ? { ...models, defaultSize: size } : models), controls)
  }

  /** A picture painted anew, as far as `strength` says. @throws as txt2img */
  async img2img(options: Img2ImgOptions): Promise<GenerationResult> {
    const models = this.modelsFor('img2img', options)
    const [call, controls] = await Promise.all([
      resolveImg2Img(options, models),
      this.controlsFor('img2img', options, models)
    ])
    this.session() // disposed of meanwhile?
    return generate(call.options, models, call.picture, controls)
  }

  /** The part of a picture that `mask` shows, painted anew. @throws as txt2img */
  async inpaint(options: InpaintOptions): Promise<GenerationResult> {
    const models = this.modelsFor('inpaint', options)
    const [call, controls] = await Promise.all([
      resolveInpaint(options, models),
      this.controlsFor('inpaint', options, models)
    ])
    this.session() // disposed of meanwhile?
    return generate(call.options, models, call.picture, controls)
  }

  /** A picture carried on beyond its edges. @throws as txt2img */
  async outpaint(options: OutpaintOptions): Promise<GenerationResult> {
    const models = this.modelsFor('inpaint', options)
    return this.inpaint(await outpaintOptions(options, Math.max(8, models.factor)))
  }

  /** A picture changed as the prompt tells to (InstructPix2Pix models). @throws as txt2img */
  async edit(options: EditOptions): Promise<GenerationResult> {
    const models = this.modelsFor('edit', options)
    const call = await resolveEdit(options, models)
    this.session() // disposed of meanwhile?
    return generate(call.options, models, call.picture)
  }

  /** A small picture at the model's size (stages of a cascade: IFSuperResolutionPipeline). @throws as txt2img */
  async superResolution(options: SuperResolutionOptions): Promise<GenerationResult> {
    const models = this.modelsFor('superResolution', options)
    const { className, config } = this.folder.noisingScheduler!
    const noising = createScheduler({ ...config, _class_name: className })
    const call = await resolveSuperResolution(options, models, noising)
    this.session() // disposed of meanwhile?
    return generate(call.options, models, undefined, undefined, call.upscale)
  }

  private run<T extends Task>(task: T, options: TaskOptions[T]): Promise<GenerationResult> {
    const call = this[task].bind(this) as (options: TaskOptions[T]) => Promise<GenerationResult>
    return call(options)
  }

  /** The same calls as an iterator over their steps; leaving the loop early ends the call. */
  async *stream<T extends Task>(task: T, options: TaskOptions[T]): AsyncGenerator<StreamEvent, void, undefined> {
    oneOf('task', task, tasks)
    const queue: StreamEvent[] = []
    let wake = (): void => {}
    let failure: { error: unknown } | undefined
    let done = false
    const stop = new AbortController()
    const signal = options.signal ? AbortSignal.any([options.signal, stop.signal]) : stop.signal
    const onStep = (event: StepEvent): void => {
      options.onStep?.(event)
      queue.push({ type: 'step', ...event })
      wake()
    }
    const run = this.run(task, { ...options, signal, onStep })
      .then((result) => void queue.push({ type: 'result', result }))
      .catch((error: unknown) => void (failure = { error }))
      .finally(() => {
        done = true
        wake()
      })
    try {
      for (;;) {
        while (queue.length) yield queue.shift()!
        if (failure) throw failure.error
        if (done) return
        await new Promise<void>((resolve) => (wake = resolve))
      }
    } finally {
      stop.abort()
      await run
    }
  }

  /** The loaded ControlNets and T2I-Adapters, in the order of loading. */
  get controlNets(): readonly ControlNet[] {
    return this.controls.controlNets
  }
  get t2iAdapters(): readonly T2iAdapter[] {
    return this.controls.t2iAdapters
  }

  /**
   * Loads a ControlNet beside the model, for the option controlImage: a diffusers folder, or one .safetensors file in the
   * original layout or with diffusers' names. The model itself stays as it is.
   * @throws DiffusionError as fromPretrained; ERR_ND_MODEL_FORMAT where it does not fit the model, naming what differs
   */
  loadControlNet(source: string, options: LoadControlOptions = {}): Promise<ControlNet> {
    return this.controls.loadControlNet(source, options)
  }

  /** Frees one ControlNet, or all, once the calls before have run. */
  async unloadControlNet(name?: string): Promise<void> {
    return this.controls.unloadControlNet(name)
  }

  /** The same for a T2I-Adapter, for the option adapterImage. @throws as loadControlNet */
  loadT2iAdapter(source: string, options: LoadControlOptions = {}): Promise<T2iAdapter> {
    return this.controls.loadT2iAdapter(source, options)
  }

  /** Frees one T2I-Adapter, or all, once the calls before have run. */
  async unloadT2iAdapter(name?: string): Promise<void> {
    return this.controls.unloadT2iAdapter(name)
  }

  /**
   * The forward process: a picture encoded, noised to several timesteps and decoded, to be looked at. Works with every
   * model.
   * @throws DiffusionError
   */
  async addNoise(options: AddNoiseOptions): Promise<AddNoiseResult> {
    const session = this.session()
    const vae = this.folder.vae?.config
    if (!vae) throw unsupported('Expected a model with an autoencoder, whose latents are noised, but this one has none')
    return addNoise(options, { session, scheduler: this.scheduler, vae, factor: vaeFactor(vae) })
  }

  /** Bytes held: laid-out weights, and the arena of activations. */
  async memory(): Promise<{ weights: number; activations: number }> {
    return translating(this.session().memory())
  }

  /** Time per operation since the last call; `on` starts or stops measuring. For benches. */
  async profile(on: boolean): Promise<{ operation: string; seconds: number; flops: number; calls: number }[]> {
    return translating(this.session().profile(on))
  }

  /** Ends the pipeline once the calls before have run, and frees its memory. Later calls reject with ERR_ND_DISPOSED. */
  dispose(): Promise<void> {
    this.disposed ??= translating(this.native.unload())
    return this.disposed
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose()
  }

  private session(): NativeSession {
    if (this.disposed) throw disposedError()
    return this.native
  }

  /** Without a word about ControlNets or adapters there is nothing to wait for. */
  private async controlsFor(
    task: 'txt2img' | 'img2img' | 'inpaint',
    options: ControlOptions,
    models: Txt2ImgModels
  ): Promise<ResolvedControls | undefined> {
    if (!mentionsControl(options)) return undefined
    const controls = await resolveControls(options, this.controls, models, task)
    this.session() // disposed of meanwhile?
    return controls.controls.length ? controls : undefined
  }

  /** Checks what comes before the options: a live pipeline, a model for the task, a real scheduler. */
  private modelsFor(task: Task, options: { scheduler?: Scheduler | string } | undefined): Txt2ImgModels {
    this.session()
    if (!this.tasks.includes(task)) throw taskError(task, this.tasks, this.folder)
    const scheduler = options?.scheduler
    if (scheduler !== undefined && typeof scheduler !== 'string') checkScheduler(scheduler)
    return this.models()
  }

  private models(): Txt2ImgModels {
    const { folder } = this
    const unet = folder.unet.config
    const parts = partsOf(folder.className)
    const xl = isSdxl(folder.className)
    const latentChannels = paintedChannels(folder)
    const factor = this.autoencoder?.factor ?? 1
    const sample = unet.sampleSize
    return {
      session: this.native,
      scheduler: this.current,
      name: this.name,
      xl,
      factor,
      defaultSize: { width: (sample?.width ?? 64) * factor, height: (sample?.height ?? 64) * factor },
      defaultGuidanceScale: parts.guidanceScale ?? 7.5,
      defaultSteps: parts.steps ?? 50,
      lowerCase: parts.lowerCase ?? false,
      guidedBelowOne: parts.guidedBelowOne ?? false,
      latentChannels,
      extraChannels: unet.inChannels - latentChannels,
      aestheticScores: folder.requiresAestheticsScore,
      consistency: folder.className === 'LatentConsistencyModelPipeline',
      timeCondWidth: unet.timeCondWidth,
      tokenizers: this.tokenizers,
      // SDXL's second encoder reads prompt2, also where it is the only one.
      promptOf: xl ? (folder.textEncoder ? [0, 1] : [1]) : [0],
      zerosForEmpty: xl && folder.forceZerosForEmptyPrompt
    }
  }
}

const readHeader: CheckpointReader = (path) => translatingSync(() => native().readHeader(path))

const loadedEncoders = (folder: ModelFolder): TextComponent[] =>
  [folder.textEncoder, folder.textEncoder2].filter((e) => e !== null)

const loadComponent = (
  session: NativeSession,
  kind: 'textEncoder' | 'unet' | 'vae',
  config: object,
  weights: ComponentWeights
): Promise<void> =>
  translating(
    session.load(
      kind,
      config,
      weights.files,
      weights.tensors.map((t) => [t.name, t.file, t.stored, t.view] as const)
    )
  )

const chooseDevice = (device: string, dtype: string): { device: string; reason: string } => {
  if (!/^(auto|cpu|cuda(:\d+)?)$/.test(device))
    throw invalidArgument('device', "'auto', 'cpu', 'cuda' or 'cuda:N'", device)
  if (!['auto', 'float32', 'float16', 'bfloat16'].includes(dtype))
    throw invalidArgument('dtype', "'auto' or 'float32'", dtype)
  const { cudaReason } = native().inspect()
  if (device.startsWith('cuda'))
    throw new DiffusionError(
      'ERR_ND_CUDA_UNAVAILABLE',
      `Expected a CUDA device for '${device}' but ${cudaReason}; use device 'auto' or 'cpu'`
    )
  if (dtype === 'float16' || dtype === 'bfloat16')
    throw unsupported(`dtype '${dtype}' is not supported on the CPU, which computes in float32; use 'auto'`)
  return { device: 'cpu', reason: device === 'cpu' ? 'asked for' : `no CUDA: ${cudaReason}` }
}
