/** Model folders put together from the references' files: tiny models share tokenizers and autoencoders. */
import { cpSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { reference } from './paths.js'

/** tiny-sd15-inpaint (9 channels), which has tiny-sd15's tokenizer and autoencoder, in `folder`. */
export const inpaintModel = (folder: string): string => {
  cpSync(reference('models', 'tiny-sd15'), folder, { recursive: true })
  cpSync(reference('models', 'tiny-sd15-inpaint'), folder, { recursive: true, force: true })
  return folder
}

/** NAME's own files in `folder`, and components that are equal to other models': [of this model, model, of that one]. */
const assembled = (name: string, folder: string, shared: readonly (readonly [string, string, string])[]): string => {
  for (const [component, model, theirs] of shared)
    cpSync(reference('models', model, theirs), join(folder, component), { recursive: true })
  cpSync(reference('models', name), folder, { recursive: true, force: true })
  return folder
}
const ofSd15 = [
  ['tokenizer', 'tiny-sd15', 'tokenizer'],
  ['text_encoder', 'tiny-sd15-inpaint', 'text_encoder'],
  ['vae', 'tiny-sd15', 'vae']
] as const

/** tiny-lcm: guidance is embedded into the time (Luo et al. 2023). */
export const lcmModel = (folder: string): string => assembled('tiny-lcm', folder, ofSd15)
/** tiny-instruct-pix2pix: 8 channels. */
export const editModel = (folder: string): string => assembled('tiny-instruct-pix2pix', folder, ofSd15)
/** tiny-sdxl-refiner: the second text encoder alone, and aesthetic scores. */
export const refinerModel = (folder: string): string =>
  assembled('tiny-sdxl-refiner', folder, [
    ['tokenizer_2', 'tiny-sdxl', 'tokenizer_2'],
    ['text_encoder_2', 'tiny-sdxl', 'text_encoder_2'],
    ['vae', 'tiny-sdxl', 'vae'],
    ['scheduler', 'tiny-sdxl', 'scheduler']
  ])

/** tiny-upscaler: 7 channels, a low_res_scheduler. */
export const upscalerModel = (folder: string): string =>
  assembled('tiny-upscaler', folder, [
    ['tokenizer', 'tiny-sd15', 'tokenizer'],
    ['text_encoder', 'tiny-sd15', 'text_encoder']
  ])

export const editJson = (path: string, change: (json: Record<string, unknown>) => void): void => {
  const json = JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>
  change(json)
  writeFileSync(path, JSON.stringify(json))
}

interface Entry {
  dtype: string
  shape: number[]
  data_offsets: [number, number]
}

/** Cuts a float16 tensor of the UNet's file down to `keep` entries along dimension 1: a narrower input. */
export const narrow = (folder: string, name: string, keep: number): void => {
  const path = join(folder, 'unet', 'diffusion_pytorch_model.safetensors')
  const bytes = readFileSync(path)
  const length = Number(bytes.readBigUInt64LE(0))
  const header = JSON.parse(bytes.toString('utf8', 8, 8 + length)) as Record<string, Entry>
  const parts: Buffer[] = []
  let at = 0
  for (const [key, entry] of Object.entries(header)) {
    if (key === '__metadata__') continue
    const [from, to] = entry.data_offsets
    let data = bytes.subarray(8 + length + from, 8 + length + to)
    if (key === name) {
      const [rows, columns, ...kernel] = entry.shape as [number, number, ...number[]]
      const each = kernel.reduce((a, b) => a * b, 2) // bytes per entry
      data = Buffer.concat(
        Array.from({ length: rows }, (_, r) => data.subarray(r * columns * each, (r * columns + keep) * each))
      )
      entry.shape = [rows, keep, ...kernel]
    }
    entry.data_offsets = [at, at + data.length]
    at += data.length
    parts.push(data)
  }
  const text = Buffer.from(JSON.stringify(header))
  const size = Buffer.alloc(8)
  size.writeBigUInt64LE(BigInt(text.length))
  writeFileSync(path, Buffer.concat([size, text, ...parts]))
}
