import { join } from 'node:path'
import { invalidArgument, modelFormat, unsupported } from '../errors.js'
import { isObject } from './config-reader.js'
import { listFolder, modelNotFound, readJson } from './files.js'
import type { TextEncoderKind } from './text-encoder.js'

/** Which part of a stored tensor is meant, and how; engine/weight-loader.h honours it. */
export interface TensorView {
  /** Rows [begin, end) of the first dimension: original checkpoints fuse the query, key and value projections. */
  readonly rows?: readonly [begin: number, end: number]
  /** The matrix is stored the other way round. */
  readonly transpose?: boolean
}

/** One tensor of a component and where it is stored. */
export interface TensorSource {
  /** The name that the native model asks for: diffusers' and transformers' present one. */
  readonly name: string
  /** Index into ComponentWeights.files. */
  readonly file: number
  /** The name in that file. */
  readonly stored: string
  /** Missing: all of it, as it is. */
  readonly view?: TensorView
}

export interface ComponentWeights {
  /** Absolute or as the folder was given; each holds at least one tensor. */
  readonly files: readonly string[]
  readonly tensors: readonly TensorSource[]
  /** "fp16" where *.fp16.safetensors were taken. */
  readonly variant: string | undefined
}

/** What is asked of a safetensors header. */
export interface Header {
  readonly tensors: readonly { readonly name: string }[]
}

/** Reads and checks one; the native binding's readHeader. */
export type HeaderReader = (path: string) => Header | Promise<Header>

export type ComponentKind = TextEncoderKind | 'clip-vision' | 'unet' | 'unet2d' | 'vae'

const baseNames: Record<ComponentKind, string> = {
  'clip-text': 'model', // transformers
  'clip-vision': 'model',
  'ldm-bert': 'model',
  t5: 'model',
  unet: 'diffusion_pytorch_model',
  unet2d: 'diffusion_pytorch_model',
  vae: 'diffusion_pytorch_model'
}

const oldAttention: Record<string, string> = { query: 'to_q', key: 'to_k', value: 'to_v', proj_attn: 'to_out.0' }

/**
 * The present name of a stored tensor, or undefined for one that no model here reads. Files of 2022 call the
 * projections of attention over pixels query, key, value and proj_attn; text encoders are found with and without the prefix
 * "text_model." and with a position_ids buffer; a whole CLIPModel has both towers.
 */
export const canonicalName = (kind: ComponentKind, stored: string): string | undefined => {
  if (kind === 'vae' || kind === 'unet2d')
    return stored.replace(
      /(\.attentions\.\d+\.)(query|key|value|proj_attn)(\.(?:weight|bias))$/,
      (_, module: string, old: string, field: string) => module + oldAttention[old]! + field
    )
  if (kind === 't5' && stored === 'encoder.embed_tokens.weight') return 'shared.weight' // the same table, twice
  if (kind === 'clip-vision') return /^(vision_model|visual_projection)\./.test(stored) ? stored : undefined
  if (kind !== 'clip-text') return stored
  if (stored.endsWith('position_ids')) return undefined
  if (/^(text_model|text_projection)\./.test(stored)) return stored
  if (/^(embeddings|encoder|final_layer_norm)\./.test(stored)) return `text_model.${stored}`
  return undefined
}

/** A name that is already canonical wins over one that only maps to it. */
const collect = (
  kind: ComponentKind,
  stored: readonly { readonly stored: string; readonly file: number }[]
): TensorSource[] => {
  const found = new Map<string, TensorSource>()
  for (const source of stored) {
    const name = canonicalName(kind, source.stored)
    if (name === undefined) continue
    if (!found.has(name) || source.stored === name) found.set(name, { name, ...source })
  }
  return [...found.values()]
}

interface Choice {
  readonly variant: string | undefined
  /** A single file, or the index of a sharded one. */
  readonly single: string | undefined
  readonly index: string | undefined
}

/** Every complete set of weights in a folder, by variant. */
const choices = (names: readonly string[], base: string): Choice[] => {
  const variants = new Map<string | undefined, { single?: string; index?: string }>()
  const add = (variant: string | undefined, part: { single?: string; index?: string }): void => {
    variants.set(variant, { ...variants.get(variant), ...part })
  }
  for (const name of names) {
    if (!name.startsWith(base)) continue
    const rest = name.slice(base.length)
    if (/-\d+-of-\d+/.test(rest)) continue // a shard; its index names it
    // diffusers names the index of a variant base.safetensors.index.fp16.json, transformers ….fp16.index.json too.
    const index = /^(?:\.([^.]+))?\.safetensors\.index(?:\.([^.]+))?\.json$/.exec(rest)
    if (index) add(index[1] ?? index[2], { index: name })
    const single = /^(?:\.([^.]+))?\.safetensors$/.exec(rest)
    if (single) add(single[1], { single: name })
  }
  return [...variants].map(([variant, { single, index }]) => ({ variant, single, index }))
}

/** The one asked for, else the plain set, else fp16, else bf16, else the first by name. */
const preferred = (all: readonly Choice[], first: string | undefined): Choice | undefined => {
  for (const variant of [first, undefined, 'fp16', 'bf16']) {
    const choice = all.find((c) => c.variant === variant)
    if (choice) return choice
  }
  return all[0]
}

const noWeights = (folder: string, names: readonly string[], base: string): Error => {
  const pickle = names.find((name) => /\.(bin|ckpt|pt|pth)(\.index\.json)?$/.test(name))
  const other = names.find((name) => /\.(msgpack|h5|onnx|onnx_data|gguf)$/.test(name))
  if (pickle ?? other)
    return unsupported(
      `${folder}: expected ${base}.safetensors but found only ${pickle ?? other}; ` +
        `${pickle ? 'pickled weights can run code and are not loaded' : 'this format is not loaded'}: ` +
        "convert the model with diffusers' save_pretrained(folder, safe_serialization=True), " +
        'or download a revision that has safetensors files'
    )
  return modelNotFound(
    `${folder}: expected ${base}.safetensors (or ${base}.safetensors.index.json) but the folder has no weights`
  )
}

/**
 * Which files of a component's folder hold its tensors, and under which names.
 * @param variant take *.VARIANT.safetensors and nothing else; without it the plain files, or, where there are none,
 *   those of the only (or half-precision) variant
 * @param prefer without `variant`: the variant to take where a folder has it
 * @throws ERR_ND_MODEL_NOT_FOUND, ERR_ND_MODEL_FORMAT (an index that names a missing file or tensor), ERR_ND_UNSUPPORTED
 *   (pickles only), and what `readHeader` throws
 */
export const findWeights = async (
  folder: string,
  kind: ComponentKind,
  readHeader: HeaderReader,
  variant?: string,
  prefer?: string
): Promise<ComponentWeights> => {
  if (variant !== undefined && !/^[^./\\]+$/.test(variant))
    throw invalidArgument('variant', 'a name such as "fp16"', variant)
  const base = baseNames[kind]
  const names = await listFolder(folder, 'a component of the model')
  const all = choices(names, base)
  const choice = variant === undefined ? preferred(all, prefer) : all.find((c) => c.variant === variant)
  if (!choice && variant !== undefined && all.length)
    throw modelNotFound(
      `${folder}: expected ${base}.${variant}.safetensors but the folder has only ${all.map((c) => c.single ?? c.index).join(', ')}`
    )
  if (!choice) throw noWeights(folder, names, base)
  if (choice.single !== undefined) {
    const path = join(folder, choice.single)
    const header = await readHeader(path)
    const tensors = collect(
      kind,
      header.tensors.map(({ name }) => ({ stored: name, file: 0 }))
    )
    return { files: [path], tensors, variant: choice.variant }
  }
  return { ...(await readIndex(folder, choice.index!, names, kind, readHeader)), variant: choice.variant }
}

/** A sharded file: {"weight_map": {tensor: file}}. Every entry is checked. */
const readIndex = async (
  folder: string,
  index: string,
  names: readonly string[],
  kind: ComponentKind,
  readHeader: HeaderReader
): Promise<{ files: string[]; tensors: TensorSource[] }> => {
  const path = join(folder, index)
  const map = (await readJson(path, 'the index of a sharded safetensors file')).weight_map
  if (!isObject(map)) throw modelFormat(`${path}: expected an object for weight_map`)
  const shards: string[] = []
  const entries: { stored: string; file: number }[] = []
  for (const [stored, shard] of Object.entries(map)) {
    // A name with a path in it could lead out of the folder.
    if (typeof shard !== 'string' || !/^[^/\\]+\.safetensors$/.test(shard))
      throw modelFormat(
        `${path}: expected a .safetensors file of the same folder for ${JSON.stringify(stored)} but received ${JSON.stringify(shard)}`
      )
    if (!names.includes(shard))
      throw modelNotFound(
        `${join(folder, shard)}: expected this file, as ${index} names it, but it does not exist; download it too`
      )
    if (!shards.includes(shard)) shards.push(shard)
    entries.push({ stored, file: shards.indexOf(shard) })
  }
  if (entries.length === 0) throw modelFormat(`${path}: expected tensors in weight_map but it is empty`)
  const files = shards.map((shard) => join(folder, shard))
  const headers = await Promise.all(
    files.map(async (file) => new Set((await readHeader(file)).tensors.map(({ name }) => name)))
  )
  for (const { stored, file } of entries)
    if (!headers[file]!.has(stored))
      throw modelFormat(
        `${files[file]}: expected a tensor ${JSON.stringify(stored)}, as ${index} says, but the file has none`
      )
  return { files, tensors: collect(kind, entries) }
}
