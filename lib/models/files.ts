import { readFile, readdir, stat } from 'node:fs/promises'
import { DiffusionError, modelFormat } from '../errors.js'
import { parseConfigJson } from '../json.js'
import { isObject, type ConfigJson } from './config-reader.js'

export const modelNotFound = (message: string, cause?: unknown): DiffusionError =>
  new DiffusionError('ERR_ND_MODEL_NOT_FOUND', message, cause === undefined ? undefined : { cause })

const reason = (error: unknown): string =>
  (error as NodeJS.ErrnoException).code === 'ENOENT' ? 'it does not exist' : (error as Error).message

export const isFolder = async (path: string): Promise<boolean> =>
  stat(path).then(
    (info) => info.isDirectory(),
    () => false
  )

export const isFile = async (path: string): Promise<boolean> =>
  stat(path).then(
    (info) => info.isFile(),
    () => false
  )

/** Names in a folder, sorted. `what` names it in the error. */
export const listFolder = async (path: string, what: string): Promise<string[]> => {
  try {
    return (await readdir(path)).sort()
  } catch (error) {
    throw modelNotFound(`${path}: expected a folder (${what}) but ${reason(error)}; check the path`, error)
  }
}

/** A JSON file whose value is an object. `what` names it in the error. */
export const readJson = async (path: string, what: string): Promise<ConfigJson> => {
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (error) {
    throw modelNotFound(`${path}: expected a readable file (${what}) but ${reason(error)}`, error)
  }
  let json: unknown
  try {
    json = parseConfigJson(text)
  } catch (error) {
    const remedy = text.startsWith('version https://git-lfs')
      ? 'this is a Git LFS pointer; fetch the file with `git lfs pull` or download it again'
      : (error as Error).message
    throw modelFormat(`${path}: expected valid JSON (${what}) but ${remedy}`)
  }
  if (!isObject(json))
    throw modelFormat(`${path}: expected a JSON object (${what}) but received ${JSON.stringify(json).slice(0, 60)}`)
  return json
}
