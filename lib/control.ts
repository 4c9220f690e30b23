/** ControlNets and T2I-Adapters of a pipeline: loading them, and each callable on its own. */
import { basename, join } from 'node:path'
import { translating, type NativeSession } from './binding.js'
import type { SessionOwner } from './components.js'
import { invalidArgument } from './errors.js'
import { loadImage, type ImageInput } from './image.js'
import { type ControlledModel, type ControlNetConfig, readControlNet } from './models/controlnet.js'
import { isFolder } from './models/files.js'
import type { ModelFolder } from './models/folder.js'
import { partsOf } from './models/pipeline-classes.js'
import type { CheckpointReader } from './models/single-file/checkpoint.js'
import { readT2iAdapter, type T2iAdapterConfig } from './models/t2i-adapter.js'
import type { ComponentWeights } from './models/weights.js'
import { resolveComponent } from './source.js'
import { checkTensor, type Tensor } from './tensor.js'
import { bool, finite, integerIn, knownKeys } from './validate.js'

/** Options of Pipeline.loadControlNet and Pipeline.loadT2iAdapter. */
export interface LoadControlOptions {
  /** What it is called in `control`, in messages and in pictures' parameters. Default: the folder's or file's name. */
  name?: string
  /** Take *.VARIANT.safetensors of a folder. */
  variant?: string
}

/** One evaluation of a ControlNet: see ControlNet.predict. */
export interface ControlNetRequest {
  /** Latents, scaled as the scheduler's plan says: [B, C, h, w]. */
  sample: Tensor
  /** One for all, or one per sample. */
  timestep: number | readonly number[]
  /** Text embeddings [B, tokens, width]. */
  context: Tensor
  /** RGB pictures of 0..1, [B, 3, H, W], of the size that the latents are decoded to. */
  picture: Tensor
  /** SDXL: pooled text [B, n] and time ids [B, 6]. */
  added?: { textEmbeds: Tensor; timeIds: Tensor }
  /** Default 1. */
  conditioningScale?: number
  /** Scales from 0.1 at the first residual to 1 at the middle; default false. */
  guessMode?: boolean
}

/** A loaded ControlNetModel. */
export class ControlNet {
  constructor(
    private readonly owner: SessionOwner,
    /** The engine's number of it. */
    readonly id: number,
    readonly name: string,
    readonly config: Readonly<ControlNetConfig>
  ) {}

  /**
   * One evaluation → what joins the UNet's skips, one [B, C, h, w] for each, and its middle: the UNet's
   * downBlockAdditionalResiduals and midBlockAdditionalResidual. With global_pool_conditions they are [B, C, 1, 1].
   */
  async predict(
    request: ControlNetRequest
  ): Promise<{ downBlockResiduals: readonly Tensor[]; midBlockResidual: Tensor }> {
    const sample = checkTensor('sample', request.sample, [null, this.config.unet.inChannels, null, null])
    const batch = sample.shape[0]!
    const width = this.config.unet.levels[0]!.contextWidth
    const context = checkTensor('context', request.context, [batch, null, width])
    const picture = checkTensor('picture', request.picture, [batch, this.config.pictureChannels, null, null])
    const timesteps = Float32Array.from(typeof request.timestep === 'number' ? [request.timestep] : request.timestep)
    if (!timesteps.every(Number.isFinite)) throw invalidArgument('timestep', 'finite numbers', request.timestep)
    if (timesteps.length !== 1 && timesteps.length !== batch)
      throw invalidArgument('timestep', `one number or ${batch}`, request.timestep)
    const { textEmbeds, timeIds } = request.added ?? {}
    for (const [name, t] of Object.entries({ textEmbeds, timeIds }))
      if (t) checkTensor(`added.${name}`, t, [batch, null])
    const residuals = await translating(
      this.owner.session().predictControl(this.id, {
        sample,
        timesteps,
        context,
        picture,
        textEmbeds,
        timeIds,
        scale: finite('conditioningScale', request.conditioningScale ?? 1),
        guess: bool('guessMode', request.guessMode ?? false)
      })
    )
    return { downBlockResiduals: residuals.slice(0, -1), midBlockResidual: residuals.at(-1)! }
  }
}

/** A loaded T2IAdapter. */
export class T2iAdapter {
  constructor(
    private readonly owner: SessionOwner,
    /** The engine's number of it. */
    readonly id: number,
    readonly name: string,
    readonly config: Readonly<T2iAdapterConfig>
  ) {}

  /**
   * The maps that a picture becomes, [1, C, h, w] each: the UNet's downIntrablockAdditionalResiduals at scale 1.
   * @param size what the picture is resized to, multiples of config.downscaleFactor; default its own, rounded down
   */
  async features(picture: ImageInput, size: { width?: number; height?: number } = {}): Promise<readonly Tensor[]> {
    const image = await loadImage(picture)
    const factor = this.config.downscaleFactor
    const side = (name: 'width' | 'height'): number => {
      const value = integerIn(name, size[name] ?? image[name] - (image[name] % factor), factor, 8192)
      if (value % factor) throw invalidArgument(name, `a multiple of ${factor}`, value)
      return value
    }
    const [width, height] = [side('width'), side('height')]
    return translating(this.owner.session().adapterMaps(this.id, image, height, width))
  }
}

const optionNames = ['name', 'variant']

/** What of this kind a pipeline has loaded, in order. */
class Loaded<Model extends { readonly id: number; readonly name: string }> {
  readonly models: Model[] = []

  constructor(
    private readonly kind: 'controlnet' | 't2iAdapter',
    private readonly noun: string,
    private readonly unloadName: string
  ) {}

  checkName(name: string): void {
    if (this.models.some((m) => m.name === name))
      throw invalidArgument('name', `a name that no loaded ${this.noun} has`, name)
  }

  async unload(session: NativeSession, name: string | undefined): Promise<void> {
    if (name !== undefined && !this.models.some((m) => m.name === name))
      throw invalidArgument(
        'name',
        this.models.length
          ? `one of ${this.models.map((m) => `'${m.name}'`).join(', ')}`
          : `nothing (no ${this.noun} is loaded)`,
        name
      )
    if (name === undefined && this.models.length === 0)
      throw invalidArgument(this.unloadName, `a loaded ${this.noun}`, undefined)
    const gone = this.models.filter((m) => name === undefined || m.name === name)
    for (const model of gone) {
      this.models.splice(this.models.indexOf(model), 1)
      await translating(session.unloadControl(this.kind, model.id))
    }
  }
}

/** The pipeline's part of it: @see Pipeline.loadControlNet and the others, which these are. */
export class ControlModels {
  private readonly nets = new Loaded<ControlNet>('controlnet', 'ControlNet', 'unloadControlNet')
  private readonly adapters = new Loaded<T2iAdapter>('t2iAdapter', 'T2I-Adapter', 'unloadT2iAdapter')
  private nextId = 1

  constructor(
    private readonly owner: SessionOwner,
    private readonly model: ControlledModel | undefined,
    private readonly readHeader: CheckpointReader
  ) {}

  get controlNets(): readonly ControlNet[] {
    return [...this.nets.models]
  }
  get t2iAdapters(): readonly T2iAdapter[] {
    return [...this.adapters.models]
  }

  async loadControlNet(source: string, options: LoadControlOptions): Promise<ControlNet> {
    const { path, name, model } = await this.find('loadControlNet', source, options, this.nets)
    const { config, weights } = await readControlNet(path, model, { readHeader: this.readHeader, ...options })
    const net = new ControlNet(this.owner, this.nextId++, name, config)
    await this.load('controlnet', net.id, config, weights)
    this.nets.checkName(name) // another call may have been faster
    this.nets.models.push(net)
    return net
  }

  async loadT2iAdapter(source: string, options: LoadControlOptions): Promise<T2iAdapter> {
    const { path, name, model } = await this.find('loadT2iAdapter', source, options, this.adapters)
    const { config, weights } = await readT2iAdapter(path, model, { readHeader: this.readHeader, ...options })
    const adapter = new T2iAdapter(this.owner, this.nextId++, name, config)
    await this.load('t2iAdapter', adapter.id, config, weights)
    this.adapters.checkName(name)
    this.adapters.models.push(adapter)
    return adapter
  }

  /** What diffusers' ControlNet and adapter pipelines save beside the model: `controlnet`, `controlnet_1` and so on. */
  async loadSaved(folder: Pick<ModelFolder, 'path' | 'className'>, variant: string | undefined): Promise<void> {
    const { control } = partsOf(folder.className)
    if (!control) return
    const options = variant === undefined ? {} : { variant }
    const saved = (i: number): string => join(folder.path, i === 0 ? control : `${control}_${i}`)
    for (let i = 0; i === 0 || (await isFolder(saved(i))); i++)
      if (control === 'controlnet') await this.loadControlNet(saved(i), options)
      else await this.loadT2iAdapter(saved(i), options)
  }

  unloadControlNet(name?: string): Promise<void> {
    return this.nets.unload(this.owner.session(), name)
  }
  unloadT2iAdapter(name?: string): Promise<void> {
    return this.adapters.unload(this.owner.session(), name)
  }

  private async find(
    call: string,
    source: string,
    options: LoadControlOptions,
    loaded: Loaded<ControlNet> | Loaded<T2iAdapter>
  ): Promise<{ path: string; name: string; model: ControlledModel }> {
    this.owner.session()
    knownKeys(call, options, optionNames)
    if (!this.model) throw invalidArgument(call, 'a model that paints latents', source)
    const component = loaded === this.nets ? 'controlnet' : 'adapter'
    const { path } = await resolveComponent('source', source, component, options)
    const name = options.name ?? basename(source, '.safetensors')
    if (typeof name !== 'string' || name === '') throw invalidArgument('name', 'a string', name)
    loaded.checkName(name)
    return { path, name, model: this.model }
  }

  private load(
    kind: 'controlnet' | 't2iAdapter',
    id: number,
    config: object,
    weights: ComponentWeights
  ): Promise<void> {
    const tensors = weights.tensors.map((t) => [t.name, t.file, t.stored, t.view] as const)
    return translating(this.owner.session().loadControl(kind, id, config, weights.files, tensors))
  }
}
