// A model of Stable Diffusion 1.5's shapes with random weights, in the diffusers layout: what the speed of a real one
// depends on, without its gigabytes in the repository. names/sd15.json holds tensor names and shapes. Other programs get
// the same shapes as one checkpoint in the original layout, whose names the tests have.
import { createWriteStream, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { once } from 'node:events'
import { gunzipSync } from 'node:zlib'
import { fileURLToPath } from 'node:url'
import { vocabularySymbols } from '../dist/tokenizer/byte-symbols.js'

const here = dirname(fileURLToPath(import.meta.url))

const configs = {
  'model_index.json': {
    _class_name: 'StableDiffusionPipeline',
    scheduler: ['diffusers', 'PNDMScheduler'],
    text_encoder: ['transformers', 'CLIPTextModel'],
    tokenizer: ['transformers', 'CLIPTokenizer'],
    unet: ['diffusers', 'UNet2DConditionModel'],
    vae: ['diffusers', 'AutoencoderKL']
  },
  'scheduler/scheduler_config.json': {
    _class_name: 'PNDMScheduler',
    beta_start: 0.00085,
    beta_end: 0.012,
    beta_schedule: 'scaled_linear',
    skip_prk_steps: true,
    set_alpha_to_one: false,
    steps_offset: 1
  },
  'unet/config.json': {
    _class_name: 'UNet2DConditionModel',
    sample_size: 64,
    cross_attention_dim: 768,
    attention_head_dim: 8
  },
  'vae/config.json': {
    _class_name: 'AutoencoderKL',
    block_out_channels: [128, 256, 512, 512],
    down_block_types: Array(4).fill('DownEncoderBlock2D'),
    up_block_types: Array(4).fill('UpDecoderBlock2D'),
    layers_per_block: 2,
    sample_size: 512
  },
  'text_encoder/config.json': {
    architectures: ['CLIPTextModel'],
    hidden_size: 768,
    intermediate_size: 3072,
    num_hidden_layers: 12,
    num_attention_heads: 12,
    hidden_act: 'quick_gelu',
    vocab_size: 49408
  }
}
const weightFiles = { unet: 'diffusion_pytorch_model', vae: 'diffusion_pytorch_model', text_encoder: 'model' }

const floatToHalf = (x) => {
  const f = new Float32Array([x])
  const bits = new Uint32Array(f.buffer)[0]
  const exponent = ((bits >>> 23) & 255) - 112
  if (exponent <= 0) return (bits >>> 16) & 0x8000 // small ones to zero: they do not matter here
  return ((bits >>> 16) & 0x8000) | (exponent << 10) | ((bits >>> 13) & 1023)
}

/** Normal numbers of a small generator; the period is no power of two, so that rows differ. */
const pool = (() => {
  let state = 1
  const uniform = () => ((state = (Math.imul(state, 1664525) + 1013904223) >>> 0) + 0.5) / 2 ** 32
  return Float64Array.from(
    { length: 1_000_003 },
    () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform())
  )
})()
const pools = new Map()
/** The pool as F16 of that mean and deviation. */
const halves = (mean, deviation) => {
  const key = `${mean} ${deviation}`
  if (!pools.has(key))
    pools.set(key, Buffer.from(Uint16Array.from(pool, (v) => floatToHalf(mean + deviation * v)).buffer))
  return pools.get(key)
}

const fill = (name, shape) => {
  const count = shape.reduce((a, b) => a * b, 1)
  const norm = shape.length === 1 && name.endsWith('.weight')
  const fanIn = count / shape[0]
  const source =
    shape.length === 1 ? halves(norm ? 1 : 0, 0.02) : halves(0, Number((1 / Math.sqrt(fanIn)).toPrecision(3)))
  const out = Buffer.allocUnsafe(count * 2)
  for (let at = 0; at < out.length; at += source.length)
    source.copy(out, at, 0, Math.min(source.length, out.length - at))
  return out
}

const writeSafetensors = async (path, tensors) => {
  const header = {}
  let offset = 0
  for (const [name, shape] of Object.entries(tensors)) {
    const bytes = 2 * shape.reduce((a, b) => a * b, 1)
    header[name] = { dtype: 'F16', shape, data_offsets: [offset, offset + bytes] }
    offset += bytes
  }
  let text = JSON.stringify(header)
  text += ' '.repeat((8 - (text.length % 8)) % 8)
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(text.length))
  const file = createWriteStream(path)
  file.write(length)
  file.write(text)
  for (const [name, shape] of Object.entries(tensors)) if (!file.write(fill(name, shape))) await once(file, 'drain')
  file.end()
  await once(file, 'close')
}

/** Path of the model's folder; it is written on first use (2.1 GB). */
export const randomSd15 = async (folder = join(here, 'out', 'sd15-random')) => {
  if (existsSync(folder)) return folder
  const partial = `${folder}.partial`
  rmSync(partial, { recursive: true, force: true })
  for (const [file, config] of Object.entries(configs)) {
    mkdirSync(dirname(join(partial, file)), { recursive: true })
    writeFileSync(join(partial, file), JSON.stringify(config, null, 1))
  }
  const names = JSON.parse(readFileSync(join(here, 'names', 'sd15.json'), 'utf8'))
  for (const [component, base] of Object.entries(weightFiles))
    await writeSafetensors(join(partial, component, `${base}.safetensors`), names[component])
  // CLIP's own vocabulary, as a tokenizer's folder has it.
  const merges = readFileSync(join(here, '..', 'lib', 'tokenizer', 'clip-merges.txt'), 'utf8')
  const joined = merges
    .split('\n')
    .slice(1)
    .filter(Boolean)
    .map((merge) => merge.replace(' ', ''))
  const tokens = [
    ...vocabularySymbols,
    ...vocabularySymbols.map((s) => `${s}</w>`),
    ...joined,
    '<|startoftext|>',
    '<|endoftext|>'
  ]
  mkdirSync(join(partial, 'tokenizer'))
  writeFileSync(
    join(partial, 'tokenizer', 'vocab.json'),
    JSON.stringify(Object.fromEntries(tokens.map((t, i) => [t, i])))
  )
  writeFileSync(join(partial, 'tokenizer', 'merges.txt'), merges)
  renameSync(partial, folder)
  return folder
}

/** Path of the checkpoint in the original layout; it is written on first use (2.1 GB). */
export const randomSd15File = async (path = join(here, 'out', 'sd15-random.safetensors')) => {
  if (existsSync(path)) return path
  const names = join(here, '..', 'test', 'reference', 'single-file', 'sd15.single-file.json.gz')
  mkdirSync(dirname(path), { recursive: true })
  await writeSafetensors(`${path}.partial`, JSON.parse(gunzipSync(readFileSync(names)).toString('utf8')))
  renameSync(`${path}.partial`, path)
  return path
}
