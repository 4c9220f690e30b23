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

const pickled = (repo: string, where: string, file: RemoteFile): Error =>
  unsupported(
    `${repo}: expected safetensors in ${where} but found only ${file.path}; pickled weights can run code and are not ` +
      'loaded: look for a revision or another repository with safetensors files'
  )

/** The files of `folder` ('' or 'vae/'), not of folders in it. */
const directlyIn = (files: readonly RemoteFile[], folder: string): RemoteFile[] =>
  files.filter((file) => file.path.startsWith(folder) && !file.path.slice(folder.length).includes('/'))

const isSetting = (file: RemoteFile): boolean => !isWeight(file.path) && /\.(json|txt|model)$/.test(file.path)

/**
 * What one component needs: its config.json and a set of weights.
 * @param folder '' or 'vae/'
 * @param variant this set and no other; without it the plain files, else those in half precision
 * @throws ERR_ND_UNSUPPORTED (pickles alone), ERR_ND_MODEL_NOT_FOUND (no weights, or not of the variant)
 */
export const componentFiles = (
  repo: string,
  files: readonly RemoteFile[],
  folder: string,
  variant?: string
): RemoteFile[] => {
  const own = directlyIn(files, folder)
  const sets = weightSets(own, folder)
  const chosen = (variant === undefined ? [undefined, 'fp16', 'bf16'] : [variant])
    .map((wanted) => sets.find((set) => set.variant === wanted))
    .find((set) => set !== undefined)
  const pickle = own.find((file) => /\.(bin|ckpt|pt|pth)$/.test(file.path))
  if (!chosen && sets.length === 0 && pickle) throw pickled(repo, folder || 'the repository', pickle)
  if (!chosen)
    throw modelNotFound(
      `${repo}: expected ${folder}diffusion_pytorch_model.${variant ? `${variant}.` : ''}safetensors but there is none`
    )
  return [...own.filter((file) => file.path === `${folder}config.json`), ...chosen.files]
}

/**
 * @param index model_index.json
 * @param variant take this set of weights in every component that has it; without it fp16, else the plain files
 * @param weights false: configurations and tokenizers alone
 * @throws ERR_ND_UNSUPPORTED (a component in pickles alone), ERR_ND_MODEL_NOT_FOUND (no component has the variant)
 */
export const neededFiles = (
  repo: string,
  files: readonly RemoteFile[],
  index: Readonly<Record<string, unknown>>,
  variant?: string,
  weights = true
): RemoteFile[] => {
  const needed = files.filter((file) => file.path === 'model_index.json')
  let found = false
  const folders = Object.entries(index).flatMap(([component, entry]) => {
    if (component.startsWith('_') || notRun.has(component) || !Array.isArray(entry) || entry[1] === null) return []
    // Several ControlNets or adapters are one entry: `controlnet` and, in no list, `controlnet_1` and so on.
    const several = typeof entry[1] === 'string' && entry[1].startsWith('Multi')
    const numbered = files.map((file) => file.path.split('/')[0]!).filter((name) => /_\d+$/.test(name))
    return [component, ...(several ? new Set(numbered.filter((name) => name.replace(/_\d+$/, '') === component)) : [])]
  })
  for (const component of folders) {
    if (!/^\w+$/.test(component))
      throw modelFormat(`${repo}: expected names of components in model_index.json but received ${component}`)
    const folder = `${component}/`
    const own = directlyIn(files, folder)
    if (own.length === 0)
      throw modelNotFound(`${repo}: expected a folder ${folder} as model_index.json names it, but there is none`)
    needed.push(...own.filter(isSetting))
    if (!weights) continue
    const sets = weightSets(own, folder)
    const plain = sets.find((set) => set.variant === undefined)
    const wanted = sets.find((set) => set.variant === (variant ?? 'fp16'))
    found ||= wanted !== undefined
    const chosen = wanted ?? plain ?? sets[0]
    const pickle = own.find((file) => /\.(bin|ckpt|pt|pth)$/.test(file.path))
    if (!chosen && pickle) throw pickled(repo, folder, pickle)
    needed.push(...(chosen?.files ?? []))
  }
  if (weights && variant !== undefined && !found)
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

/** 'org/name/vae', or deeper: a folder of a repository, as a component by itself may be in one. */
export const parseRepoFolder = (source: string): { repo: string; folder: string } | undefined => {
  const match = /^([\w.-]+\/[\w.-]+)((?:\/[\w.-]+)*)$/.exec(source)
  if (!match || source.includes('..') || source.startsWith('.') || source.endsWith('.safetensors')) return undefined
  return { repo: match[1]!, folder: match[2]!.slice(1) && `${match[2]!.slice(1)}/` }
}

/** A file's name from the outside: it must stay in the folder that it is put in. */
export const checkPath = (path: string): string => {
  const parts = path.split('/')
  if (path === '' || /[\\:\0]/.test(path) || parts.some((part) => part === '' || part === '.' || part === '..'))
    throw invalidArgument('the path of a file in the repository', 'a relative path without ..', path)
  return path
}
