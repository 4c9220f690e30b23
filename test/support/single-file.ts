/**
 * Checkpoints in the original layouts for tests. test/reference/single-file has, made from diffusers' own converters to
 * the original layout (make.py): tiny-*.json.gz, how a tiny model's single file follows from its folder byte for byte, and
 * the names and shapes of real models in both layouts.
 */
import { createHash } from 'node:crypto'
import { readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import type { DiffusionError } from 'node-diffusion'
import * as assert from 'uvu/assert'
import { originalName } from './control-models.js'
import { reference } from './paths.js'

export type Shapes = Record<string, number[]>

const readGzip = (name: string): unknown =>
  JSON.parse(gunzipSync(readFileSync(reference('single-file', `${name}.json.gz`))).toString('utf8'))

/** Names and shapes of a real model's single file. */
export const singleFileShapes = (name: string): Shapes => readGzip(`${name}.single-file`) as Shapes
/** Names and shapes of the same model's components in the diffusers layout. */
export const folderShapes = (name: string): Record<string, Shapes> => readGzip(name) as Record<string, Shapes>

interface Recipe {
  sha256: string
  header: string
  tensors: [name: string, shape: number[], parts: string[] | string, transposed: boolean][]
}

/** A safetensors file's header and the bytes of each tensor. */
export const rawTensors = (path: string): Map<string, { dtype: string; shape: number[]; bytes: Buffer }> => {
  const file = readFileSync(path)
  const length = Number(file.readBigUInt64LE(0))
  const header = JSON.parse(file.toString('utf8', 8, 8 + length)) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >
  const data = file.subarray(8 + length)
  return new Map(
    Object.entries(header)
      .filter(([name]) => name !== '__metadata__')
      .map(([name, { dtype, shape, data_offsets }]) => [name, { dtype, shape, bytes: data.subarray(...data_offsets) }])
  )
}

const transpose = ({ shape, bytes }: { shape: number[]; bytes: Buffer }): Buffer => {
  const [rows, columns] = shape as [number, number]
  const out = Buffer.alloc(bytes.length)
  for (let r = 0; r < rows; r++)
    for (let c = 0; c < columns; c++)
      bytes.copy(out, 2 * (c * rows + r), 2 * (r * columns + c), 2 * (r * columns + c) + 2)
  return out
}

/** Writes the single file of tiny-NAME to `path`; its hash is that of the reference file. */
export const writeTinySingleFile = (name: string, path: string): void => {
  const { sha256, header, tensors } = readGzip(`tiny-${name}`) as Recipe
  const files = new Map<string, ReturnType<typeof rawTensors>>()
  const part = (source: string) => {
    const [component, tensor] = source.split('/') as [string, string]
    const base = component.startsWith('text') ? 'model' : 'diffusion_pytorch_model'
    if (!files.has(component))
      files.set(component, rawTensors(reference('models', `tiny-${name}`, component, `${base}.safetensors`)))
    return files.get(component)!.get(tensor)!
  }
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(Buffer.byteLength(header)))
  const bytes = tensors.flatMap(([, , parts, transposed]) => {
    if (typeof parts === 'string') return [Buffer.from(parts, 'base64')]
    return parts.map((source) => (transposed ? transpose(part(source)) : part(source).bytes))
  })
  const file = Buffer.concat([length, Buffer.from(header), ...bytes])
  const hash = createHash('sha256').update(file).digest('hex')
  if (hash !== sha256) throw new Error(`tiny-${name}: the file made has another hash than the reference file`)
  writeFileSync(path, file)
}

/**
 * The tensors of SDXL's refiner in generative-models' layout: its UNet's by their diffusers names, its VAE and its only text
 * encoder as in the base's single file.
 */
export const refinerFile = <T>(
  unet: Iterable<readonly [name: string, tensor: T]>,
  base: Iterable<readonly [name: string, tensor: T]>
): [name: string, tensor: T][] => {
  const own = [...unet]
  const attends = (level: number): boolean => own.some(([name]) => name.startsWith(`up_blocks.${level}.attentions.`))
  return [
    ...own.map(([name, t]): [string, T] => [`model.diffusion_model.${originalName(name, attends)}`, t]),
    ...[...base].flatMap(([name, t]): [string, T][] => {
      if (name.startsWith('first_stage_model.')) return [[name, t]]
      const second = 'conditioner.embedders.1.'
      return name.startsWith(second) ? [[name.replace(second, 'conditioner.embedders.0.'), t]] : []
    })
  ]
}

/** Writes a safetensors file of F16 zeros. */
export const writeShapes = (path: string, shapes: Shapes, metadata?: Record<string, string>): void => {
  let offset = 0
  const header: Record<string, unknown> = metadata ? { __metadata__: metadata } : {}
  for (const [name, shape] of Object.entries(shapes)) {
    const bytes = 2 * shape.reduce((n, d) => n * d, 1)
    header[name] = { dtype: 'F16', shape, data_offsets: [offset, (offset += bytes)] }
  }
  const text = Buffer.from(JSON.stringify(header))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(text.length))
  writeFileSync(path, Buffer.concat([length, text]))
  truncateSync(path, 8 + text.length + offset) // zeros that take no room
}

/** The body must reject with this code and a message that has every text. */
export const rejects = async (body: () => unknown, code: string, ...texts: (string | RegExp)[]): Promise<void> => {
  let error: unknown
  try {
    await body()
  } catch (caught) {
    error = caught
  }
  assert.ok(error instanceof Error, `expected ${code}`)
  assert.is((error as DiffusionError).code, code, error.message)
  for (const text of texts) assert.match(error.message, text)
}

/** Writes a safetensors file of these tensors: names, and what rawTensors() gives. */
export const writeTensors = (
  path: string,
  tensors: Iterable<readonly [name: string, tensor: { dtype: string; shape: number[]; bytes: Buffer }]>
): void => {
  const header: Record<string, unknown> = {}
  const parts: Buffer[] = []
  let offset = 0
  for (const [name, { dtype, shape, bytes }] of tensors) {
    header[name] = { dtype, shape, data_offsets: [offset, (offset += bytes.length)] }
    parts.push(bytes)
  }
  const text = Buffer.from(JSON.stringify(header))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(text.length))
  writeFileSync(path, Buffer.concat([length, text, ...parts]))
}
