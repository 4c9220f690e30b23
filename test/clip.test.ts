/** CLIP: the image tower against transformers, its preprocessing, and scores of pictures and texts. */
import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ClipModel, clipScore, ImageEncoder, Pipeline, type DiffusionImage, type Tensor } from 'node-diffusion'
import { native, type NativeSession } from '#lib/binding.js'
import { loadImageEncoder, readImageEncoder } from '#lib/clip-image-encoder.js'
import { parseClipVisionConfig, parsePreprocessing } from '#lib/models/clip-vision.js'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { relativeError } from './support/compare.js'
import { fails } from './support/fails.js'
import { editJson } from './support/picture-models.js'
import { postcard, reference } from './support/paths.js'
import { TestFile } from './support/safetensors.js'

const test = suite('clip')
const folder = mkdtempSync(join(tmpdir(), 'nd-clip-'))
let clip: ClipModel

test.before(async () => {
  clip = await ClipModel.fromPretrained()
})
test.after(async () => {
  await clip.dispose()
  rmSync(folder, { recursive: true })
})

const header = (path: string) => native().readHeader(path)
/** The tower alone, as an IP-Adapter has it. */
const tower = async (path: string): Promise<{ encoder: ImageEncoder; session: NativeSession }> => {
  const files = await readImageEncoder(path, header)
  const session = new (native().Session)({ device: 'cpu', threads: 1, dtype: 'auto' })
  await loadImageEncoder(session, files)
  return { encoder: new ImageEncoder({ session: () => session }, files.config, files.preprocessing), session }
}

test('the image tower gives what transformers gives', async () => {
  const expected = new TestFile(reference('tiny', 'clip-vision.safetensors'))
  const { encoder, session } = await tower(reference('models', 'tiny-clip-vision'))
  const { data, shape } = expected.get('vision.in_pixels')
  const out = await encoder.encode({ data: data as Float32Array, shape }, { hiddenStates: true })
  let worst = 0
  for (const [name, actual] of [
    ['embeds', out.projected],
    ['last', out.lastHiddenState],
    ['penultimate', out.hiddenStates!.at(-2)]
  ] as [string, Tensor][]) {
    assert.equal(actual.shape, expected.get(`vision.${name}`).shape, name)
    const error = relativeError(actual.data, expected.floats(`vision.${name}`))
    assert.ok(error < 1e-5, `${name}: ${error}`)
    worst = Math.max(worst, error)
  }
  assert.is(out.hiddenStates!.length, 4)
  assert.is((await encoder.encode({ data: data as Float32Array, shape })).hiddenStates, undefined)
  console.log(`clip: largest error ${worst.toExponential(2)}`)
  await fails(
    () => encoder.encode({ data: new Float32Array(3 * 16), shape: [1, 3, 4, 4] }),
    'ERR_ND_INVALID_ARGUMENT',
    /56/
  )
  await session.unload()
})

test('a picture goes through CLIPImageProcessor first', async () => {
  // pixels as Pillow and the processor's definition make them, against the same picture given as it is
  const pil = new TestFile(reference('pil-bicubic.safetensors'))
  const path = join(folder, 'small')
  cpSync(reference('models', 'tiny-clip-vision'), path, { recursive: true })
  editJson(join(path, 'config.json'), (json) => Object.assign(json, { image_size: 56 }))
  const settings = { size: { shortest_edge: 56 }, crop_size: { height: 56, width: 56 }, resample: 3 }
  writeFileSync(join(path, 'preprocessor_config.json'), JSON.stringify(settings))
  const { encoder, session } = await tower(path)
  const { data, shape } = pil.get('0.in')
  const picture = { data: data as Uint8Array, width: shape[1]!, height: shape[0]!, channels: 3 as const }
  const flat = { data: new Uint8Array(30 * 20 * 3).fill(200), width: 30, height: 20, channels: 3 as const }
  const value = (c: number): number =>
    (200 / 255 - [0.48145466, 0.4578275, 0.40821073][c]!) / [0.26862954, 0.26130258, 0.27577711][c]!
  const pixels = Float32Array.from({ length: 3 * 56 * 56 }, (_, i) => value(Math.floor(i / (56 * 56))))
  const one = await encoder.encode(flat)
  const same = await encoder.encode({ data: pixels, shape: [1, 3, 56, 56] })
  assert.ok(relativeError(one.projected!.data, same.projected!.data) < 1e-5)
  // several pictures are the same pictures one by one
  const both = await encoder.encode([flat, picture])
  assert.equal(both.projected!.shape, [2, 40])
  assert.ok(relativeError(both.projected!.data.subarray(0, 40), one.projected!.data) === 0)
  await session.unload()
})

test('scores: the matrix, its logits and probabilities', async () => {
  const red = { data: new Uint8Array(64 * 64 * 3).map((_, i) => (i % 3 === 0 ? 255 : 0)), width: 64, height: 64 }
  const image = { ...red, channels: 3 as const }
  const texts = ['a red circle on a red background', 'a green star on a blue background']
  const { similarity, logits, probabilities } = await clip.score(image, texts)
  assert.is(similarity.length, 1)
  assert.ok(similarity[0]![0]! > similarity[0]![1]!)
  similarity[0]!.forEach((s, j) => {
    assert.ok(Math.abs(s) <= 1 + 1e-6)
    assert.ok(Math.abs(logits[0]![j]! - s * clip.logitScale) < 1e-9)
  })
  assert.ok(Math.abs(probabilities[0]!.reduce((a, b) => a + b, 0) - 1) < 1e-9)
  const stored = new TestFile(join(postcard, 'clip', 'model.safetensors')).floats('logit_scale')[0]!
  assert.ok(Math.abs(clip.logitScale - Math.exp(stored)) < 1e-6)
  // embeddings of unit length, and as the tower made them
  const length = ({ data }: Tensor): number => Math.hypot(...data.subarray(0, 128))
  assert.ok(Math.abs(length(await clip.encodeText(texts)) - 1) < 1e-5)
  const raw = await clip.encodeImage(image, { normalize: false })
  assert.equal(raw.shape, [1, 128])
  assert.ok(Math.abs(length(raw) - 1) > 1e-3)
  assert.ok(Math.abs((await clipScore(image, texts[0]!)) - 100 * Math.max(similarity[0]![0]!, 0)) < 1e-4)
  assert.is(await clipScore(image, texts[0]!), await clipScore(image, texts[0]!, clip))
})

test('pictures of the bundled model match their own prompt better than others’', async () => {
  const prompts = [
    'a red house on a beach at sunset',
    'a big blue circle on a yellow background',
    'a green tree in the snow by day',
    'an orange cat in a forest at night',
    'a white castle in front of mountains',
    'a purple star above a green square on a black background',
    'a pirate ship on the sea with a rainbow',
    'a yellow rocket under a cosmic sky'
  ]
  const pipe = await Pipeline.fromPretrained('postcard')
  const images: DiffusionImage[] = []
  for (const prompt of prompts) {
    const scheduler = 'DPM++ 2M Karras'
    const { images: made } = await pipe.txt2img({ prompt, steps: 20, guidanceScale: 5, scheduler, seed: 5 })
    images.push(made[0]!)
  }
  await pipe.dispose()
  const { similarity } = await clip.score(images, prompts)
  console.log(similarity.map((row) => row.map((s) => (100 * s).toFixed(0).padStart(4)).join('')).join('\n'))
  const own = similarity.filter((row, i) => row.every((s, j) => j === i || s < row[i]!)).length
  assert.ok(own >= 7, `${own} of 8 pictures have their own prompt first`)
  const average = (values: number[]): number => values.reduce((a, b) => a + b, 0) / values.length
  const diagonal = average(similarity.map((row, i) => row[i]!))
  const others = average(similarity.flatMap((row, i) => row.filter((_, j) => j !== i)))
  assert.ok(diagonal > others + 0.3, `${diagonal} on the diagonal, ${others} beside it`)
})

test('configurations: a whole CLIPModel, the tower alone, defaults', () => {
  const whole = parseClipVisionConfig(
    { model_type: 'clip', projection_dim: 64, vision_config: { hidden_size: 96, num_attention_heads: 4 } },
    'config.json'
  )
  assert.equal([whole.hiddenSize, whole.heads, whole.projectionDim, whole.imageSize], [96, 4, 64, 224])
  const alone = parseClipVisionConfig(
    { model_type: 'clip_vision_model', hidden_act: 'gelu', projection_dim: 1024 },
    'c'
  )
  assert.equal([alone.hiddenSize, alone.activation, alone.projectionDim, alone.patchSize], [768, 'gelu', 1024, 32])
  assert.throws(() => parseClipVisionConfig({ hidden_size: 100 }, 'c'), /num_attention_heads/)
  assert.throws(() => parseClipVisionConfig({ hidden_act: 'relu' }, 'c'), /hidden_act/)
  assert.throws(() => parseClipVisionConfig({ model_type: 'siglip' }, 'c'), /model_type/)
  const old = parsePreprocessing({ size: 224, crop_size: 224, resample: 3 }, 56, 'p')
  assert.equal([old.shortestEdge, old.cropHeight, old.cropWidth], [224, 224, 224])
  const exact = parsePreprocessing({ size: { height: 20, width: 30 }, do_center_crop: false }, 56, 'p')
  assert.equal([exact.shortestEdge, exact.resizeHeight, exact.resizeWidth, exact.centerCrop], [0, 20, 30, false])
  assert.is(parsePreprocessing(undefined, 56, 'p').shortestEdge, 56)
  assert.throws(() => parsePreprocessing({ resample: 2 }, 56, 'p'), /resample/)
  assert.throws(() => parsePreprocessing({ size: { longest_edge: 5 } }, 56, 'p'), /size/)
  assert.throws(() => parsePreprocessing({ image_std: [1, 0, 1] }, 56, 'p'), /image_std/)
})

test('what does not fit is refused by name', async () => {
  const none = reference('models', 'tiny-clip-vision')
  await fails(() => ClipModel.fromPretrained(join(folder, 'none')), 'ERR_ND_MODEL_NOT_FOUND', /config\.json/)
  await fails(() => ClipModel.fromPretrained(none), 'ERR_ND_MODEL_FORMAT', /model_type/)
  await fails(() => ClipModel.fromPretrained('postcard', { text: 1 } as never), 'ERR_ND_INVALID_ARGUMENT', /text/)
  // no tokenizer in reach, and a small vocabulary
  const alone = join(folder, 'alone', 'clip')
  cpSync(join(postcard, 'clip'), alone, { recursive: true })
  await fails(() => ClipModel.fromPretrained(alone), 'ERR_ND_MODEL_NOT_FOUND', /tokenizer/)
  const given = await ClipModel.fromPretrained(alone, { tokenizer: join(postcard, 'tokenizer') })
  assert.equal((await given.encodeText('a red house')).data, (await clip.encodeText('a red house')).data)
  await given.dispose()
  await fails(() => given.encodeText('a'), 'ERR_ND_DISPOSED', /dispos/)
  // preprocessing for another size than the tower's
  editJson(join(alone, 'preprocessor_config.json'), (json) => Object.assign(json, { crop_size: 32 }))
  const wrong = await ClipModel.fromPretrained(alone, { tokenizer: join(postcard, 'tokenizer') })
  const picture = { data: new Uint8Array(12), width: 2, height: 2, channels: 3 as const }
  await fails(() => wrong.encodeImage(picture), 'ERR_ND_INVALID_ARGUMENT', /32.*preprocessor_config/)
  await wrong.dispose()
  editJson(join(alone, 'config.json'), (json) => Object.assign(json.vision_config as object, { patch_size: 16 }))
  await fails(
    () => ClipModel.fromPretrained(alone, { tokenizer: join(postcard, 'tokenizer') }),
    'ERR_ND_MODEL_FORMAT',
    /patch_embedding/
  )
  await fails(() => clip.encodeText([]), 'ERR_ND_INVALID_ARGUMENT', /texts/)
  await fails(() => clip.encodeImage([]), 'ERR_ND_INVALID_ARGUMENT', /images/)
  await fails(() => clip.encodeImage('none.png'), 'ERR_ND_INVALID_ARGUMENT', /none\.png/)
  await fails(() => clipScore('a.png', 3 as never), 'ERR_ND_INVALID_ARGUMENT', /text/)
})

test.run()
