import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { native, translatingSync } from '#lib/binding.js'
import { DiffusionError } from '#lib/errors.js'
import { postcard, reference } from './support/paths.js'
import { TestFile } from './support/safetensors.js'

// test/native/safetensors.cpp has every kind of broken file; here: that headers and errors reach JavaScript right.
const test = suite('safetensors')
const readHeader = (path: string) => translatingSync(() => native().readHeader(path))

let folder = ''
test.before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nd-safetensors-'))
})
test.after(() => rm(folder, { recursive: true }))

const write = async (header: unknown, data: Buffer, name = 'x.safetensors'): Promise<string> => {
  const json = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(json.length))
  const path = join(folder, name)
  await rm(path, { force: true })
  await writeFile(path, Buffer.concat([length, json, data]))
  return path
}

const fails = (path: string, code: string, text: string): void => {
  try {
    readHeader(path)
  } catch (error) {
    assert.instance(error, DiffusionError)
    assert.is((error as DiffusionError).code, code)
    assert.match((error as Error).message, text)
    assert.match((error as Error).message, path)
    return
  }
  assert.unreachable(`${text}: no error`)
}

test('headers are what an independent reader sees', () => {
  for (const path of [
    join(postcard, 'unet', 'diffusion_pytorch_model.safetensors'),
    reference('models', 'tiny-sd15-legacy', 'text_encoder', 'model.safetensors'),
    reference('rng.safetensors')
  ]) {
    const expected = new TestFile(path)
    const { tensors } = readHeader(path)
    assert.equal(tensors.map((t) => t.name).sort(), expected.names.sort())
    for (const tensor of tensors) {
      const { shape, dtype } = expected.get(tensor.name)
      assert.equal(tensor.shape, shape)
      assert.is(tensor.dtype, dtype)
    }
  }
  assert.equal(readHeader(join(postcard, 'vae', 'diffusion_pytorch_model.safetensors')).metadata, { format: 'pt' })
})

test('names and paths outside of ASCII', async () => {
  const header = { 'größe ✓': { dtype: 'U8', shape: [2], data_offsets: [0, 2] }, __metadata__: { ключ: 'значение' } }
  const { tensors, metadata } = readHeader(await write(header, Buffer.alloc(2), 'modèle 模型.safetensors'))
  assert.equal(tensors, [{ name: 'größe ✓', dtype: 'U8', shape: [2] }])
  assert.equal(metadata, { ключ: 'значение' })
})

test('broken files are errors with a code and the path, and the process lives on', async () => {
  const tensor = { dtype: 'F32', shape: [1], data_offsets: [0, 4] }
  fails(join(folder, 'none.safetensors'), 'ERR_ND_MODEL_NOT_FOUND', 'none')
  fails(folder, 'ERR_ND_MODEL_NOT_FOUND', 'folder')
  fails(await write({ a: tensor }, Buffer.alloc(3)), 'ERR_ND_MODEL_FORMAT', 'end within')
  fails(await write({ a: tensor }, Buffer.alloc(5)), 'ERR_ND_MODEL_FORMAT', 'has 5')
  fails(await write({ a: tensor, b: tensor }, Buffer.alloc(4)), 'ERR_ND_MODEL_FORMAT', 'overlapping')
  fails(await write({ a: { ...tensor, shape: [-1] } }, Buffer.alloc(4)), 'ERR_ND_MODEL_FORMAT', 'non-negative')
  fails(await write('{"a":', Buffer.alloc(0)), 'ERR_ND_MODEL_FORMAT', 'JSON')
  const path = join(folder, 'pickle.ckpt')
  await writeFile(path, Buffer.from('PK\x03\x04'))
  fails(path, 'ERR_ND_MODEL_FORMAT', 'zip archive')
})

test.run()
