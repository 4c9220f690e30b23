/** Weights of every float type, sharded files, variants, another VAE: all must load to the same numbers. */
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Pipeline, type Tensor } from 'node-diffusion'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { relativeError } from './support/compare.js'
import { reference } from './support/paths.js'
import { TestFile } from './support/safetensors.js'

const test = suite('loading')
const scratch = mkdtempSync(join(tmpdir(), 'nd-loading-'))
test.after(() => rmSync(scratch, { recursive: true, force: true }))

const base = reference('models', 'tiny-sd15')
const unetFile = 'diffusion_pytorch_model.safetensors'
const original = new TestFile(join(base, 'unet', unetFile))
const references = new TestFile(reference('tiny', 'sd15.safetensors'))
const tensor = (key: string): Tensor => ({ data: references.floats(key), shape: references.get(key).shape })

type Bytes = Uint8Array | Uint16Array | Float32Array
interface Stored {
  dtype: string
  shape: number[]
  data: Bytes
}

const writeFile = (path: string, tensors: Record<string, Stored>): void => {
  const header: Record<string, object> = {}
  let offset = 0
  for (const [name, { dtype, shape, data }] of Object.entries(tensors)) {
    header[name] = { dtype, shape, data_offsets: [offset, (offset += data.byteLength)] }
  }
  const text = Buffer.from(JSON.stringify(header))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(text.length))
  const bytes = Object.values(tensors).map((t) => Buffer.from(t.data.buffer, t.data.byteOffset, t.data.byteLength))
  writeFileSync(path, Buffer.concat([length, text, ...bytes]))
}

const bits = new Uint32Array(1)
const bitsAsFloat = new Float32Array(bits.buffer)
const bf16 = {
  encode: (v: number) => ((bitsAsFloat[0] = v), bits[0]! >>> 16),
  decode: (code: number) => ((bits[0] = code << 16), bitsAsFloat[0]!)
}
/** A float of 8 bits, from its definition; codes of NaN and infinity are not offered to encode(). */
const float8 = (exponentBits: number, bias: number) => {
  const fractionBits = 7 - exponentBits
  const decode = (code: number): number => {
    const exponent = (code >> fractionBits) & (2 ** exponentBits - 1)
    const fraction = (code & (2 ** fractionBits - 1)) / 2 ** fractionBits
    return (code & 128 ? -1 : 1) * (exponent ? (1 + fraction) * 2 ** (exponent - bias) : fraction * 2 ** (1 - bias))
  }
  const magnitudes = Float64Array.from({ length: exponentBits === 5 ? 124 : 127 }, (_, code) => decode(code))
  const encode = (v: number): number => {
    const magnitude = Math.abs(v)
    let above = magnitudes.findIndex((m) => m >= magnitude)
    if (above < 0) above = magnitudes.length - 1
    const below = Math.max(0, above - 1)
    const nearest = magnitude - magnitudes[below]! < magnitudes[above]! - magnitude ? below : above
    return nearest | (v < 0 ? 128 : 0)
  }
  return { encode, decode }
}

/** The UNet's weights rounded to a type: as that type, and as F32 with the same values. */
const rounded = (
  dtype: string,
  array: new (n: number) => Uint8Array | Uint16Array,
  codec: { encode(v: number): number; decode(code: number): number }
) => {
  const stored: Record<string, Stored> = {}
  const plain: Record<string, Stored> = {}
  for (const name of original.names) {
    const values = original.floats(name)
    const { shape } = original.get(name)
    const codes = new array(values.length)
    values.forEach((v, i) => (codes[i] = codec.encode(v)))
    stored[name] = { dtype, shape, data: codes }
    plain[name] = { dtype: 'F32', shape, data: Float32Array.from(codes, (c) => codec.decode(c)) }
  }
  return { stored, plain }
}

const folderWith = (name: string, write: (unet: string) => void): string => {
  const folder = join(scratch, name)
  cpSync(base, folder, { recursive: true })
  rmSync(join(folder, 'unet', unetFile))
  write(join(folder, 'unet'))
  return folder
}
const predict = async (folder: string): Promise<Float32Array> => {
  const pipe = await Pipeline.fromPretrained(folder)
  const { sample } = await pipe.unet.predict({
    sample: tensor('unet.in_sample'),
    timestep: [...references.floats('unet.in_timesteps')],
    context: tensor('unet.in_context')
  })
  await pipe.dispose()
  return sample.data
}
const files = (tensors: Record<string, Stored>) => (unet: string) => writeFile(join(unet, unetFile), tensors)

const types: [
  dtype: string,
  array: new (n: number) => Uint8Array | Uint16Array,
  codec: { encode(v: number): number; decode(c: number): number }
][] = [
  ['BF16', Uint16Array, bf16],
  ['F8_E4M3', Uint8Array, float8(4, 7)],
  ['F8_E5M2', Uint8Array, float8(5, 15)]
]
for (const [dtype, array, codec] of types)
  test(`${dtype} weights mean what their definition says`, async () => {
    const { stored, plain } = rounded(dtype, array, codec)
    const actual = await predict(folderWith(dtype, files(stored)))
    const expected = await predict(folderWith(`${dtype}-as-F32`, files(plain)))
    assert.ok(relativeError(actual, expected) < 1e-6)
    assert.ok(relativeError(actual, references.floats('unet.out')) > 1e-5, 'rounding shows')
  })

test('F32 weights', async () => {
  const plain: Record<string, Stored> = {}
  for (const name of original.names)
    plain[name] = { dtype: 'F32', shape: original.get(name).shape, data: original.floats(name) }
  assert.ok(relativeError(await predict(folderWith('F32', files(plain))), references.floats('unet.out')) < 2e-5)
})

const halves = (): Record<string, Stored> => {
  const bytes = readFileSync(join(base, 'unet', unetFile))
  const start = 8 + Number(bytes.readBigUInt64LE(0))
  const header = JSON.parse(bytes.toString('utf8', 8, start)) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >
  return Object.fromEntries(
    original.names.map((name) => {
      const { dtype, shape, data_offsets } = header[name]!
      return [name, { dtype, shape, data: bytes.subarray(start + data_offsets[0], start + data_offsets[1]) }]
    })
  )
}

test('sharded weights with an index', async () => {
  const folder = folderWith('sharded', (unet) => {
    const weight_map: Record<string, string> = {}
    const shards: Record<string, Stored>[] = [{}, {}, {}]
    Object.entries(halves()).forEach(([name, stored], i) => {
      shards[i % 3]![name] = stored
      weight_map[name] = `diffusion_pytorch_model-0000${(i % 3) + 1}-of-00003.safetensors`
    })
    shards.forEach((tensors, i) =>
      writeFile(join(unet, `diffusion_pytorch_model-0000${i + 1}-of-00003.safetensors`), tensors)
    )
    writeFileSync(join(unet, `${unetFile}.index.json`), JSON.stringify({ metadata: {}, weight_map }))
  })
  assert.ok(relativeError(await predict(folder), references.floats('unet.out')) < 2e-5)
})

test('a variant file where there is no other', async () => {
  const folder = folderWith('variant', (unet) =>
    writeFile(join(unet, 'diffusion_pytorch_model.fp16.safetensors'), halves())
  )
  assert.ok(relativeError(await predict(folder), references.floats('unet.out')) < 2e-5)
})

test('a tensor of a type that is no weight is refused by name', async () => {
  const tensors = halves()
  const name = 'conv_in.bias'
  tensors[name] = { dtype: 'I32', shape: tensors[name]!.shape, data: new Float32Array(16) }
  let message = ''
  await predict(folderWith('I32', files(tensors))).catch((error: Error) => (message = error.message))
  assert.match(message, /conv_in\.bias/)
})

test('another VAE in place of the own one', async () => {
  const pipe = await Pipeline.fromPretrained(base, { vae: join(reference('models', 'tiny-sdxl'), 'vae') })
  const xl = await Pipeline.fromPretrained(reference('models', 'tiny-sdxl'))
  const latents = { data: Float32Array.from({ length: 256 }, (_, i) => Math.sin(i)), shape: [1, 4, 8, 8] }
  assert.equal((await pipe.vae.decode(latents)).data, (await xl.vae.decode(latents)).data)
  await Promise.all([pipe.dispose(), xl.dispose()])
})

test.run()
