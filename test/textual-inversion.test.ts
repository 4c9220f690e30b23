/** Textual inversion: tokens with embeddings of their own, in every format, in prompts of every kind. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Pipeline, type Txt2ImgOptions } from 'node-diffusion'
import { tokenizePrompt } from '#lib/prompt.js'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { relativeError } from './support/compare.js'
import { fails } from './support/fails.js'
import { numbers, values } from './support/lora.js'
import { reference } from './support/paths.js'
import { TestFile, writeTensors, type Values } from './support/safetensors.js'

const test = suite('textual inversion')
const folder = mkdtempSync(join(tmpdir(), 'nd-inversion-'))
const write = (name: string, tensors: Record<string, Values>): string => {
  const path = join(folder, `${name}.safetensors`)
  writeTensors(path, tensors)
  return path
}
const embedding = reference('models', 'tiny-embedding.safetensors')
const random = numbers(2)
const width = 32
/** Embeddings that the model has for ids. */
const table = new TestFile(reference('models', 'tiny-sd15', 'text_encoder', 'model.safetensors'))
const known = (ids: readonly number[]): Values => {
  const rows = table.floats('text_model.embeddings.token_embedding.weight')
  return { shape: [ids.length, width], data: ids.flatMap((id) => [...rows.subarray(id * width, (id + 1) * width)]) }
}

let pipe: Pipeline
const quick: Txt2ImgOptions = { prompt: '', steps: 2, seed: 5, width: 64, height: 64, outputType: 'latent' }
const latents = async (prompt: string, options: Partial<Txt2ImgOptions> = {}): Promise<Float32Array> =>
  (await pipe.txt2img({ ...quick, prompt, ...options })).latents.data

test('loads', async () => {
  pipe = await Pipeline.fromPretrained(reference('models', 'tiny-sd15'))
})

test('a token stands for its vectors: those of known words give what the words give', async () => {
  const words = pipe.tokenizer.tokenize('red house')
  const size = pipe.tokenizer.vocabSize
  await pipe.loadTextualInversion(write('two-words', { '<RedHouse>': known(words) }))
  assert.equal(
    pipe.textualInversions.map(({ token, vectors }) => ({ token, vectors })),
    [{ token: '<RedHouse>', vectors: words.length }]
  )
  assert.is(pipe.tokenizer.vocabSize, size + words.length)
  const ids = pipe.tokenizer.tokenize('a <redhouse>, old')
  assert.is(ids.length, pipe.tokenizer.tokenize('a red house, old').length)
  assert.equal(
    pipe.tokenizer.tokenize('<RedHouse>_1'),
    [ids.find((id) => id > size)],
    'vectors after the first have words of their own'
  )
  assert.is(pipe.tokenizer.decode(ids), 'a <RedHouse> <RedHouse>_1 , old')
  for (const options of [{}, { promptWeighting: true }, { negativePrompt: 'x' }]) {
    const expected = await latents('a red house, old', options)
    const error = relativeError(await latents('a <RedHouse>, old', options), expected)
    assert.ok(error < 1e-6, `error ${error}`)
  }
  const weighted = await latents('a (red house:1.3)', { promptWeighting: true })
  assert.ok(relativeError(await latents('a (<redhouse>:1.3)', { promptWeighting: true }), weighted) < 1e-6)
  const negative = await latents('a cat', { negativePrompt: 'a red house' })
  assert.ok(relativeError(await latents('a cat', { negativePrompt: 'a <RedHouse>' }), negative) < 1e-6)
  await pipe.unloadTextualInversion('<RedHouse>')
  assert.is(pipe.tokenizer.vocabSize, size)
  assert.not.equal(pipe.tokenizer.tokenize('a <redhouse>, old'), ids)
})

test('several are told apart, also when one of them goes', async () => {
  const [cat, dog] = ['cat', 'dog'].map((word) => pipe.tokenizer.tokenize(word))
  await pipe.loadTextualInversion(write('first', { emb_params: values(random, 3, width) }), { token: 'my-first' })
  await pipe.loadTextualInversion(write('second', { emb_params: known(cat!) }), { token: 'my-cat' })
  await pipe.loadTextualInversion(write('third', { emb_params: known(dog!) }), { token: 'my-dog' })
  const prompt = 'a cat and a dog'
  const expected = await latents(prompt)
  assert.ok(relativeError(await latents('a my-cat and a my-dog'), expected) < 1e-6)
  await pipe.unloadTextualInversion('my-first')
  assert.ok(relativeError(await latents('a my-cat and a my-dog'), expected) < 1e-6)
  await pipe.loadLora(reference('loras', 'kohya.safetensors'))
  const adapted = await latents(prompt)
  assert.ok(relativeError(await latents('a my-cat and a my-dog'), adapted) < 1e-6, 'next to a LoRA of the text encoder')
  await pipe.unloadLora()
  await pipe.unloadTextualInversion()
  assert.equal(pipe.textualInversions, [])
  assert.ok(relativeError(await latents(prompt), expected) === 0)
})

test('a token of many vectors counts as many, and is not torn apart between chunks', async () => {
  await pipe.loadTextualInversion(write('long', { emb_params: values(random, 20, width) }))
  assert.is(pipe.textualInversions[0]!.token, 'long', "the file's name")
  const { tokenizer } = pipe
  const filler = (n: number): string => Array<string>(n).fill('a').join(' ')
  const first = tokenizer.tokenize('long')[0]
  const chunked = tokenizePrompt(tokenizer, `${filler(60)} long`, { weights: true })
  assert.is(chunked.chunks, 2)
  assert.is(chunked.ids[chunked.length + 1], first, 'the second chunk begins with it')
  const result = await pipe.txt2img({ ...quick, steps: 1, prompt: `${filler(60)} long` })
  assert.match(result.warnings.join(), /left out/)
  await pipe.unloadTextualInversion()
})

test('SDXL: both text encoders', async () => {
  const xl = await Pipeline.fromPretrained(reference('models', 'tiny-sdxl'))
  const run = async (prompt: string): Promise<Float32Array> => (await xl.txt2img({ ...quick, prompt })).latents.data
  const rowsOf = (encoder: string, tokenizer: { tokenize(text: string): number[] }): Values => {
    const rows = new TestFile(reference('models', 'tiny-sdxl', encoder, 'model.safetensors'))
    const name = 'text_model.embeddings.token_embedding.weight'
    const w = rows.get(name).shape[1]!
    const ids = tokenizer.tokenize('cat')
    return { shape: [ids.length, w], data: ids.flatMap((id) => [...rows.floats(name).subarray(id * w, (id + 1) * w)]) }
  }
  const file = write('xl', {
    clip_l: rowsOf('text_encoder', xl.tokenizer),
    clip_g: rowsOf('text_encoder_2', xl.tokenizer2!)
  })
  await xl.loadTextualInversion(file, { token: 'my-cat' })
  const error = relativeError(await run('a my-cat here'), await run('a cat here'))
  assert.ok(error < 1e-6, `error ${error}`)
  await fails(() => xl.loadTextualInversion(embedding), 'ERR_ND_MODEL_FORMAT', /clip_l and clip_g.*emb_params/)
  await fails(() => pipe.loadTextualInversion(file), 'ERR_ND_MODEL_FORMAT', /SDXL/)
  await xl.dispose()
})

test('what does not fit is refused', async () => {
  await pipe.loadTextualInversion(embedding, { token: 'my-style' })
  await fails(() => pipe.loadTextualInversion(embedding, { token: 'my-style' }), 'ERR_ND_INVALID_ARGUMENT', /my-style/)
  await fails(
    () => pipe.loadTextualInversion(embedding, { token: 'My-Style' }),
    'ERR_ND_INVALID_ARGUMENT',
    /no token yet/
  )
  await fails(() => pipe.loadTextualInversion(embedding, { token: 'cat</w>' }), 'ERR_ND_INVALID_ARGUMENT', /cat/)
  await fails(() => pipe.loadTextualInversion(embedding, { token: ' ' }), 'ERR_ND_INVALID_ARGUMENT', /a word/)
  await fails(() => pipe.unloadTextualInversion('other'), 'ERR_ND_INVALID_ARGUMENT', /'my-style'/)
  await pipe.unloadTextualInversion()
  const wide = write('wide', { emb_params: values(random, 2, 768) })
  await fails(() => pipe.loadTextualInversion(wide), 'ERR_ND_MODEL_FORMAT', /\[vectors, 32\].*\[2, 768\]/)
  const several = write('several', { a: values(random, 1, width), b: values(random, 1, width) })
  await fails(() => pipe.loadTextualInversion(several), 'ERR_ND_MODEL_FORMAT', /a, b/)
  await fails(() => pipe.loadTextualInversion('x.pt'), 'ERR_ND_UNSUPPORTED', /safetensors/)
  await fails(
    () => pipe.loadTextualInversion(join(folder, 'no.safetensors')),
    'ERR_ND_MODEL_NOT_FOUND',
    /no\.safetensors/
  )
  assert.equal(pipe.textualInversions, [])
})

test.after(async () => {
  await pipe.dispose()
  rmSync(folder, { recursive: true })
})
test.run()
