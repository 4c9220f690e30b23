/** What `source` of fromPretrained means: a path here, the bundled model, a repository of the hub, or an address. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { packageRoot } from './binding.js'
import { DiffusionError, invalidArgument, unsupported } from './errors.js'
import type { HubOptions, Located } from './hub/index.js'
import { parseRepo } from './hub/select.js'

/** @throws ERR_ND_INVALID_ARGUMENT, ERR_ND_UNSUPPORTED (pickles), and as lib/hub's locate */
export const resolveSource = async (source: unknown, options: HubOptions): Promise<Located> => {
  if (typeof source !== 'string' || source === '')
    throw invalidArgument(
      'source',
      "the path of a model's folder or .safetensors file, the name of a repository on the hub, an https address, or 'postcard'",
      source
    )
  if (/\.(ckpt|pt|pth|bin)$/.test(source))
    throw unsupported(
      `${source}: pickled weights can run code and are not loaded; convert the model with diffusers' save_pretrained(folder, safe_serialization=True)`
    )
  if (existsSync(source)) return { path: source, warnings: [] }
  if (source === 'postcard') return { path: join(packageRoot, 'models', 'postcard'), warnings: [] }
  if (!/^https?:\/\//.test(source) && !parseRepo(source)) return { path: source, warnings: [] }
  const { locate } = await import('./hub/index.js') // only those who download load the hub's client
  try {
    return await locate(source, options)
  } catch (error) {
    if (!(error instanceof DiffusionError) || /^https?:/.test(source)) throw error
    throw new DiffusionError(error.code, `${error.message}. (Nor is there a folder or file ${source} here.)`, {
      cause: error
    })
  }
}
