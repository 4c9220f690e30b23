/** Imagen-style cascades: T5, a pixel UNet, super-resolution, against the references. */
import { cpSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { createScheduler, Pipeline, T5Tokenizer, type Tensor } from 'node-diffusion'
import { parseUNetConfig } from '#lib/models/unet.js'
import { UnigramModel } from '#lib/tokenizer/unigram.js'
import { family } from './support/cases.js'
import { pictureError, relativeError } from './support/compare.js'
import { fails } from './support/fails.js'
import { copyOf, failsWith, removeCopies } from './support/model-folders.js'
import { editJson } from './support/picture-models.js'
import { reference } from './support/paths.js'

const test = suite('deepfloyd-if')
const base = reference('models', 'tiny-if')
const prompt = 'a red house on a beach at sunset'
const { cases, tensors } = family('if')
let first: Pipeline
let second: Pipeline
test.before(async () => {
  first = await Pipeline.fromPretrained(base)
  const folder = await copyOf('if-sr')
  for (const part of ['text_encoder', 'tokenizer']) cpSync(join(base, part), join(folder, part), { recursive: true })
  second = await Pipeline.fromPretrained(folder)
})
test.after(async () => {
  await first.dispose()
  await second.dispose()
  await removeCopies()
})

const optionsOf = (name: string) => {
  const c = cases.find((one) => one.case === name)!
  const { negative_prompt, num_inference_steps, guidance_scale } = c.args as Record<string, never>
  return {
    prompt,
    negativePrompt: negative_prompt as string,
    steps: num_inference_steps as number,
    guidanceScale: guidance_scale as number,
    seed: c.seed,
    scheduler: createScheduler(c.scheduler)
  }
}
const small = (): Tensor => ({ data: tensors.floats('stage2.low'), shape: [1, 3, 16, 16] })

/** The picture 0..1, HWC, of what the loop left. */
const picture = ({ data, shape }: Tensor): Float32Array => {
  const pixels = shape[2]! * shape[3]!
  return Float32Array.from({ length: data.length }, (_, i) => {
    const value = data[(i % 3) * pixels + Math.floor(i / 3)]! / 2 + 0.5
    return Math.min(Math.max(value, 0), 1)
  })
}

test('T5: token ids, mask and states are the references', async () => {
  const encoded = [prompt, ''].map((text) => first.tokenizer.encode(text))
  assert.equal(
    encoded.flatMap((e) => e.ids),
    [...tensors.get('text.ids').data].map(Number)
  )
  assert.equal(
    encoded.flatMap((e) => e.mask!),
    [...tensors.get('text.mask').data].map(Number)
  )
  const out = await first.textEncoder.encode(
    encoded.map((e) => e.ids),
    encoded.map((e) => e.mask!)
  )
  const error = relativeError(out.lastHiddenState.data, tensors.floats('text.last'))
  assert.ok(error < 1e-5, `text.last: ${error}`)
})

test('stage 1: the picture is the reference', async () => {
  assert.equal(first.tasks, ['txt2img'])
  const { images, latents } = await first.txt2img(optionsOf('stage1'))
  const error = relativeError(picture(latents), tensors.floats('stage1.output'))
  assert.ok(error < 1e-3, `stage1: ${error}`)
  assert.ok(pictureError(images[0]!.data, tensors.floats('stage1.output')) < 0.5)
})

test('stage 2: the picture is the reference', async () => {
  assert.equal(second.tasks, ['superResolution'])
  const options = { ...optionsOf('stage2'), image: small(), noiseLevel: 100 }
  const { images, latents } = await second.superResolution(options)
  const error = relativeError(picture(latents), tensors.floats('stage2.output'))
  assert.ok(error < 1e-3, `stage2: ${error}`)
  assert.equal([images[0]!.width, images[0]!.height], [32, 32])
  // A picture of bytes is the same tensor, but for its rounding.
  const data = Uint8Array.from({ length: 768 }, (_, i) =>
    Math.round((options.image.data[(i % 3) * 256 + Math.floor(i / 3)]! + 1) * 127.5)
  )
  const again = await second.superResolution({ ...options, image: { data, width: 16, height: 16, channels: 3 } })
  assert.ok(relativeError(again.latents.data, latents.data) < 1e-4)
})

test('stage 2 takes the states that stage 1 read', async () => {
  const states = async (text: string): Promise<Tensor> => {
    const { ids, mask } = first.tokenizer.encode(text)
    return (await first.textEncoder.encode(ids, mask)).lastHiddenState
  }
  const { negativePrompt, ...options } = { ...optionsOf('stage2'), image: small(), noiseLevel: 100, steps: 2 }
  const rest = Object.fromEntries(Object.entries(options).filter(([name]) => name !== 'prompt')) as typeof options
  const given = { ...rest, promptEmbeds: await states(prompt), negativePromptEmbeds: await states(negativePrompt) }
  const expected = await second.superResolution({ ...rest, prompt, negativePrompt })
  assert.ok(relativeError((await second.superResolution(given)).latents.data, expected.latents.data) < 1e-5)

  const folder = await copyOf('if-sr')
  editJson(join(folder, 'model_index.json'), (json) => (json.text_encoder = json.tokenizer = [null, null]))
  const alone = await Pipeline.fromPretrained(folder)
  assert.ok(relativeError((await alone.superResolution(given)).latents.data, expected.latents.data) < 1e-5)
  await fails(() => alone.superResolution({ ...rest, prompt }), 'ERR_ND_UNSUPPORTED', /promptEmbeds/)
  await alone.dispose()
})

test('the UNets alone predict what the loop sees', async () => {
  const { ids, mask } = first.tokenizer.encode(prompt)
  const context = (await first.textEncoder.encode(ids, mask)).lastHiddenState
  const sample = { data: Float32Array.from({ length: 768 }, (_, i) => Math.sin(i)), shape: [1, 3, 16, 16] }
  let seen: { timestep: number; predictedNoise?: Tensor } | undefined
  const options = { prompt, steps: 1, seed: 1, guidanceScale: 1, latents: sample, stepLatents: true }
  await first.txt2img({ ...options, onStep: (event) => void (seen = event) })
  const alone = await first.unet.predict({ sample, timestep: seen!.timestep, context })
  assert.equal(alone.sample.shape, [1, 6, 16, 16])
  assert.ok(relativeError(alone.sample.data.subarray(0, 768), seen!.predictedNoise!.data) < 1e-5)
  const both = { data: new Float32Array(6 * 256), shape: [1, 6, 16, 16] }
  await fails(
    () => second.unet.predict({ sample: both, timestep: 5, context }),
    'ERR_ND_INVALID_ARGUMENT',
    /noise level/
  )
  const level = { noiseLevel: 100 }
  const { blocks } = await second.unet.predict({ sample: both, timestep: 5, context, added: level, blocks: true })
  assert.equal(blocks!.mid!.shape, [1, 32, 8, 8])
})

test('what does not fit is refused', async () => {
  await fails(() => first.superResolution({ prompt, image: small() }), 'ERR_ND_UNSUPPORTED', /superResolution.*txt2img/)
  await fails(
    () => first.txt2img({ prompt, hires: { scale: 2, denoisingStrength: 0.5 } } as never),
    'ERR_ND_UNSUPPORTED',
    /hires/
  )
  const freeU = { s1: 0.9, s2: 0.2, b1: 1.5, b2: 1.6 }
  for (const options of [{ freeU }, { vaeTiling: true }, { attentionMaps: true }]) {
    const name = new RegExp(Object.keys(options)[0]!)
    await fails(() => first.txt2img({ prompt, ...options }), 'ERR_ND_UNSUPPORTED', name)
    const given = { prompt, image: small(), ...options } as never
    await fails(() => second.superResolution(given), 'ERR_ND_INVALID_ARGUMENT', name)
  }
  await fails(
    () => second.superResolution({ prompt, image: small(), controlImage: small() } as never),
    'ERR_ND_INVALID_ARGUMENT',
    /controlImage/
  )
  await fails(() => second.superResolution({ prompt } as never), 'ERR_ND_INVALID_ARGUMENT', /image/)
  await fails(
    () => second.superResolution({ prompt, image: small(), noiseLevel: 1000 }),
    'ERR_ND_INVALID_ARGUMENT',
    /noiseLevel/
  )
  const two = { data: new Float32Array(2 * 768), shape: [2, 3, 16, 16] }
  await fails(() => second.superResolution({ prompt, image: two }), 'ERR_ND_INVALID_ARGUMENT', /one picture/)
  await failsWith(() => first.vae, 'ERR_ND_UNSUPPORTED', /autoencoder/)
  const json = (changes: object) => () =>
    parseUNetConfig(
      {
        down_block_types: ['SimpleCrossAttnDownBlock2D'],
        up_block_types: ['SimpleCrossAttnUpBlock2D'],
        block_out_channels: [64],
        attention_head_dim: 8,
        cross_attention_dim: 64,
        mid_block_type: 'UNetMidBlock2DSimpleCrossAttn',
        ...changes
      },
      'c'
    )
  assert.is(json({})().pixel!.scaleShift, false)
  assert.is(json({ only_cross_attention: true })().pixel!.midTextOnly, true)
  for (const changes of [
    { act_fn: 'mish' },
    { class_embed_type: 'projection' },
    { addition_embed_type: 'image' },
    { encoder_hid_dim: 8, encoder_hid_dim_type: 'text_image_proj' },
    { cross_attention_norm: 'layer_norm' },
    { down_block_types: ['CrossAttnDownBlock2D'] },
    { resnet_time_scale_shift: 'ada_group' },
    { center_input_sample: true }
  ])
    await failsWith(json(changes), 'ERR_ND_UNSUPPORTED', new RegExp(Object.keys(changes).at(-1)!))
})

test('unigram: the likeliest pieces, unknown characters together', () => {
  const pieces = [
    ['<unk>', 0],
    ['a', -1],
    ['b', -1],
    ['ab', -1.5],
    ['abc', -9],
    ['c', -2]
  ] as const
  const model = new UnigramModel(
    pieces.map(([text, score]) => ({ text, score })),
    0,
    new Set([0])
  )
  assert.equal(model.encode('abc'), [3, 5])
  assert.equal(model.encode('ba'), [2, 1])
  assert.equal(model.encode('axyb'), [1, 0, 2])
  assert.equal(model.encode(''), [])
})

/** A protocol buffer field of bytes or of a number. */
const field = (number: number, value: Buffer | number): Buffer => {
  if (typeof value === 'number') return Buffer.from([number << 3, value])
  assert.ok(value.length < 128)
  return Buffer.concat([Buffer.from([(number << 3) | 2, value.length]), value])
}

test('spiece.model: pieces, scores and the end mark', async () => {
  const folder = join(await copyOf('if'), 'tokenizer')
  rmSync(join(folder, 'tokenizer.json'))
  const score = (value: number): Buffer => {
    const bytes = Buffer.from([0x15, 0, 0, 0, 0])
    bytes.writeFloatLE(value, 1)
    return bytes
  }
  const piece = (text: string, value: number, type = 1): Buffer =>
    field(1, Buffer.concat([field(1, Buffer.from(text)), score(value), field(3, type)]))
  const all = [
    piece('<pad>', 0, 3),
    piece('</s>', 0, 3),
    piece('<unk>', 0, 2),
    piece('\u2581', -2),
    piece('\u2581red', -1),
    piece('s', -3)
  ]
  writeFileSync(join(folder, 'spiece.model'), Buffer.concat([...all, field(2, field(3, 1))]))
  const tokenizer = T5Tokenizer.fromFolder(folder, 8)
  assert.equal(tokenizer.encode('  red  reds '), {
    ids: [4, 4, 5, 1, 0, 0, 0, 0],
    mask: [1, 1, 1, 1, 0, 0, 0, 0],
    truncated: null
  })
  assert.is(tokenizer.encode('red '.repeat(9)).truncated, 'red red')
  assert.is(tokenizer.decode([4, 5, 1], { skipSpecialTokens: true }), 'reds')
  writeFileSync(join(folder, 'spiece.model'), Buffer.concat([...all, field(2, field(3, 2))]))
  await failsWith(() => T5Tokenizer.fromFolder(folder), 'ERR_ND_UNSUPPORTED', /unigram/)
})

test.run()
