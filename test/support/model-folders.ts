/** Copies of the tiny models, to change and to break. */
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { DiffusionError } from '#lib/errors.js'
import { readModelFolder, type ModelFolder } from '#lib/models/folder.js'
import { reference } from './paths.js'
import { TestFile } from './safetensors.js'

export const readHeader = (path: string) => ({ tensors: new TestFile(path).names.map((name) => ({ name })) })
export const read = (path: string, variant?: string): Promise<ModelFolder> =>
  readModelFolder(path, variant === undefined ? { readHeader } : { readHeader, variant })
export const tiny = (name: string): string => reference('models', `tiny-${name}`)

export const failsWith = async (body: () => unknown, code: string, ...texts: (string | RegExp)[]): Promise<void> => {
  let error: unknown
  try {
    await body()
  } catch (caught) {
    error = caught
  }
  assert.instance(error, DiffusionError, `expected ${code}`)
  assert.is((error as DiffusionError).code, code, (error as Error).message)
  for (const text of texts) assert.match((error as Error).message, text)
}

const folders: string[] = []
/** A copy of a reference model that a test may break. */
export const copyOf = async (name: string): Promise<string> => {
  const parent = await mkdtemp(join(tmpdir(), 'nd-models-'))
  folders.push(parent)
  const path = join(parent, name)
  await cp(tiny(name), path, { recursive: true })
  return path
}
/** To be called when the tests have run. */
export const removeCopies = async (): Promise<void> => {
  for (const folder of folders) await rm(folder, { recursive: true })
}

/** Untyped JSON that a test changes. */
export type Json = ReturnType<typeof JSON.parse>

export const edit = async (path: string, change: (json: Json) => void): Promise<void> => {
  const json = JSON.parse(await readFile(path, 'utf8'))
  change(json)
  await writeFile(path, JSON.stringify(json))
}

export const names = (component: { weights: { tensors: readonly { name: string }[] } } | null): string[] =>
  component!.weights.tensors.map((t) => t.name).sort()
