import { basename } from 'node:path'
import { adaptableComponents, inversionEncoders } from './adapters/components.js'
import { Loras, type CallAdapters, type LoadedLora, type LoadLoraOptions, type LoraStrength } from './adapters/loras.js'
import {
  TextualInversions,
  type LoadTextualInversionOptions,
  type TextualInversion
} from './adapters/textual-inversion.js'
import { native, translating, translatingSync, type NativeComponent, type NativeSession } from './binding.js'
import { checkScheduler, chooseScheduler } from './pipeline-scheduler.js'
import { ControlModels, type ControlNet, type LoadControlOptions, type T2iAdapter } from './control.js'
import {
  controlSize,
  mentionsControl,
  resolveControls,
  type ControlOptions,
  type ResolvedControls
} from './control-options.js'
import { chooseDevice, inItsRange } from './device.js'
import { disposedError, TextEncoder, UNet, Vae } from './components.js'
import { invalidArgument, unsupported } from './errors.js'
import { addNoise, type AddNoiseOptions, type AddNoiseResult } from './forward-diffusion.js'
import { paintTwice } from './hires.js'
import { loadComponent } from './load-component.js'
import { knownLoadOptions, type HubAccess, type LoadOptions } from './load-options.js'
import { WithIpAdapters } from './ip-adapter-methods.js'
import {
  isUnconditional,
  type Component,
  type ModelFolder,
  type TextComponent,
  type UnconditionalFolder
} from './models/folder.js'
import { checkSameLatents, pixelsPerLatent, traitsOf } from './models/autoencoder.js'
import { readModel, readVae } from './models/model.js'
import { isSdxl } from './models/pipeline-classes.js'
import { isUNet2d } from './models/unet2d.js'
import type { CheckpointReader } from './models/single-file/checkpoint.js'
import { loadTokenizer } from './models/tokenizer-source.js'
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
import { resolveComponent, resolveSources } from './source.js'
import { checkPixelOptions, resolveSuperResolution, type SuperResolutionOptions } from './super-resolution.js'
import { modelsOf } from './pipeline-models.js'
import { taskError, tasks, tasksOf, unetChannelsError, type Task } from './tasks.js'
import type { Tokenizer } from './tokenizer/tokenizer.js'
import { streamCall, type StreamEvent } from './stream.js'
import { generate, type GenerationResult, type Txt2ImgModels } from './txt2img.js'
import { unconditional, type UnconditionalOptions } from './unconditional.js'
import { resolveOptions, type ResolvedOptions, type Txt2ImgOptions } from './txt2img-options.js'
import { integerIn, knownKeys, oneOf } from './validate.js'

export type { HubAccess, LoadOptions } from './load-options.js'

/** Every task's options. */
export interface TaskOptions {
  txt2img: Txt2ImgOptions
  img2img: Img2ImgOptions
  inpaint: InpaintOptions
  edit: EditOptions
  superResolution: SuperResolutionOptions
  unconditional: UnconditionalOptions
}

/**
 * A model, loaded and ready. Calls may overlap: they run one after another, in order, where a picture is given from when
 * it is decoded.
 * Dispose of it when done: `await pipe.dispose()`, or `await using pipe = …`.
 */
export class Pipeline extends WithIpAdapters {
  /** 'cpu' or 'cuda:0', and why 'auto' chose it. */
  readonly device: string
  readonly deviceReason: string
  /** What came up while loading; told once, here. */
  readonly warnings: readonly string[]
  /** What this model can do: the methods of these names work, the others reject. */
  readonly tasks: readonly Task[]
  /** SDXL's second one. */
  readonly textEncoder2: TextEncoder | undefined
  readonly unet: UNet
  private readonly firstEncoder: TextEncoder | undefined
  private readonly autoencoder: Vae | undefined
  private readonly loraFiles: Loras
  private readonly inversions: TextualInversions
  private readonly controls: ControlModels
  private current: Scheduler
  private hasPreviewVae = false
  private disposed: Promise<void> | undefined

  private constructor(
    private readonly native: NativeSession,
    private readonly folder: ModelFolder | UnconditionalFolder,
    tokenizers: readonly Tokenizer[],
    choice: { device: string; reason: string },
    scheduler: Scheduler,
    private readonly name: string
  ) {
    super()
    const owner = { session: () => this.session() }
    const encoders = loadedEncoders(folder).map(
      (e, i) => new TextEncoder(owner, i, { ...e.config }, e.config.maxPositions)
    )
    this.device = choice.device
    this.deviceReason = choice.reason
    this.warnings = [...folder.warnings, ...scheduler.warnings]
    this.tasks = tasksOf(folder)
    this.loraFiles = new Loras(owner.session, adaptableComponents(folder))
    this.inversions = new TextualInversions(owner.session, tokenizers, inversionEncoders(folder))
    this.firstEncoder = encoders[0]
    this.textEncoder2 = encoders[1]
    this.unet = new UNet(owner, { ...folder.unet.config }, folder.unet.config.inChannels, !isUnconditional(folder))
    const vae = folder.vae?.config
    if (vae) this.autoencoder = new Vae(owner, vae)
    this.current = scheduler
    const unet = folder.unet.config
    const controlled =
      vae && !isUNet2d(unet) ? { unet, latentChannels: vae.latentChannels, factor: pixelsPerLatent(vae) } : undefined
    this.controls = new ControlModels(owner, controlled, readHeader)
  }

  /**
   * Loads a model: a folder in the diffusers layout, a .safetensors checkpoint in the original one (SD1, SD2, SDXL),
   * 'org/name' on the Hugging Face hub, an https address of a checkpoint, or 'postcard', the bundled one.
   * @throws DiffusionError ERR_ND_MODEL_NOT_FOUND, ERR_ND_MODEL_FORMAT, ERR_ND_UNSUPPORTED, ERR_ND_INVALID_ARGUMENT,
   *   ERR_ND_CUDA_UNAVAILABLE, ERR_ND_OUT_OF_MEMORY, ERR_ND_NO_BINARY, ERR_ND_DOWNLOAD, ERR_ND_ACCESS; signal.reason
   */
  static async fromPretrained(source: string, options: LoadOptions = {}): Promise<Pipeline> {
    knownKeys('fromPretrained', options, knownLoadOptions)
    const { signal } = options
    if (signal !== undefined && !(signal instanceof AbortSignal))
      throw invalidArgument('signal', 'an AbortSignal', signal)
    signal?.throwIfAborted()
    const choice = chooseDevice(options.device ?? 'auto', options.dtype ?? 'auto')
    const threads = options.threads === undefined ? 0 : integerIn('threads', options.threads, 1, 1024)
    const { variant, predictionType } = options
    if (predictionType !== undefined && options.scheduler instanceof Scheduler)
      throw invalidArgument(
        'predictionType',
        'nothing next to a scheduler instance, which has its own,',
        predictionType
      )
    const { path, prefer, warnings, config, vae } = await resolveSources(source, options)
    const read = await readModel(path, { readHeader, variant, prefer, config, predictionType, vae })
    const folder = { ...read, warnings: [...warnings, ...read.warnings] }
    if (tasksOf(folder).length === 0) throw unetChannelsError(folder)
    const scheduler = chooseScheduler(options.scheduler, folder)
    const tokenizers = [
      [folder.textEncoder, folder.tokenizer] as const,
      [folder.textEncoder2, folder.tokenizer2] as const
    ].flatMap(([encoder, tokenizer]) => (encoder && tokenizer ? [loadTokenizer(encoder.kind, tokenizer)] : []))

    const dtype = options.dtype ?? 'auto'
    const session = translatingSync(() => new (native().Session)({ device: choice.device, threads, dtype }))
    const parts: [kind: NativeComponent, component: Component<object>][] = [
      ...loadedEncoders(folder).map(
        ({ kind, ...e }) =>
          ['textEncoder', { ...e, config: { kind, ...e.config } }] as [NativeComponent, Component<object>]
      ),
      [isUnconditional(folder) ? 'unconditional' : 'unet', folder.unet],
      ...(folder.vae
        ? [['vae', inItsRange(folder.vae, isSdxl(folder.className))] as [NativeComponent, Component<object>]]
        : [])
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
    const pipe = new Pipeline(session, folder, tokenizers, choice, scheduler, basename(source, '.safetensors'))
    try {
      await pipe.controls.loadSaved(folder, variant)
      if (options.previewVae !== undefined) await pipe.loadPreviewVae(options.previewVae, options)
    } catch (error) {
      await pipe.dispose()
      throw error
    }
    return pipe
  }

  /**
   * An autoencoder that decodes previews from now on (unless a call asks for `preview: { vae: 'own' }`), such as TAESD: a
   * folder, a file in the original layout, or what the hub has of them, as `vae`. Replaces the one before.
   * @throws DiffusionError ERR_ND_MODEL_NOT_FOUND, ERR_ND_MODEL_FORMAT (also where it is for other latents), ERR_ND_UNSUPPORTED
   */
  async loadPreviewVae(source: string, options: HubAccess = {}): Promise<void> {
    const { folder } = this
    if (!folder.vae) throw unsupported('Expected a model with an autoencoder but this one paints pixels')
    const own = folder.vae.config
    const { cacheDir, token, localFilesOnly, signal } = options
    const access = { cacheDir, token, localFilesOnly, signal }
    const { path } = await resolveComponent('previewVae', source, 'vae', access)
    const preview = await readVae(path, traitsOf(own, isSdxl(folder.className)), readHeader)
    checkSameLatents(own, preview.config, path)
    await loadComponent(this.session(), 'previewVae', preview.config, preview.weights)
    this.hasPreviewVae = true
  }

  /** With the tokens of textual inversions. @throws DiffusionError ERR_ND_UNSUPPORTED where the model knows no text; textEncoder too */
  get tokenizer(): Tokenizer {
    return this.inversions.tokenizers[0] ?? withoutText('tokenizer')
  }
  /** SDXL's second one; undefined elsewhere. */
  get tokenizer2(): Tokenizer | undefined {
    return this.inversions.tokenizers[1]
  }
  /** The (first) text encoder. @throws DiffusionError ERR_ND_UNSUPPORTED where the model knows no text */
  get textEncoder(): TextEncoder {
    return this.firstEncoder ?? withoutText('text encoder')
  }

  /** @throws DiffusionError ERR_ND_UNSUPPORTED where the model paints pixels */
  get vae(): Vae {
    if (!this.autoencoder) throw unsupported('Expected a model with an autoencoder but this one paints pixels')
    return this.autoencoder
  }

  /** The scheduler of calls that name none; a class name or label keeps the model's own settings. */
  get scheduler(): Scheduler {
    return this.current
  }
  set scheduler(value: Scheduler | string) {
    this.current = typeof value === 'string' ? createScheduler(value, this.current.toJSON()) : checkScheduler(value)
  }

  /** Text to image. @throws DiffusionError; signal.reason when aborted; what onStep throws */
  async txt2img(options: Txt2ImgOptions): Promise<GenerationResult> {
    return this.call('txt2img', options, async (given, models) => {
      const run = (o: ResolvedOptions, controls?: ResolvedControls): Promise<GenerationResult> => {
        if (!models.autoencoder) checkPixelOptions(o)
        return o.hires ? paintTwice(o, o.hires, models, controls) : generate(o, models, undefined, controls)
      }
      if (!mentionsControl(given)) return run(resolveOptions(given, models))
      const controls = await this.controlsFor('txt2img', given, models)
      const size = controls && controlSize(controls)
      return run(resolveOptions(given, size ? { ...models, defaultSize: size } : models), controls)
    })
  }

  /** A picture painted anew, as far as `strength` says. @throws as txt2img */
  async img2img(options: Img2ImgOptions): Promise<GenerationResult> {
    return this.call('img2img', options, async (o, models) => {
      const [call, controls] = await Promise.all([resolveImg2Img(o, models), this.controlsFor('img2img', o, models)])
      return generate(call.options, models, call.picture, controls)
    })
  }

  /** The part of a picture that `mask` shows, painted anew. @throws as txt2img */
  async inpaint(options: InpaintOptions): Promise<GenerationResult> {
    return this.call('inpaint', options, async (o, models) => {
      const [call, controls] = await Promise.all([resolveInpaint(o, models), this.controlsFor('inpaint', o, models)])
      return generate(call.options, models, call.picture, controls)
    })
  }

  /** A picture carried on beyond its edges. @throws as txt2img */
  async outpaint(options: OutpaintOptions): Promise<GenerationResult> {
    this.checkTask('inpaint', options)
    return this.inpaint(await outpaintOptions(options, Math.max(8, this.vae.factor)))
  }

  /** A picture changed as the prompt tells to (InstructPix2Pix models). @throws as txt2img */
  async edit(options: EditOptions): Promise<GenerationResult> {
    return this.call('edit', options, async (o, models) => {
      const call = await resolveEdit(o, models)
      return generate(call.options, models, call.picture)
    })
  }

  /**
   * Loads a LoRA, LoHa, LoKr or DoRA and applies it to the calls from now on.
   * @throws DiffusionError ERR_ND_MODEL_NOT_FOUND, ERR_ND_MODEL_FORMAT (naming the tensor that does not fit),
   *   ERR_ND_UNSUPPORTED (pickles, other kinds), ERR_ND_INVALID_ARGUMENT (a name that is taken), ERR_ND_OUT_OF_MEMORY
   */
  loadLora(path: string, options: LoadLoraOptions = {}): Promise<void> {
    return this.loraFiles.load(path, options)
  }

  /** Gives strengths to loaded LoRAs; those that are not named go to 0. Nothing is loaded again. @throws as loadLora */
  setLoras(loras: readonly LoraStrength[]): Promise<void> {
    return this.loraFiles.set(loras)
  }

  /** Takes a LoRA away, without a name all of them: the model is then what it was. @throws ERR_ND_INVALID_ARGUMENT */
  unloadLora(name?: string): Promise<void> {
    return this.loraFiles.unload(name)
  }

  /** The LoRAs that are loaded, in the order in which they are applied. */
  get loras(): readonly LoadedLora[] {
    return this.loraFiles.list
  }

  /**
   * Loads a textual inversion: its token in a prompt or a negative prompt then stands for its vectors.
   * @throws DiffusionError ERR_ND_MODEL_NOT_FOUND, ERR_ND_MODEL_FORMAT (of another width), ERR_ND_UNSUPPORTED (pickles),
   *   ERR_ND_INVALID_ARGUMENT (a token that exists)
   */
  loadTextualInversion(path: string, options: LoadTextualInversionOptions = {}): Promise<void> {
    return this.inversions.load(path, options)
  }

  /** Takes a token away, without one all that were loaded. @throws ERR_ND_INVALID_ARGUMENT */
  unloadTextualInversion(token?: string): Promise<void> {
    return this.inversions.unload(token)
  }

  /** Those that are loaded. */
  get textualInversions(): readonly TextualInversion[] {
    return this.inversions.list
  }

  /** Pictures from noise alone (DDPMPipeline and DDIMPipeline). @throws as txt2img */
  async unconditional(options: UnconditionalOptions = {}): Promise<GenerationResult> {
    this.checkTask('unconditional', options)
    if (!isUnconditional(this.folder)) throw taskError('unconditional', this.tasks, this.folder)
    return unconditional(options, {
      session: this.native,
      scheduler: this.current,
      config: this.folder.unet.config,
      defaultSteps: this.folder.className === 'DDIMPipeline' ? 50 : 1000,
      name: this.name
    })
  }

  /** A small picture made large: IFSuperResolutionPipeline (to the model's size), StableDiffusionUpscalePipeline (×4). @throws as txt2img */
  async superResolution(options: SuperResolutionOptions): Promise<GenerationResult> {
    return this.call('superResolution', options, async (o, models) => {
      const call = await resolveSuperResolution(o, models, this.folder)
      return generate(call.options, models, undefined, undefined, call.upscale)
    })
  }

  private run<T extends Task>(task: T, options: TaskOptions[T]): Promise<GenerationResult> {
    const call = this[task].bind(this) as (options: TaskOptions[T]) => Promise<GenerationResult>
    return call(options)
  }

  /** The same calls as an iterator over their steps; leaving the loop early ends the call. */
  async *stream<T extends Task>(task: T, options: TaskOptions[T]): AsyncGenerator<StreamEvent, void, undefined> {
    oneOf('task', task, tasks)
    yield* streamCall(options, (o) => this.run(task, { ...options, ...o }))
  }

  /** The loaded ControlNets and T2I-Adapters, in the order of loading. */
  get controlNets(): readonly ControlNet[] {
    return this.controls.controlNets
  }
  /** The loaded T2I-Adapters, in the order of loading. */
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
    return addNoise(options, { session, scheduler: this.scheduler, vae, factor: pixelsPerLatent(vae) })
  }

  protected ipAdapterHost() {
    const { folder } = this
    if (isUnconditional(folder)) throw unsupported('Expected a model with text for an IP-Adapter but this one has none')
    return { owner: { session: () => this.session() }, folder, readHeader }
  }

  /** Bytes in use: laid-out weights (pipelines of the same file share them, and each counts them), and the arena of activations. */
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

  /** One call of a task with its adapters, and with options that no longer speak of them. */
  private call<O extends Txt2ImgOptions | Img2ImgOptions | EditOptions | SuperResolutionOptions>(
    task: Task,
    options: O,
    run: (options: O, models: Txt2ImgModels) => Promise<GenerationResult>
  ): Promise<GenerationResult> {
    return this.loraFiles.during(options, (o, adapters) => run(o, this.modelsFor(task, o, adapters)))
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
  private checkTask(task: Task, options: { scheduler?: Scheduler | string } | undefined): void {
    this.session()
    if (!this.tasks.includes(task)) throw taskError(task, this.tasks, this.folder)
    const scheduler = options?.scheduler
    if (scheduler !== undefined && typeof scheduler !== 'string') checkScheduler(scheduler)
  }

  private modelsFor(
    task: Task,
    options: { scheduler?: Scheduler | string } | undefined,
    adapters: CallAdapters
  ): Txt2ImgModels {
    this.checkTask(task, options)
    if (isUnconditional(this.folder)) throw taskError(task, this.tasks, this.folder)
    return modelsOf(this.folder, {
      adapters,
      ipAdapters: this.ipAdapters,
      scheduler: this.current,
      name: this.name,
      hasPreviewVae: this.hasPreviewVae,
      tokenizers: this.inversions.tokenizers
    })
  }
}

const withoutText = (part: string): never => {
  throw unsupported(
    `Expected a model with a ${part} but this one has none: it paints without text, or from promptEmbeds`
  )
}

const readHeader: CheckpointReader = (path) => translatingSync(() => native().readHeader(path))

const loadedEncoders = (folder: ModelFolder | UnconditionalFolder): TextComponent[] =>
  [folder.textEncoder, folder.textEncoder2].filter((e) => e !== null)
