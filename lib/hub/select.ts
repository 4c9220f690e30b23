/** Which files of a repository a pipeline needs: never pickles, one set of weights per component, no safety checker. */
import { invalidArgument, modelFormat, unsupported } from '../errors.js'
import { modelNotFound } from '../models/files.js'

export interface RemoteFile {
  /** With slashes, from the repository's root. */
  readonly path: string
  readonly size: number
  /** SHA-256 of an LFS file's content; git's object id (SHA-1) of others. */
  readonly etag: string
  readonly hash: 'sha256' | 'git'
}

/** Parts that are named in model_index.json but never run here. */
const notRun = new Set(['safety_checker', 'feature_extractor', 'watermarker', 'image_encoder'])

const weightBases = ['diffusion_pytorch_model', 'model']

const isWeight = (name: string): boolean =>
  /\.(safetensors|bin|pt|pth|ckpt|msgpack|h5|onnx|onnx_data|pb|gguf|xml)$/.test(name) ||
  /\.index(\.[^.]+)?\.json$/.test(name)

interface WeightSet {
  variant: string | undefined
  files: RemoteFile[]
}

/** Every complete set of safetensors of a component, by variant ('fp16' of model.fp16.safetensors). */
const weightSets = (files: readonly RemoteFile[], folder: string): WeightSet[] => {
  const sets = new Map<string | undefined, RemoteFile[]>()
  for (const file of files) {
    const name = file.path.slice(folder.length)
    const base = weightBases.find((b) => name.startsWith(b))
    if (!base) continue
    const rest = name.slice(base.length)
    const match =
      /^(?:\.([^.]+?))?(?:-\d+-of-\d+)?(?:\.([^.]+))?\.safetensors$/.exec(rest) ??
      /^(?:\.([^.]+))?\.safetensors\.index(?:\.([^.]+))?\.json$/.exec(rest)
    if (!match) continue
    const variant = match[1] ?? match[2]
    sets.set(variant, [...(sets.get(variant) ?? []), file])
  }
  // Where a set is there both whole and in shards, the whole file will do.
  return [...sets].map(([variant, all]) => {
    const whole = all.find((f) => f.path.endsWith('.safetensors') && !/-\d+-of-\d+/.test(f.path))
    return { variant, files: whole ? [whole] : all }
  })
}

/**
 * @param index model_index.json
 * @param variant take this set of weights in every component that has it; without it fp16, else the plain files
 * @throws ERR_ND_UNSUPPORTED (a component in pickles alone), ERR_ND_MODEL_NOT_FOUND (no component has the variant)
 */
export const neededFiles = (
  repo: string,
  files: readonly RemoteFile[],
  index: Readonly<Record<string, unknown>>,
  variant?: string
): RemoteFile[] => {
  const needed = files.filter((file) => file.path === 'model_index.json')
  let found = false
  for (const [component, entry] of Object.entries(index)) {
    if (component.startsWith('_') || notRun.has(component) || !Array.isArray(entry) || entry[1] === null) continue
    if (!/^\w+$/.test(component))
      throw modelFormat(`${repo}: expected names of components in model_index.json but received ${component}`)
    const folder = `${component}/`
    const own = files.filter((file) => file.path.startsWith(folder) && !file.path.slice(folder.length).includes('/'))
    if (own.length === 0)
      throw modelNotFound(`${repo}: expected a folder ${folder} as model_index.json names it, but there is none`)
    needed.push(...own.filter((file) => !isWeight(file.path) && /\.(json|txt|model)$/.test(file.path)))
    const sets = weightSets(own, folder)
    const plain = sets.find((set) => set.variant === undefined)
    const wanted = sets.find((set) => set.variant === (variant ?? 'fp16'))
    found ||= wanted !== undefined
    const chosen = wanted ?? plain ?? sets[0]
    const pickle = own.find((file) => /\.(bin|ckpt|pt|pth)$/.test(file.path))
    if (!chosen && pickle)
      throw unsupported(
        `${repo}: expected safetensors in ${folder} but found only ${pickle.path}; pickled weights can run code and are not ` +
          'loaded: look for a revision or another repository with safetensors files'
      )
    needed.push(...(chosen?.files ?? []))
  }
  if (variant !== undefined && !found)
    throw modelNotFound(`${repo}: expected weights named *.${variant}.safetensors but no component has them`)
  return needed
}

/** 'org/name', or 'org/name/path/model.safetensors', as a repository and the one file in it. */
export const parseRepo = (source: string): { repo: string; file: string | undefined } | undefined => {
  const match = /^([\w.-]+\/[\w.-]+)(?:\/(.+\.safetensors))?$/.exec(source)
  if (!match || source.includes('..') || source.startsWith('.')) return undefined
  if (match[1]!.endsWith('.safetensors')) return undefined // a path
  return { repo: match[1]!, file: match[2] }
}

/** A file's name from the outside: it must stay in the folder that it is put in. */
export const checkPath = (path: string): string => {
  const parts = path.split('/')
  if (path === '' || /[\\:\0]/.test(path) || parts.some((part) => part === '' || part === '.' || part === '..'))
    throw invalidArgument('the path of a file in the repository', 'a relative path without ..', path)
  return path
}
