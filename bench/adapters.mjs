// How long a LoRA of rank 16 takes to come, to change and to go, in a model of Stable Diffusion 1.5's shapes:
//   node bench/adapters.mjs [FOLDER]   (default: a model with random weights in bench/out)
import { join, dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { closeSync, mkdirSync, openSync, readFileSync, writeSync } from 'node:fs'
import { Pipeline } from '../dist/index.js'
import { randomSd15 } from './random-model.mjs'

const here = dirname(fileURLToPath(import.meta.url))
const rank = 16

/** Writes a LoRA of every linear layer (and 1 × 1 convolution) of the transformers and the text encoder, as kohya's default. */
const writeLora = (path) => {
  const names = JSON.parse(readFileSync(join(here, 'names', 'sd15.json'), 'utf8'))
  const tensors = []
  for (const [component, prefix] of [
    ['unet', 'lora_unet_'],
    ['text_encoder', 'lora_te_']
  ])
    for (const [name, shape] of Object.entries(names[component])) {
      const linear = /(attentions\.\d+\.|mlp|self_attn).*\.weight$/.test(name) && !/norm/.test(name)
      if (!linear || shape.length < 2) continue
      const module = prefix + name.replace(/\.weight$/, '').replaceAll('.', '_')
      tensors.push([`${module}.lora_down.weight`, [rank, ...shape.slice(1)]])
      tensors.push([`${module}.lora_up.weight`, [shape[0], rank, ...shape.slice(2)]])
    }
  let offset = 0
  const header = {}
  for (const [name, shape] of tensors) {
    const bytes = 2 * shape.reduce((a, b) => a * b, 1)
    header[name] = { dtype: 'F16', shape, data_offsets: [offset, (offset += bytes)] }
  }
  let text = JSON.stringify(header)
  while (text.length % 8) text += ' '
  const size = Buffer.alloc(8)
  size.writeBigUInt64LE(BigInt(text.length))
  const file = openSync(path, 'w')
  writeSync(file, Buffer.concat([size, Buffer.from(text)]))
  const values = Uint16Array.from({ length: offset / 2 }, (_, i) => ((i * 2654435761) & 0x83ff) | 0x2000) // about ±0.01
  writeSync(file, Buffer.from(values.buffer))
  closeSync(file)
  return { modules: tensors.length / 2, bytes: offset }
}

const folder = process.argv[2] ?? (await randomSd15())
const path = join(here, 'out', `lora-${rank}.safetensors`)
mkdirSync(dirname(path), { recursive: true })
const lora = writeLora(path)
const pipe = await Pipeline.fromPretrained(folder)
const seconds = {}
/** Elapsed, and of the processor: on a busy machine only the second tells. */
const timed = async (name, run) => {
  const started = performance.now()
  const cpu = process.cpuUsage()
  await run()
  const { user, system } = process.cpuUsage(cpu)
  seconds[name] = { elapsed: (performance.now() - started) / 1000, user: user / 1e6, system: system / 1e6 }
}
const weights = async () => (await pipe.memory()).weights
const before = await weights()
await timed('load', () => pipe.loadLora(path, { name: 'a' }))
const during = await weights()
await timed('change', () => pipe.setLoras([{ name: 'a', strength: 0.5 }]))
await timed('same', () => pipe.setLoras([{ name: 'a', strength: 0.5 }]))
await timed('off', () => pipe.setLoras([]))
const after = await weights()
await pipe.dispose()
console.log(JSON.stringify({ lora, seconds, weights: { before, during, after } }, null, 2))
