/** IP-Adapters against diffusers: plain, Plus, Full Face, several, scales by block, embeddings, SDXL; and what is refused. */
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DDIMScheduler, Pipeline, type RawImage, type Tensor, type Txt2ImgOptions } from 'node-diffusion'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { family, optionsOf } from './support/cases.js'
import { pictureError, relativeError } from './support/compare.js'
import { fails } from './support/fails.js'
import { reference } from './support/paths.js'
import { rawTensors } from './support/single-file.js'
import { TestFile } from './support/safetensors.js'

const test = suite('ip-adapter')
const folder = mkdtempSync(join(tmpdir(), 'nd-ip-adapter-'))
const cases = new TestFile(reference('tiny', 'ip-adapter.safetensors'))
const imageEncoder = reference('models', 'tiny-clip-vision')
const adapter = (name: string): string => reference('models', `tiny-ip-adapter${name}.safetensors`)
const picture = (file: TestFile, name: string): RawImage => {
  const { data, shape } = file.get(name)
  return { data: data as Uint8Array, width: shape[1]!, height: shape[0]!, channels: 3 }
}
const [a, b, c] = ['a', 'b', 'c'].map((name) => picture(cases, `picture.${name}`)) as [RawImage, RawImage, RawImage]

let pipe: Pipeline
let worst = 0
const ddim = (model = 'tiny-sd15'): DDIMScheduler => {
  const config = JSON.parse(readFileSync(reference('models', model, 'scheduler', 'scheduler_config.json'), 'utf8'))
  return DDIMScheduler.fromConfig({ ...config, clip_sample: false })
}
const base = (seed: number): Txt2ImgOptions => ({
  prompt: 'a red house on a beach at sunset',
  negativePrompt: 'blue, dark, ugly',
  guidanceScale: 6,
  height: 64,
  width: 64,
  steps: 3,
  seed,
  outputType: 'latent'
})
const matches = async (name: string, options: Txt2ImgOptions, model = pipe): Promise<void> => {
  const { latents } = await model.txt2img(options)
  assert.equal([...latents.shape], cases.get(name).shape, name)
  const error = relativeError(latents.data, cases.floats(name))
  worst = Math.max(worst, error)
  assert.ok(error < 1e-4, `${name}: ${error}`)
}

test.before(async () => {
  pipe = await Pipeline.fromPretrained(reference('models', 'tiny-sd15'), { scheduler: ddim() })
})
test.after(async () => {
  await pipe.dispose()
  rmSync(folder, { recursive: true })
  console.log(`ip-adapter: largest error of latents ${worst.toExponential(2)}`)
})

test('the reference case of the plain adapter', async () => {
  const { cases: all, tensors } = family('adapters')
  const one = all.find((entry) => entry.case === 'ip_adapter')!
  const args = Object.fromEntries(Object.entries(one.args).filter(([name]) => name !== 'ip_adapter_image'))
  await pipe.loadIpAdapter(adapter(''), { imageEncoder, scale: 0.7 })
  const ipAdapterImage = picture(tensors, 'ip_adapter.image')
  const { images } = await pipe.txt2img({ ...optionsOf({ ...one, args }), ipAdapterImage })
  const error = pictureError(images[0]!.data, tensors.floats('ip_adapter.output'))
  assert.ok(error < 0.3, `${error}/255`)
  assert.is(pipe.imageEncoder!.config.imageSize, 56)
})

test('Plus: the resampler, one picture and two', async () => {
  await pipe.loadIpAdapter(adapter('-plus'), { imageEncoder })
  await matches('plus', { ...base(1), ipAdapterImage: a })
  await matches('plus_two_pictures', { ...base(2), ipAdapterImage: [[a, c]], count: 2 })
})

test('Full Face: a small network over every state', async () => {
  await pipe.loadIpAdapter(adapter('-full'), { imageEncoder })
  pipe.setIpAdapterScale(0.5)
  await matches('full', { ...base(3), ipAdapterImage: b })
})

test('several adapters, several pictures, several prompts; scales by block', async () => {
  await pipe.loadIpAdapter([adapter(''), adapter('-plus')], { imageEncoder, scale: [0.6, 0.4] })
  const prompt = ['a red house on a beach at sunset', 'a green star']
  await matches('several', { ...base(4), prompt, ipAdapterImage: [[a, b], c] })
  pipe.setIpAdapterScale([{ down: { block_1: [0.5, 0] }, mid: 0.3, up: { block_2: [0, 1, 0.2] } }, { up: 0.7 }])
  await matches('blocks', { ...base(5), ipAdapterImage: [a, b] })
})

test('without guidance; embeddings instead of pictures', async () => {
  await pipe.loadIpAdapter(adapter(''), { imageEncoder })
  await matches('unguided', { ...base(6), guidanceScale: 1, ipAdapterImage: a })
  const made = await pipe.prepareIpAdapterImageEmbeds([[a, b]])
  assert.equal(made[0]!.shape, [2, 2, 40])
  await matches('embeds', { ...base(7), ipAdapterImageEmbeds: made })
  await pipe.loadIpAdapter(adapter('')) // no image encoder: embeddings alone
  assert.is(pipe.imageEncoder, undefined)
  await matches('embeds', { ...base(7), ipAdapterImageEmbeds: made[0]! })
  await fails(() => pipe.txt2img({ ...base(7), ipAdapterImage: a }), 'ERR_ND_INVALID_ARGUMENT', /imageEncoder/)
})

test('scale 0 and unloading give the picture without adapter', async () => {
  await pipe.unloadIpAdapter()
  const plain = await pipe.txt2img(base(1))
  await pipe.loadIpAdapter(adapter(''), { imageEncoder, scale: 0 })
  const zero = await pipe.txt2img({ ...base(1), ipAdapterImage: a })
  assert.equal(zero.latents.data, plain.latents.data)
  pipe.setIpAdapterScale(1)
  const one = await pipe.txt2img({ ...base(1), ipAdapterImage: a })
  assert.ok(relativeError(one.latents.data, plain.latents.data) > 1e-2)
  await pipe.unloadIpAdapter()
  assert.equal((await pipe.txt2img(base(1))).latents.data, plain.latents.data)
})

test('the encoder is found in the model’s folder, and beside the adapter', async () => {
  const model = join(folder, 'model')
  cpSync(reference('models', 'tiny-sd15'), model, { recursive: true })
  cpSync(imageEncoder, join(model, 'image_encoder'), { recursive: true })
  const own = await Pipeline.fromPretrained(model, { scheduler: ddim() })
  await own.loadIpAdapter(adapter('-plus'))
  await matches('plus', { ...base(1), ipAdapterImage: a }, own)
  await own.dispose()
  const beside = join(folder, 'beside')
  mkdirSync(beside)
  cpSync(adapter('-plus'), join(beside, 'plus.safetensors'))
  cpSync(imageEncoder, join(beside, 'image_encoder'), { recursive: true })
  await pipe.loadIpAdapter(join(beside, 'plus.safetensors'))
  await matches('plus', { ...base(1), ipAdapterImage: a })
})

test('SDXL: several transformer layers, style and layout by block', async () => {
  const xl = await Pipeline.fromPretrained(reference('models', 'tiny-sdxl'), { scheduler: ddim('tiny-sdxl') })
  await xl.loadIpAdapter(adapter('-sdxl'), { imageEncoder })
  await matches('sdxl', { ...base(10), ipAdapterImage: a }, xl)
  xl.setIpAdapterScale({ down: { block_2: [0, 1] }, up: { block_0: [0, 1, 0] } })
  await matches('sdxl_style_and_layout', { ...base(11), ipAdapterImage: b }, xl)
  await fails(() => xl.loadIpAdapter(adapter(''), { imageEncoder }), 'ERR_ND_MODEL_FORMAT', /80.*norm\.weight.*32/)
  await matches('sdxl_style_and_layout', { ...base(11), ipAdapterImage: b }, xl) // what failed changed nothing
  await xl.dispose()
})

/** The adapter with other tensors. */
const changed = (name: string, source: string, change: (tensors: ReturnType<typeof rawTensors>) => void): string => {
  const tensors = rawTensors(adapter(source))
  change(tensors)
  let at = 0
  const header = Object.fromEntries(
    [...tensors].map(([key, { dtype, shape, bytes }]) => [
      key,
      { dtype, shape, data_offsets: [at, (at += bytes.length)] }
    ])
  )
  const text = Buffer.from(JSON.stringify(header))
  const size = Buffer.alloc(8)
  size.writeBigUInt64LE(BigInt(text.length))
  const path = join(folder, `${name}.safetensors`)
  writeFileSync(path, Buffer.concat([size, text, ...[...tensors.values()].map((t) => t.bytes)]))
  return path
}

test('files that do not fit are refused by their tensor', async () => {
  const format = 'ERR_ND_MODEL_FORMAT'
  const without = changed('without', '', (t) => void t.delete('ip_adapter.31.to_v_ip.weight'))
  await fails(() => pipe.loadIpAdapter(without), format, /ip_adapter\.31\.to_v_ip\.weight.*none/)
  const narrow = changed('narrow', '', (t) => {
    const tensor = t.get('ip_adapter.5.to_k_ip.weight')!
    t.set('ip_adapter.5.to_k_ip.weight', { ...tensor, shape: [16, 32], bytes: tensor.bytes.subarray(0, 1024) })
  })
  await fails(() => pipe.loadIpAdapter(narrow), format, /ip_adapter\.5\.to_k_ip\.weight.*\[16, 32\]/)
  const more = changed('more', '', (t) => t.set('ip_adapter.33.to_k_ip.weight', t.get('ip_adapter.31.to_k_ip.weight')!))
  await fails(() => pipe.loadIpAdapter(more), 'ERR_ND_UNSUPPORTED', /ip_adapter\.33/)
  const gap = changed('gap', '-plus', (t) => void t.delete('image_proj.layers.2.1.3.weight'))
  await fails(() => pipe.loadIpAdapter(gap), format, /layers\.2\.1\.3\.weight/)
  const face = changed('face', '', (t) => {
    t.set('image_proj.proj.0.weight', t.get('image_proj.proj.weight')!)
    t.delete('image_proj.proj.weight')
  })
  await fails(() => pipe.loadIpAdapter(face), 'ERR_ND_UNSUPPORTED', /FaceID/)
  const other = reference('models', 'tiny-clip-vision', 'model.safetensors')
  await fails(() => pipe.loadIpAdapter(other), format, /image_proj/)
  await fails(() => pipe.loadIpAdapter(join(folder, 'none.safetensors')), 'ERR_ND_MODEL_NOT_FOUND', /none/)
  const wide = join(folder, 'wide')
  cpSync(imageEncoder, wide, { recursive: true })
  const config = JSON.parse(readFileSync(join(wide, 'config.json'), 'utf8')) as object
  writeFileSync(join(wide, 'config.json'), JSON.stringify({ ...config, projection_dim: 64 }))
  await fails(() => pipe.loadIpAdapter(adapter(''), { imageEncoder: wide }), format, /40 features.*proj\.weight.*64/)
})

test('a resampler under diffusers’ own names is the same', async () => {
  const rename = (name: string): string =>
    name
      .replace(/(layers\.\d+)\.0\.norm1/, '$1.ln0')
      .replace(/(layers\.\d+)\.0\.norm2/, '$1.ln1')
      .replace(/(layers\.\d+)\.0\.to_out/, '$1.attn.to_out.0')
      .replace(/(layers\.\d+)\.0\.to_/, '$1.attn.to_')
      .replace(/(layers\.\d+)\.1\.0/, '$1.ff.0')
      .replace(/(layers\.\d+)\.1\.1/, '$1.ff.1.net.0.proj')
      .replace(/(layers\.\d+)\.1\.3/, '$1.ff.1.net.2')
  const path = changed('renamed', '-plus', (tensors) => {
    for (const [name, tensor] of [...tensors]) {
      tensors.delete(name)
      tensors.set(rename(name), tensor)
    }
  })
  await pipe.loadIpAdapter(path, { imageEncoder })
  await matches('plus', { ...base(1), ipAdapterImage: a })
})

test('calls and scales that do not fit are refused', async () => {
  const wrong = 'ERR_ND_INVALID_ARGUMENT'
  await pipe.unloadIpAdapter()
  await fails(() => pipe.txt2img({ ...base(1), ipAdapterImage: a }), wrong, /loadIpAdapter/)
  assert.throws(() => pipe.setIpAdapterScale(1), /loadIpAdapter/)
  await pipe.loadIpAdapter([adapter(''), adapter('-plus')], { imageEncoder })
  await fails(() => pipe.txt2img(base(1)), wrong, /ipAdapterImage/)
  await fails(() => pipe.txt2img({ ...base(1), ipAdapterImage: a }), wrong, /2 IP-Adapters/)
  await fails(() => pipe.txt2img({ ...base(1), ipAdapterImage: [a, b, c] }), wrong, /2 IP-Adapters/)
  const [first, second] = (await pipe.prepareIpAdapterImageEmbeds([a, b])) as [Tensor, Tensor]
  await fails(() => pipe.txt2img({ ...base(1), ipAdapterImageEmbeds: first }), wrong, /2 IP-Adapters/)
  const ipAdapterImageEmbeds = [first, second]
  await fails(() => pipe.txt2img({ ...base(1), ipAdapterImageEmbeds, ipAdapterImage: [a, b] }), wrong, /not both/)
  await fails(() => pipe.txt2img({ ...base(1), guidanceScale: 1, ipAdapterImageEmbeds }), wrong, /\[1, any, 40\]/)
  await fails(() => pipe.txt2img({ ...base(1), ipAdapterImageEmbeds: [second, first] }), wrong, /\[0\]/)
  await fails(
    () => pipe.txt2img({ ...base(1), ipAdapterImageEmbeds, ipAdapterMasks: [a] } as never),
    'ERR_ND_UNSUPPORTED',
    /ipAdapterMasks/
  )
  for (const [scale, words] of [
    [[1], /2 IP-Adapters/],
    [NaN, /finite/],
    [{ left: 1 }, /left/],
    [{ down: { block_3: 1 } }, /block_0, block_1, block_2/],
    [{ up: { block_1: [1, 2] } }, /3 of them/],
    [{ up: [1, 2] }, /up/]
  ] as const)
    assert.throws(() => pipe.setIpAdapterScale(scale as never), words)
})

test.run()
