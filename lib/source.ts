/** What `source` of fromPretrained means: a path here, the bundled model, a repository of the hub, or an address. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { packageRoot } from './binding.js'
import { DiffusionError, invalidArgument, unsupported } from './errors.js'
import type { HubOptions, Located, Want } from './hub/index.js'
import { parseRepo, parseRepoFolder } from './hub/select.js'

const noPickle = (source: string): void => {
  if (/\.(ckpt|pt|pth|bin)$/.test(source))
    throw unsupported(
      `${source}: pickled weights can run code and are not loaded; convert the model with diffusers' save_pretrained(folder, safe_serialization=True)`
    )
}

/** Asks the hub's client, which only those load who download. */
const fromHub = async (source: string, options: HubOptions, want: Want): Promise<Located> => {
  const { locate } = await import('./hub/index.js')
  try {
    return await locate(source, options, want)
  } catch (error) {
    if (!(error instanceof DiffusionError) || /^https?:/.test(source)) throw error
    throw new DiffusionError(error.code, `${error.message}. (Nor is there a folder or file ${source} here.)`, {
      cause: error
    })
  }
}

/** @throws ERR_ND_INVALID_ARGUMENT, ERR_ND_UNSUPPORTED (pickles), and as lib/hub's locate */
export const resolveSource = async (
  source: unknown,
  options: HubOptions,
  want: 'model' | 'configs' = 'model'
): Promise<Located> => {
  if (typeof source !== 'string' || source === '')
    throw invalidArgument(
      'source',
      "the path of a model's folder or .safetensors file, the name of a repository on the hub, an https address, or 'postcard'",
      source
    )
  noPickle(source)
  if (existsSync(source)) return { path: source, warnings: [] }
  if (source === 'postcard') return { path: join(packageRoot, 'models', 'postcard'), warnings: [] }
  if (!/^https?:\/\//.test(source) && !parseRepo(source)) return { path: source, warnings: [] }
  return fromHub(source, options, want)
}

/** What of LoadOptions is for a model's own files, and not for those of another repository or address. */
const shared = ({ cacheDir, token, localFilesOnly, signal, onProgress }: HubOptions): HubOptions => ({
  cacheDir,
  token,
  localFilesOnly,
  signal,
  onProgress
})

/**
 * A component that stands by itself (an autoencoder, a ControlNet): a folder with config.json, or with a folder `component` that has
 * one (a whole model); a .safetensors file; 'org/name', 'org/name/folder' or 'org/name/file.safetensors' on the hub; an address.
 * @throws as resolveSource
 */
export const resolveComponent = async (
  name: string,
  source: unknown,
  component: string,
  options: HubOptions
): Promise<Located> => {
  if (typeof source !== 'string' || source === '')
    throw invalidArgument(name, 'a path, the name of a repository on the hub or an https address', source)
  noPickle(source)
  if (existsSync(source)) {
    const inside = join(source, component)
    const whole = !existsSync(join(source, 'config.json')) && existsSync(join(inside, 'config.json'))
    return { path: whole ? inside : source, warnings: [] }
  }
  if (!/^https?:\/\//.test(source) && !parseRepo(source) && !parseRepoFolder(source))
    return { path: source, warnings: [] }
  return fromHub(source, options, { component })
}

/**
 * A file of weights that is given by itself (a LoRA): a path as it is; 'org/name/file.safetensors' or an address is brought here.
 * @throws as resolveSource
 */
export const resolveFile = async (source: string): Promise<string> => {
  if (typeof source !== 'string' || existsSync(source)) return source
  if (!/^https?:\/\//.test(source) && parseRepo(source)?.file === undefined) return source
  return (await fromHub(source, {}, 'model')).path
}

/** The model, and what the options `vae` and `config` name. */
export const resolveSources = async (
  source: unknown,
  options: HubOptions & { vae?: unknown; config?: unknown }
): Promise<Located & { vae: string | undefined; config: string | undefined }> => {
  const { vae, config } = options
  for (const [name, value] of Object.entries({ config, vae }))
    if (value !== undefined && (typeof value !== 'string' || value === ''))
      throw invalidArgument(name, 'a path, the name of a repository on the hub or an https address', value)
  const model = await resolveSource(source, options)
  const others = [
    vae === undefined ? undefined : await resolveComponent('vae', vae, 'vae', shared(options)),
    config === undefined ? undefined : await resolveSource(config, shared(options), 'configs')
  ]
  return {
    ...model,
    warnings: [...model.warnings, ...others.flatMap((other) => other?.warnings ?? [])],
    vae: others[0]?.path,
    config: others[1]?.path
  }
}
