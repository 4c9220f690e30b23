/** ControlNets and T2I-Adapters for tests: made from the tiny models' own weights, or random, in every layout. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Generator, type Tensor } from 'node-diffusion'
import { reference } from './paths.js'
import { rawTensors } from './single-file.js'

export interface RawTensor {
  dtype: string
  shape: number[]
  bytes: Buffer
}

export const writeTensors = (path: string, tensors: ReadonlyMap<string, RawTensor>): void => {
  let at = 0
  const header: Record<string, unknown> = {}
  for (const [name, { dtype, shape, bytes }] of tensors)
    header[name] = { dtype, shape, data_offsets: [at, (at += bytes.length)] }
  const text = Buffer.from(JSON.stringify(header))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(text.length))
  writeFileSync(path, Buffer.concat([length, text, ...[...tensors.values()].map((t) => t.bytes)]))
}

const raw = (data: Float32Array, shape: number[]): RawTensor => ({
  dtype: 'F32',
  shape,
  bytes: Buffer.from(data.buffer, data.byteOffset, data.byteLength)
})

const zeros = (...shape: number[]): RawTensor => raw(new Float32Array(shape.reduce((a, b) => a * b, 1)), shape)

const identity = (n: number): RawTensor =>
  raw(
    Float32Array.from({ length: n * n }, (_, i) => (i % (n + 1) === 0 ? 1 : 0)),
    [n, n, 1, 1]
  )

interface UNetJson {
  block_out_channels: number[]
  layers_per_block: number
  [key: string]: unknown
}

export const unetJson = (model: string): UNetJson =>
  JSON.parse(readFileSync(reference('models', model, 'unet', 'config.json'), 'utf8')) as UNetJson

/**
 * A ControlNet that is the way down of a tiny model's own UNet, sees nothing of its picture, and hands on its maps as they
 * are: its residuals are the UNet's skips and middle.
 * @param change fields of its config.json, and tensors to put or (undefined) to leave out
 */
export const copyControlNet = (
  model: string,
  folder: string,
  change: { config?: Record<string, unknown>; tensors?: Record<string, RawTensor | undefined> } = {}
): string => {
  const json = unetJson(model)
  const widths = json.block_out_channels
  const own = rawTensors(reference('models', model, 'unet', 'diffusion_pytorch_model.safetensors'))
  const tensors = new Map<string, RawTensor>(
    [...own].filter(([name]) => /^(conv_in|time_embedding|add_embedding|down_blocks|mid_block)\./.test(name))
  )
  const skips = [
    widths[0]!,
    ...widths.flatMap((w, i) => Array<number>(json.layers_per_block + (i < widths.length - 1 ? 1 : 0)).fill(w))
  ]
  const put = (name: string, weight: RawTensor): void => {
    tensors.set(`${name}.weight`, weight)
    tensors.set(`${name}.bias`, zeros(weight.shape[0]!))
  }
  skips.forEach((w, i) => put(`controlnet_down_blocks.${i}`, identity(w)))
  put('controlnet_mid_block', identity(widths.at(-1)!))
  const e = 'controlnet_cond_embedding'
  put(`${e}.conv_in`, zeros(4, 3, 3, 3))
  for (const i of [0, 1, 2]) {
    put(`${e}.blocks.${2 * i}`, zeros(4, 4, 3, 3))
    put(`${e}.blocks.${2 * i + 1}`, zeros(4, 4, 3, 3))
  }
  put(`${e}.conv_out`, zeros(widths[0]!, 4, 3, 3))
  for (const [name, tensor] of Object.entries(change.tensors ?? {}))
    if (tensor) tensors.set(name, tensor)
    else tensors.delete(name)
  mkdirSync(folder, { recursive: true })
  const config = { ...json, conditioning_embedding_out_channels: [4, 4, 4, 4], ...change.config }
  writeFileSync(join(folder, 'config.json'), JSON.stringify({ ...config, _class_name: 'ControlNetModel' }))
  writeTensors(join(folder, 'diffusion_pytorch_model.safetensors'), tensors)
  return folder
}

/**
 * latent-diffusion's name of a tensor of a ControlNet, or of a UNet, with two residual blocks per level.
 * @param attends whether an up block has attention
 */
export const originalName = (name: string, attends: (upBlock: number) => boolean = () => false): string => {
  const resnet = (block: string, rest: string): string =>
    `${block}.0.` +
    rest
      .replace('norm1', 'in_layers.0')
      .replace('conv1', 'in_layers.2')
      .replace('time_emb_proj', 'emb_layers.1')
      .replace('norm2', 'out_layers.0')
      .replace('conv2', 'out_layers.3')
      .replace('conv_shortcut', 'skip_connection')
  let m: RegExpExecArray | null
  if ((m = /^controlnet_down_blocks\.(\d+)\.(.*)/.exec(name))) return `zero_convs.${m[1]}.0.${m[2]}`
  if ((m = /^controlnet_mid_block\.(.*)/.exec(name))) return `middle_block_out.0.${m[1]}`
  if ((m = /^controlnet_cond_embedding\.conv_in\.(.*)/.exec(name))) return `input_hint_block.0.${m[1]}`
  if ((m = /^controlnet_cond_embedding\.blocks\.(\d+)\.(.*)/.exec(name)))
    return `input_hint_block.${2 * Number(m[1]) + 2}.${m[2]}`
  if ((m = /^controlnet_cond_embedding\.conv_out\.(.*)/.exec(name))) return `input_hint_block.14.${m[1]}`
  if ((m = /^conv_in\.(.*)/.exec(name))) return `input_blocks.0.0.${m[1]}`
  if ((m = /^time_embedding\.linear_(\d)\.(.*)/.exec(name))) return `time_embed.${2 * Number(m[1]) - 2}.${m[2]}`
  if ((m = /^down_blocks\.(\d+)\.(\w+)\.(\d+)\.(.*)/.exec(name))) {
    const [, level, kind, index, rest] = m as unknown as [string, string, string, string, string]
    const block = `input_blocks.${1 + 3 * Number(level) + (kind === 'downsamplers' ? 2 : Number(index))}`
    if (kind === 'resnets') return resnet(block, rest)
    return kind === 'attentions' ? `${block}.1.${rest}` : `${block}.0.op.${rest.replace('conv.', '')}`
  }
  if ((m = /^up_blocks\.(\d+)\.(\w+)\.(\d+)\.(.*)/.exec(name))) {
    const [, level, kind, index, rest] = m as unknown as [string, string, string, string, string]
    const block = `output_blocks.${3 * Number(level) + (kind === 'upsamplers' ? 2 : Number(index))}`
    if (kind === 'resnets') return resnet(block, rest)
    return `${block}.${kind === 'upsamplers' && attends(Number(level)) ? 2 : 1}.${rest}`
  }
  if ((m = /^add_embedding\.linear_(\d)\.(.*)/.exec(name))) return `label_emb.0.${2 * Number(m[1]) - 2}.${m[2]}`
  if ((m = /^conv_norm_out\.(.*)/.exec(name))) return `out.0.${m[1]}`
  if ((m = /^conv_out\.(.*)/.exec(name))) return `out.2.${m[1]}`
  if ((m = /^mid_block\.attentions\.0\.(.*)/.exec(name))) return `middle_block.1.${m[1]}`
  if ((m = /^mid_block\.resnets\.(\d)\.(.*)/.exec(name)))
    return resnet('middle_block', m[2]!).replace('middle_block.0', `middle_block.${2 * Number(m[1])}`)
  throw new Error(`no original name for ${name}`)
}

/** tiny-controlnet-sd15 as one file: in the original layout, with or without its prefix, or with diffusers' names. */
export const writeControlNetFile = (path: string, layout: 'control_model.' | '' | 'diffusers'): string => {
  const file = reference('models', 'tiny-controlnet-sd15', 'diffusion_pytorch_model.safetensors')
  const renamed = [...rawTensors(file)].map(
    ([name, tensor]) => [layout === 'diffusers' ? name : layout + originalName(name), tensor] as const
  )
  writeTensors(path, new Map(renamed))
  return path
}

export interface AdapterJson {
  adapter_type: 'full_adapter' | 'full_adapter_xl' | 'light_adapter'
  in_channels: number
  channels: number[]
  num_res_blocks: number
  downscale_factor: number
}

/** A convolution of NCHW numbers with stride 1, by the definition. */
const convolved = (x: Tensor, weight: Tensor, bias: Float32Array): Tensor => {
  const [, c, h, w] = x.shape as [number, number, number, number]
  const [n, , k] = weight.shape as [number, number, number]
  const pad = (k - 1) / 2
  const data = new Float32Array(n * h * w)
  for (let o = 0; o < n; o++)
    for (let y = 0; y < h; y++)
      for (let col = 0; col < w; col++) {
        let sum = bias[o]!
        for (let i = 0; i < c; i++)
          for (let dy = 0; dy < k; dy++)
            for (let dx = 0; dx < k; dx++) {
              const [yy, xx] = [y + dy - pad, col + dx - pad]
              if (yy >= 0 && yy < h && xx >= 0 && xx < w)
                sum += x.data[(i * h + yy) * w + xx]! * weight.data[((o * c + i) * k + dy) * k + dx]!
            }
        data[(o * h + y) * w + col] = sum
      }
  return { data, shape: [1, n, h, w] }
}

/** Means of 2 × 2, of fewer at odd edges. */
const pooled = (x: Tensor): Tensor => {
  const [, c, h, w] = x.shape as [number, number, number, number]
  const [oh, ow] = [Math.ceil(h / 2), Math.ceil(w / 2)]
  const data = new Float32Array(c * oh * ow)
  for (let i = 0; i < c; i++)
    for (let y = 0; y < oh; y++)
      for (let col = 0; col < ow; col++) {
        const inside = [0, 1, 2, 3]
          .map((k) => [2 * y + (k >> 1), 2 * col + (k & 1)] as const)
          .filter(([yy, xx]) => yy < h && xx < w)
          .map(([yy, xx]) => x.data[(i * h + yy) * w + xx]!)
        data[(i * oh + y) * ow + col] = inside.reduce((a, b) => a + b, 0) / inside.length
      }
  return { data, shape: [1, c, oh, ow] }
}

/**
 * A random T2I-Adapter in `folder`, and the maps that it makes of RGB bytes by the definition (Mou et al. 2023; diffusers'
 * FullAdapter, FullAdapterXL, LightAdapter).
 */
export const randomAdapter = (
  folder: string,
  json: AdapterJson
): ((picture: { data: Uint8Array; width: number; height: number }) => Tensor[]) => {
  const random = new Generator(json.channels.length + json.downscale_factor)
  const tensors = new Map<string, RawTensor>()
  const values = new Map<string, Tensor>()
  const add = (name: string, out: number, input: number, k: number): ((x: Tensor) => Tensor) => {
    const weight = random.randn([out, input, k, k])
    weight.data.forEach((v, i) => (weight.data[i] = v / Math.sqrt(input * k)))
    const bias = random.randn([out])
    for (const [field, t] of [
      ['weight', weight],
      ['bias', bias]
    ] as const) {
      tensors.set(`adapter.${name}.${field}`, raw(t.data, [...t.shape]))
      values.set(`${name}.${field}`, t)
    }
    return (x) => convolved(x, weight, bias.data)
  }
  const light = json.adapter_type === 'light_adapter'
  const f = json.downscale_factor
  const tiles = json.in_channels * f * f
  const convIn = light ? undefined : add('conv_in', json.channels[0]!, tiles, 3)
  const widths = light ? [...json.channels, json.channels.at(-1)!] : json.channels
  const blocks = widths.map((to, i) => {
    const from = i > 0 ? widths[i - 1]! : light ? tiles : to
    const width = light ? to / 4 : to
    const enter = light || from !== to ? add(`body.${i}.in_conv`, width, from, 1) : undefined
    const resnets = Array.from({ length: json.num_res_blocks }, (_, j) => [
      add(`body.${i}.resnets.${j}.block1`, width, width, 3),
      add(`body.${i}.resnets.${j}.block2`, width, width, light ? 3 : 1)
    ])
    const leave = light ? add(`body.${i}.out_conv`, to, width, 1) : undefined
    const down = json.adapter_type === 'full_adapter_xl' ? i === 2 : i > 0
    return (x: Tensor): Tensor => {
      let h = down ? pooled(x) : x
      h = enter?.(h) ?? h
      for (const [first, second] of resnets) {
        const inner = first!(h)
        const outer = second!({ ...inner, data: inner.data.map((v) => Math.max(v, 0)) })
        h = { ...h, data: h.data.map((v, k) => v + outer.data[k]!) }
      }
      return leave?.(h) ?? h
    }
  })
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, 'config.json'), JSON.stringify({ ...json, _class_name: 'T2IAdapter' }))
  writeTensors(join(folder, 'diffusion_pytorch_model.safetensors'), tensors)

  return ({ data, width, height }) => {
    const [h, w] = [height / f, width / f]
    const out = new Float32Array(tiles * h * w)
    for (let i = 0; i < out.length; i++) {
      const [x, y, channel] = [i % w, Math.floor(i / w) % h, Math.floor(i / (w * h))]
      const [dx, dy, c] = [channel % f, Math.floor(channel / f) % f, Math.floor(channel / (f * f))]
      out[i] = data[((y * f + dy) * width + x * f + dx) * 3 + c]! / 255
    }
    let map: Tensor = { data: out, shape: [1, tiles, h, w] }
    map = convIn?.(map) ?? map
    return blocks.map((block) => (map = block(map)))
  }
}
