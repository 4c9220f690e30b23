/** IP-Adapters of a pipeline: pictures as prompts (Ye et al. 2023; diffusers' IPAdapterMixin). */
import { dirname, join } from 'node:path'
import { type NativeImagePrompt, translating } from './binding.js'
import { ImageEncoder, loadImageEncoder, readImageEncoder } from './clip-image-encoder.js'
import type { SessionOwner } from './components.js'
import { invalidArgument, modelFormat, unsupported } from './errors.js'
import type { ImageInput } from './image.js'
import { loadComponent } from './load-component.js'
import { isFolder } from './models/files.js'
import { crossAttentions, readIpAdapter, type CrossAttention, type IpAdapterFile } from './models/ip-adapter.js'
import type { ModelFolder } from './models/folder.js'
import type { CheckpointReader } from './models/single-file/checkpoint.js'
import { resolveComponent, resolveFile } from './source.js'
import { checkTensor, type Tensor } from './tensor.js'
import { finite, knownKeys } from './validate.js'

/** Of one block: one number for all of its transformers, or one for each. */
export type IpAdapterBlockScale = number | readonly number[]

/**
 * One number for every cross-attention; or, as diffusers has it, numbers by block, where what is not named is 0:
 * { down: { block_2: [0, 1] }, up: { block_0: [0, 1, 0] } } is the layout and the style of SDXL ("InstantStyle").
 */
export type IpAdapterScale =
  | number
  | {
      readonly down?: number | Readonly<Record<string, IpAdapterBlockScale>>
      readonly mid?: IpAdapterBlockScale
      readonly up?: number | Readonly<Record<string, IpAdapterBlockScale>>
    }

/** Options of Pipeline.loadIpAdapter. */
export interface IpAdapterOptions {
  /**
   * Folder of the image encoder (CLIPVisionModelWithProjection) that the adapters were made with. Default: `image_encoder` in
   * the model's folder, else beside the first file; without one, only `ipAdapterImageEmbeds` can be used.
   */
  imageEncoder?: string
  /** As setIpAdapterScale takes it; default 1. */
  scale?: IpAdapterScale | readonly IpAdapterScale[]
}

/** The options of a call that are about IP-Adapters. */
export interface IpAdapterInput {
  /**
   * The picture; with several adapters an array with one entry for each. An entry that is an array holds pictures which the
   * adapter looks at together.
   */
  ipAdapterImage?: ImageInput | readonly (ImageInput | readonly ImageInput[])[]
  /**
   * Instead: what prepareIpAdapterImageEmbeds gives, one tensor per adapter: [2, pictures, width] with guidance (without the
   * picture first), [1, pictures, width] without; with Plus adapters [2 or 1, pictures, states, width].
   */
  ipAdapterImageEmbeds?: Tensor | readonly Tensor[]
  /** Not supported yet. */
  ipAdapterMasks?: never
}

const known: readonly (keyof IpAdapterOptions)[] = ['imageEncoder', 'scale']

const isList = <T>(value: T | readonly T[]): value is readonly T[] => Array.isArray(value)

/** The scale of every cross-attention. */
const expandScale = (name: string, scale: IpAdapterScale, attentions: readonly CrossAttention[]): Float32Array => {
  const out = new Float32Array(attentions.length)
  if (typeof scale === 'number') return out.fill(finite(name, scale))
  if (typeof scale !== 'object' || scale === null || isList(scale))
    throw invalidArgument(name, 'a number or { down, mid, up }', scale)
  knownKeys(name, scale, ['down', 'mid', 'up'])
  for (const part of ['down', 'mid', 'up'] as const) {
    const given = scale[part] ?? 0
    const own = attentions.map((a, i) => ({ ...a, i })).filter((a) => a.part === part)
    const blocks = [...new Set(own.map((a) => a.block))]
    // mid is one block; a number for down or up goes to all of its blocks.
    const byBlock: Readonly<Record<string, IpAdapterBlockScale>> =
      part === 'mid' || typeof given === 'number'
        ? Object.fromEntries(blocks.map((b) => [`block_${b}`, given as IpAdapterBlockScale]))
        : (given as Readonly<Record<string, IpAdapterBlockScale>>)
    if (typeof byBlock !== 'object' || isList(byBlock as never))
      throw invalidArgument(`${name}.${part}`, 'a number or { block_0: …, … }', given)
    for (const [key, value] of Object.entries(byBlock)) {
      const block = blocks.find((b) => key === `block_${b}`)
      if (block === undefined)
        throw invalidArgument(
          `${name}.${part}`,
          `blocks with attention: ${blocks.map((b) => `block_${b}`).join(', ')}`,
          key
        )
      const inBlock = own.filter((a) => a.block === block)
      const count = Math.max(...inBlock.map((a) => a.transformer)) + 1
      const path = `${name}.${part}.${key}`
      const list = isList(value) ? value : [value]
      if (list.length !== 1 && list.length !== count) throw invalidArgument(path, `a number or ${count} of them`, value)
      for (const { i, transformer } of inBlock) out[i] = finite(path, list.length === 1 ? list[0] : list[transformer])
    }
  }
  return out
}

const zeros = (shape: readonly number[]): Tensor => ({
  data: new Float32Array(shape.reduce((a, b) => a * b, 1)),
  shape
})

/** Rows of equal shape under each other. */
const joined = (parts: readonly Float32Array[], shape: readonly number[]): Tensor => {
  const out = zeros(shape)
  let at = 0
  for (const part of parts) {
    out.data.set(part, at)
    at += part.length
  }
  return out
}

const findEncoder = async (given: string | undefined, model: string, file: string): Promise<string | undefined> => {
  if (given !== undefined) {
    if (typeof given !== 'string' || given === '')
      throw invalidArgument('imageEncoder', "an image encoder's folder", given)
    return (await resolveComponent('imageEncoder', given, 'image_encoder', {})).path
  }
  for (const folder of [model, dirname(file)]) {
    const path = join(folder, 'image_encoder')
    if (await isFolder(path)) return path
  }
  return undefined
}

/** What is loaded into one pipeline. */
export class IpAdapters {
  private scales: readonly Float32Array[]
  private withoutPicture: Promise<Tensor> | undefined

  private constructor(
    readonly files: readonly IpAdapterFile[],
    readonly encoder: ImageEncoder | undefined,
    private readonly attentions: readonly CrossAttention[],
    private readonly owner: SessionOwner
  ) {
    this.scales = files.map(() => new Float32Array(attentions.length).fill(1))
  }

  /**
   * Loads them in place of those that the session has. Everything is checked before anything changes; `onUnload` says when
   * the ones of before are gone.
   */
  static async load(
    owner: SessionOwner,
    model: ModelFolder,
    source: string | readonly string[],
    options: IpAdapterOptions,
    readHeader: CheckpointReader,
    onUnload: () => void
  ): Promise<IpAdapters> {
    const session = owner.session()
    if (!/^(StableDiffusion|LatentConsistency)/.test(model.className))
      throw unsupported(`Expected a Stable Diffusion model for an IP-Adapter but this one is a ${model.className}`)
    const unet = model.unet.config
    knownKeys('loadIpAdapter', options, known)
    const paths: readonly string[] = typeof source === 'string' ? [source] : source
    if (!isList<string>(paths) || paths.length === 0 || paths.some((p) => typeof p !== 'string' || p === ''))
      throw invalidArgument('source', "the path of an IP-Adapter's .safetensors file, or several", source)
    const files = await Promise.all(paths.map(async (path) => readIpAdapter(await resolveFile(path), unet, readHeader)))
    const folder = await findEncoder(options.imageEncoder, model.path, paths[0]!)
    const vision = folder === undefined ? undefined : await readImageEncoder(folder, readHeader)
    if (vision)
      for (const { path, config } of files) {
        const { projectionDim, hiddenSize } = vision.config
        const [made, name] =
          config.projection === 'tokens'
            ? [projectionDim, 'image_proj.proj.weight']
            : [hiddenSize, `image_proj.${config.projection === 'states' ? 'proj.0' : 'proj_in'}.weight`]
        if (made !== config.embedWidth)
          throw modelFormat(
            `${path}: expected an image encoder that makes ${config.embedWidth} features, as tensor ${name} reads, but that of ` +
              `${vision.folder} makes ${made}; which encoder does the adapter's page name?`
          )
      }
    const encoder = vision && new ImageEncoder(owner, vision.config, vision.preprocessing)
    const adapters = new IpAdapters(files, encoder, crossAttentions(unet), owner)
    if (options.scale !== undefined) adapters.setScale(options.scale, 'scale')

    onUnload()
    await translating(session.unloadIpAdapters())
    try {
      if (vision) await loadImageEncoder(session, vision)
      for (const { config, weights } of files) await loadComponent(session, 'ipAdapter', config, weights)
    } catch (error) {
      await session.unloadIpAdapters()
      throw error
    }
    return adapters
  }

  /** One for all adapters, or one for each. */
  setScale(scale: IpAdapterScale | readonly IpAdapterScale[], name = 'setIpAdapterScale'): void {
    const list = isList(scale) ? scale : this.files.map(() => scale)
    if (list.length !== this.files.length)
      throw invalidArgument(name, `one scale, or one for each of ${this.files.length} IP-Adapters`, scale)
    this.scales = list.map((one, i) => expandScale(isList(scale) ? `${name}[${i}]` : name, one, this.attentions))
  }

  /** @param guided whether there is a branch without the picture */
  async prompts(input: IpAdapterInput, guided: boolean): Promise<NativeImagePrompt[]> {
    const scales = this.scales // those of now, whatever comes while pictures are read
    const embeds = input.ipAdapterImageEmbeds
    if ((input.ipAdapterImage === undefined) === (embeds === undefined))
      throw invalidArgument(
        'ipAdapterImage',
        'a picture for the IP-Adapter that is loaded (or ipAdapterImageEmbeds, and not both; unloadIpAdapter() ends its use)',
        input.ipAdapterImage
      )
    const tensors = embeds === undefined ? await this.embeds(input.ipAdapterImage!, guided) : this.given(embeds, guided)
    this.owner.session() // disposed of meanwhile?
    return tensors.map(({ data, shape }, i) => ({
      rows: shape[0]!,
      images: shape[1]!,
      states: shape.length === 4 ? shape[2]! : 1,
      embeds: data,
      scales: scales[i]!
    }))
  }

  /** One tensor per adapter, as `ipAdapterImageEmbeds` takes them. */
  async embeds(images: NonNullable<IpAdapterInput['ipAdapterImage']>, guided: boolean): Promise<Tensor[]> {
    const { encoder } = this
    if (!encoder)
      throw invalidArgument(
        'ipAdapterImage',
        'an image encoder (the `imageEncoder` option of loadIpAdapter), or ipAdapterImageEmbeds instead,',
        images
      )
    const list = isList(images as ImageInput)
      ? (images as readonly (ImageInput | readonly ImageInput[])[])
      : [images as ImageInput]
    if (list.length !== this.files.length)
      throw invalidArgument(
        'ipAdapterImage',
        `one entry for each of ${this.files.length} IP-Adapters (several pictures for one adapter are an array in the array)`,
        images
      )
    return Promise.all(
      list.map(async (one, i) => {
        const pictures = isList(one as ImageInput) ? (one as readonly ImageInput[]) : [one as ImageInput]
        return this.files[i]!.config.projection === 'tokens'
          ? this.embedding(encoder, pictures, guided)
          : this.states(encoder, pictures, guided)
      })
    )
  }

  /** The projected embedding; zeros stand for no picture. */
  private async embedding(encoder: ImageEncoder, pictures: readonly ImageInput[], guided: boolean): Promise<Tensor> {
    const { data, shape } = (await encoder.encode(pictures)).projected!
    const row = [pictures.length, shape[1]!]
    return guided ? joined([zeros(row).data, data], [2, ...row]) : { data, shape: [1, ...row] }
  }

  /** The states before the last layer; those of a picture whose pixels are all zero stand for no picture. */
  private async states(encoder: ImageEncoder, pictures: readonly ImageInput[], guided: boolean): Promise<Tensor> {
    const { data, shape } = await encoder.penultimate(pictures)
    const row = [pictures.length, ...shape.slice(1)]
    if (!guided) return { data, shape: [1, ...row] }
    const side = encoder.config.imageSize
    this.withoutPicture ??= encoder.penultimate(zeros([1, 3, side, side]))
    const none = await this.withoutPicture
    return joined([...pictures.map(() => none.data), data], [2, ...row])
  }

  private given(embeds: Tensor | readonly Tensor[], guided: boolean): Tensor[] {
    const list = isList(embeds as Tensor) ? (embeds as readonly Tensor[]) : [embeds as Tensor]
    if (list.length !== this.files.length)
      throw invalidArgument('ipAdapterImageEmbeds', `a tensor for each of ${this.files.length} IP-Adapters`, embeds)
    return list.map((tensor, i) => {
      const { projection, embedWidth } = this.files[i]!.config
      const shape = [guided ? 2 : 1, null, ...(projection === 'tokens' ? [] : [null]), embedWidth]
      return checkTensor(`ipAdapterImageEmbeds[${i}]`, tensor, shape)
    })
  }
}
