import { join } from 'node:path'
import { modelFormat, unsupported } from '../errors.js'
import { parseAutoencoderConfig, type AutoencoderConfig } from './autoencoder.js'
import type { ConfigJson } from './config-reader.js'
import type { TokenizerSource } from './tokenizer-source.js'
import { isFolder, listFolder, modelNotFound, readJson } from './files.js'
import { partsOf, pipelineClasses, type PipelineClass, type TextPart } from './pipeline-classes.js'
import { parseTextEncoderConfig, type TextEncoderConfig, type TextEncoderKind } from './text-encoder.js'
import { parseUNetConfig, type UNetConfig } from './unet.js'
import { isUNet2d, parseUNet2dConfig, type UNet2dConfig } from './unet2d.js'
import { findWeights, type ComponentKind, type ComponentWeights, type HeaderReader } from './weights.js'

export interface Component<Config> {
  readonly folder: string
  readonly config: Config
  readonly weights: ComponentWeights
}

/** A text encoder: which network its config and weights are for. */
export interface TextComponent extends Component<TextEncoderConfig> {
  readonly kind: TextEncoderKind
}

/** What a diffusers folder (save_pretrained) holds: checked, resolved, and nothing loaded yet. */
export interface ModelFolder<Unet = UNetConfig> {
  readonly path: string
  readonly className: PipelineClass
  /** model_index.json as it is. */
  readonly index: ConfigJson
  readonly unet: Component<Unet>
  /** null where the model paints pixels. */
  readonly vae: Component<AutoencoderConfig> | null
  /** null in SDXL models without the first text encoder, and in models without text. */
  readonly textEncoder: TextComponent | null
  /** In a folder's model, the tokenizer's folder. */
  readonly tokenizer: TokenizerSource | null
  /** SDXL only. */
  readonly textEncoder2: TextComponent | null
  readonly tokenizer2: TokenizerSource | null
  /** The scheduler's class and its config JSON as it is (snake_case). */
  readonly scheduler: { readonly className: string; readonly config: ConfigJson }
  /** Super-resolution: how the small picture is noised; else null. */
  readonly noisingScheduler: { readonly className: string; readonly config: ConfigJson } | null
  /** Of superResolution. */
  readonly maxNoiseLevel: number
  /** SDXL: an empty negative prompt means zeros instead of the encoded empty text; true by default. */
  readonly forceZerosForEmptyPrompt: boolean
  /** SDXL's refiner: conditioned on an aesthetic score instead of the target size. */
  readonly requiresAestheticsScore: boolean
  /** What the user should be told once. */
  readonly warnings: readonly string[]
}

/** A model that paints pictures without a condition: UNet2DModel. */
export type UnconditionalFolder = ModelFolder<UNet2dConfig>

export const isUnconditional = (folder: ModelFolder | UnconditionalFolder): folder is UnconditionalFolder =>
  isUNet2d(folder.unet.config)

export interface ReadFolderOptions {
  readonly readHeader: HeaderReader
  /** Weights from *.VARIANT.safetensors, as diffusers' `variant`. */
  readonly variant?: string
  /** Without `variant`: the one to take where a component has it. */
  readonly prefer?: string
  /** Where the weights come from if not from the folder, and what stands in for a tokenizer that it lacks. */
  readonly origin?: {
    weightsOf(component: string): ComponentWeights
    tokenizerOf(component: string, vocabSize: number): TokenizerSource
  }
}

/** The class of each component as model_index.json names it; null where it is [null, null] or missing. */
const componentClass = (index: ConfigJson, name: string, source: string): string | null => {
  const entry = index[name]
  if (entry === undefined || entry === null) return null
  const valid = Array.isArray(entry) && entry.length === 2 && entry.every((e) => e === null || typeof e === 'string')
  if (!valid)
    throw modelFormat(
      `${source}: expected [library, class] for ${name} but received ${JSON.stringify(entry).slice(0, 60)}`
    )
  return (entry as (string | null)[])[1] ?? null
}

const readClass = (index: ConfigJson, source: string): PipelineClass => {
  const name = index._class_name
  if (typeof name !== 'string')
    throw modelFormat(`${source}: expected a pipeline class for _class_name but received ${JSON.stringify(name)}`)
  if (!(pipelineClasses as readonly string[]).includes(name))
    throw unsupported(
      `${source}: pipeline class ${JSON.stringify(name)} is not supported, only ${pipelineClasses.join(', ')}`
    )
  return name as PipelineClass
}

/** Components that are not run, with what to say about it; others that are not used are named. */
const notRun: Readonly<Record<string, string | null>> = {
  safety_checker: 'The model names a safety checker; it is not run, and pictures are not filtered.',
  feature_extractor: null, // the safety checker's
  watermarker: 'The model names a watermarker; it is not run, and pictures are not marked.'
}

const readComponent = async <Config>(
  path: string,
  name: string,
  kind: ComponentKind,
  parse: (json: ConfigJson, source: string) => Config,
  options: ReadFolderOptions
): Promise<Component<Config>> => {
  const folder = join(path, name)
  if (!(await isFolder(folder)))
    throw modelNotFound(`${folder}: expected this folder, as model_index.json names it, but there is none`)
  const source = join(folder, 'config.json')
  const config = parse(await readJson(source, "the component's config"), source)
  const weights =
    options.origin?.weightsOf(name) ??
    (await findWeights(folder, kind, options.readHeader, options.variant, options.prefer))
  return { folder, config, weights }
}

/** A VAE's own folder: config.json and weights, as `vae` of a pipeline or a repository that has nothing else. */
export const readVaeFolder = (path: string, options: ReadFolderOptions): Promise<Component<AutoencoderConfig>> =>
  readComponent(path, '', 'vae', parseAutoencoderConfig, options)

/**
 * Reads a model with text encoders in the diffusers layout.
 * @throws as readFolder; ERR_ND_UNSUPPORTED where it is one without
 */
export const readModelFolder = async (path: string, options: ReadFolderOptions): Promise<ModelFolder> => {
  const model = await readFolder(path, options)
  if (isUnconditional(model))
    throw unsupported(`${path}: expected a model with text encoders but this is a ${model.className}`)
  return model
}

/**
 * Reads a model in the diffusers layout.
 * @throws ERR_ND_MODEL_NOT_FOUND (a missing folder or file), ERR_ND_MODEL_FORMAT (a broken one), ERR_ND_UNSUPPORTED (a class
 *   or an option that is not implemented), each naming the file
 */
export const readFolder = async (
  path: string,
  options: ReadFolderOptions
): Promise<ModelFolder | UnconditionalFolder> => {
  const names = await listFolder(path, 'a diffusers model')
  const source = join(path, 'model_index.json')
  if (!names.includes('model_index.json')) {
    const single = names.find((name) => name.endsWith('.safetensors'))
    throw modelNotFound(
      `${source}: expected a diffusers folder but it has no model_index.json` +
        (single === undefined ? '' : `; to load a single file, give its own path, such as ${join(path, single)}`)
    )
  }
  const index = await readJson(source, 'the list of components')
  const className = readClass(index, source)

  const required = (name: string, accepted: readonly string[] | undefined, optional = false): string | null => {
    const found = componentClass(index, name, source)
    if (found === null && !optional)
      throw modelFormat(`${source}: expected a component ${name} for ${className} but it has none`)
    if (found !== null && accepted && !accepted.includes(found))
      throw unsupported(
        `${source}: ${name} of class ${JSON.stringify(found)} is not supported, only ${accepted.join(', ')}`
      )
    return found
  }
  const parts = partsOf(className)
  required('unet', parts.unet)
  if (parts.autoencoder) required(parts.autoencoder.name, parts.autoencoder.classes)
  required('scheduler', undefined)
  const noising = parts.upscaling?.noising
  if (noising) required(noising, undefined)
  const readText = async (
    part: TextPart
  ): Promise<{ encoder: TextComponent | null; tokenizer: TokenizerSource | null }> => {
    const { encoder, tokenizer, kind, classes, tokenizers, optional } = part
    const encoderClass = required(encoder, classes, optional)
    if (encoderClass === null) return { encoder: null, tokenizer: null }
    required(tokenizer, tokenizers)
    const parse = (json: ConfigJson, file: string): TextEncoderConfig =>
      parseTextEncoderConfig(kind, json, encoderClass, file)
    const folder = join(path, tokenizer)
    const component = { ...(await readComponent(path, encoder, kind, parse, options)), kind }
    if (await isFolder(folder)) return { encoder: component, tokenizer: folder }
    if (!options.origin) throw modelNotFound(`${folder}: expected the tokenizer's folder but there is none`)
    return { encoder: component, tokenizer: options.origin.tokenizerOf(encoder, component.config.vocabSize) }
  }
  const texts = await Promise.all(parts.texts.map(readText))
  const pixels = parts.unet.includes('UNet2DModel')
  const unet = pixels ? null : await readComponent(path, 'unet', 'unet', parseUNetConfig, options)
  const vae = parts.autoencoder
    ? await readComponent(path, parts.autoencoder.name, 'vae', parseAutoencoderConfig, options)
    : null
  const encoders = texts.map((text) => text.encoder)
  const requiresAestheticsScore = readFlag(index, 'requires_aesthetics_score', false, source)
  if (unet) checkWidths(path, unet.config, encoders, requiresAestheticsScore ? 5 : 6)

  const model = {
    path,
    className,
    index,
    vae,
    textEncoder: encoders[0] ?? null,
    tokenizer: texts[0]?.tokenizer ?? null,
    textEncoder2: encoders[1] ?? null,
    tokenizer2: texts[1]?.tokenizer ?? null,
    scheduler: await readScheduler(path, index, source),
    noisingScheduler: noising ? await readScheduler(path, index, source, noising) : null,
    maxNoiseLevel: readMaxNoiseLevel(index, className, source),
    requiresAestheticsScore,
    forceZerosForEmptyPrompt: readFlag(index, 'force_zeros_for_empty_prompt', true, source),
    warnings: warningsFor(index, className, source)
  }
  return unet
    ? { ...model, unet }
    : { ...model, unet: await readComponent(path, 'unet', 'unet2d', parseUNet2dConfig, options) }
}

const readFlag = (index: ConfigJson, key: string, fallback: boolean, source: string): boolean => {
  const value = index[key] ?? fallback
  if (typeof value !== 'boolean')
    throw modelFormat(`${source}: expected true or false for ${key} but received ${JSON.stringify(value)}`)
  return value
}

/** The highest noise level for a small picture that its model knows; DDPM's last timestep where none is said. */
const readMaxNoiseLevel = (index: ConfigJson, className: PipelineClass, source: string): number => {
  const value = index['max_noise_level'] ?? (className === 'StableDiffusionUpscalePipeline' ? 350 : 999)
  if (!Number.isInteger(value) || (value as number) < 0)
    throw modelFormat(`${source}: expected a timestep for max_noise_level but received ${JSON.stringify(value)}`)
  return value as number
}

const readScheduler = async (
  path: string,
  index: ConfigJson,
  source: string,
  name = 'scheduler'
): Promise<ModelFolder['scheduler']> => {
  const file = join(path, name, 'scheduler_config.json')
  const config = await readJson(file, "the scheduler's config")
  // The pipeline's list decides, as in diffusers; the config's own class may be that of an older save.
  const own = componentClass(index, name, source) ?? config._class_name
  const className = index._class_name === 'DDIMPipeline' ? 'DDIMScheduler' : own // it converts every other
  if (typeof className !== 'string') throw modelFormat(`${file}: expected a scheduler class but there is none`)
  return { className, config }
}

/**
 * What the text encoders make must be as wide as the UNet reads.
 * @param ids time ids of SDXL's UNets: 6, the refiner's 5
 * @param source what says so, for messages
 */
export const checkWidths = (
  path: string,
  unet: UNetConfig,
  encoders: readonly (TextComponent | null)[],
  ids: 5 | 6,
  source = 'unet/config.json'
): void => {
  const made = encoders.reduce((sum, encoder) => sum + (encoder?.config.hiddenSize ?? 0), 0)
  const attends = unet.levels.filter((level) => level.heads > 0 || level.upHeads > 0)
  // A pixel UNet projects the text first; later stages may come without a text encoder of their own.
  const given = unet.pixel?.encoderWidth
  if (given && made > 0 && given !== made)
    throw modelFormat(
      `${path}: expected a text encoder of ${given} features, as ${source} has encoder_hid_dim, but its has ${made}`
    )
  const wrong = given || (unet.pixel && made === 0) ? undefined : attends.find((level) => level.contextWidth !== made)
  if (wrong)
    throw modelFormat(
      `${path}: expected text encoders of ${wrong.contextWidth} features together, as ${source} has ` +
        `cross_attention_dim, but theirs have ${made}; are the components of one model?`
    )
  // SDXL's text_time embedding: the pooled text, then six numbers for sizes and crop (the refiner: five).
  const pooled = encoders[1]?.config.projectionDim ?? 0
  const added = pooled + ids * unet.addedTimeWidth
  if (unet.addedTimeWidth > 0 && unet.addedInputWidth !== added)
    throw modelFormat(
      `${path}: expected projection_class_embeddings_input_dim ${added} in ${source}, as the pooled text has ${pooled} ` +
        `and ${ids} time ids ${ids} · ${unet.addedTimeWidth} (requires_aesthetics_score in model_index.json: 5, else 6), but received ${unet.addedInputWidth}`
    )
}

const warningsFor = (index: ConfigJson, className: PipelineClass, source: string): string[] => {
  const { autoencoder, texts, upscaling, control } = partsOf(className)
  const used = [
    'unet',
    'scheduler',
    upscaling?.noising,
    control,
    autoencoder?.name,
    ...texts.flatMap((text) => [text.encoder, text.tokenizer])
  ]
  const warnings: string[] = []
  for (const [name, entry] of Object.entries(index)) {
    if (name.startsWith('_') || !Array.isArray(entry) || used.includes(name)) continue
    if (componentClass(index, name, source) === null) continue
    const warning = name in notRun ? notRun[name]! : `The model's ${name} is not used.`
    if (warning !== null) warnings.push(warning)
  }
  return warnings
}
