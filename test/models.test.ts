/** Model folders: components, weight files, tensor names. */
import { cp, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { ClipTextConfig } from '#lib/models/clip-text.js'
import { readVaeFolder } from '#lib/models/folder.js'
import { pixelsPerLatent } from '#lib/models/autoencoder.js'
import { canonicalName, findWeights } from '#lib/models/weights.js'
import {
  copyOf,
  edit,
  failsWith,
  names,
  read,
  readHeader,
  tiny,
  type Json,
  removeCopies
} from './support/model-folders.js'
import { postcard } from './support/paths.js'

const test = suite('models')
test.after(removeCopies)

test('SD1: the tiny model', async () => {
  const model = await read(tiny('sd15'))
  assert.is(model.className, 'StableDiffusionPipeline')
  assert.equal(model.warnings, [])
  assert.is(model.scheduler.className, 'PNDMScheduler')
  assert.is(model.scheduler.config.steps_offset, 1)
  assert.is(model.tokenizer, join(tiny('sd15'), 'tokenizer'))
  assert.is(model.textEncoder2, null)
  assert.is(model.tokenizer2, null)
  assert.equal(model.textEncoder!.config, {
    vocabSize: 847,
    hiddenSize: 32,
    intermediateSize: 128,
    layers: 3,
    heads: 4,
    maxPositions: 77,
    activation: 'quick_gelu',
    layerNormEps: 1e-5,
    eosTokenId: 846,
    projectionDim: 0
  })
  const level = {
    resnets: 2,
    heads: 4,
    transformerLayers: 1,
    upHeads: 4,
    upTransformerLayers: 1,
    contextWidth: 32,
    onlyCross: false,
    upOnlyCross: false
  }
  const plain = { heads: 0, transformerLayers: 0, upHeads: 0, upTransformerLayers: 0 }
  assert.equal(model.unet.config, {
    inChannels: 4,
    outChannels: 4,
    levels: [
      { ...level, channels: 16 },
      { ...level, channels: 32 },
      { ...level, channels: 32 },
      { ...level, ...plain, channels: 32 }
    ],
    midAttention: true,
    midHeads: 4,
    midTransformerLayers: 1,
    midResnets: 2,
    normGroups: 8,
    normEps: 1e-5,
    convInKernel: 3,
    convOutKernel: 3,
    downsamplePadding: 1,
    flipSinToCos: true,
    freqShift: 0,
    timeCondWidth: 0,
    addedTimeWidth: 0,
    addedInputWidth: 0,
    classEmbeds: 0,
    sampleSize: { height: 8, width: 8 }
  })
  assert.equal(model.vae!.config, {
    inChannels: 3,
    outChannels: 3,
    latentChannels: 4,
    channels: [16, 32, 32, 32],
    resnets: 2,
    normGroups: 8,
    quantConv: true,
    postQuantConv: true,
    midAttention: true,
    scalingFactor: 0.18215,
    shiftFactor: 0,
    latentsMean: undefined,
    latentsStd: undefined,
    forceUpcast: true,
    sampleSize: { height: 64, width: 64 }
  })
  assert.is(pixelsPerLatent(model.vae!.config), 8)
  assert.is(names(model.unet).length, 684)
  assert.equal(model.unet.weights.files, [join(tiny('sd15'), 'unet', 'diffusion_pytorch_model.safetensors')])
})

test('SD1 of 2022: missing fields, old names, position_ids and a safety checker give the same model', async () => {
  const [old, now] = await Promise.all([read(tiny('sd15-legacy')), read(tiny('sd15'))])
  assert.equal(old.unet.config, now.unet.config)
  assert.equal(old.vae!.config, now.vae!.config)
  assert.equal(old.textEncoder!.config, now.textEncoder!.config)
  assert.equal(names(old.vae), names(now.vae))
  assert.equal(names(old.textEncoder), names(now.textEncoder))
  const query = old.vae!.weights.tensors.find((t) => t.name === 'decoder.mid_block.attentions.0.to_q.weight')
  assert.is(query!.stored, 'decoder.mid_block.attentions.0.query.weight')
  assert.is(old.warnings.length, 1)
  assert.match(old.warnings[0]!, 'safety checker')
})

test('SD2: heads per level, gelu, v-prediction config as it is', async () => {
  const model = await read(tiny('sd2'))
  assert.equal(
    model.unet.config.levels.map((l) => [l.heads, l.upHeads]),
    [
      [2, 2],
      [4, 4],
      [4, 4],
      [0, 0]
    ]
  )
  assert.is(model.unet.config.midHeads, 4)
  assert.is((model.textEncoder!.config as ClipTextConfig).activation, 'gelu')
  assert.is(model.scheduler.config.prediction_type, 'v_prediction')
})

test('SDXL: two encoders, transformer layers per level, added embedding', async () => {
  const model = await read(tiny('sdxl'))
  const { levels, ...unet } = model.unet.config
  assert.equal(
    levels.map((l) => [l.heads, l.transformerLayers, l.upHeads, l.upTransformerLayers, l.contextWidth]),
    [
      [0, 0, 0, 0, 80],
      [4, 2, 4, 2, 80],
      [4, 3, 4, 3, 80]
    ]
  )
  assert.is(unet.midTransformerLayers, 3)
  assert.is(unet.addedTimeWidth, 8)
  assert.is(unet.addedInputWidth, 88)
  assert.is(model.textEncoder!.config.projectionDim, 0)
  assert.is(model.textEncoder2!.config.projectionDim, 40)
  assert.is(model.forceZerosForEmptyPrompt, true)
  assert.ok(names(model.textEncoder2).includes('text_projection.weight'))
})

test('the bundled model', async () => {
  const model = await read(postcard)
  assert.is(pixelsPerLatent(model.vae!.config), 4)
  assert.is(model.vae!.config.scalingFactor, 0.23099)
  assert.equal(
    model.unet.config.levels.map((l) => [l.channels, l.resnets, l.heads]),
    [
      [48, 1, 4],
      [96, 1, 4],
      [128, 1, 0]
    ]
  )
})

test('tensor names', () => {
  const vae = (stored: string) => canonicalName('vae', stored)
  assert.is(vae('encoder.mid_block.attentions.0.proj_attn.bias'), 'encoder.mid_block.attentions.0.to_out.0.bias')
  assert.is(vae('encoder.mid_block.attentions.0.key.weight'), 'encoder.mid_block.attentions.0.to_k.weight')
  assert.is(vae('encoder.mid_block.attentions.0.to_k.weight'), 'encoder.mid_block.attentions.0.to_k.weight')
  assert.is(canonicalName('unet', 'x.attentions.0.key.weight'), 'x.attentions.0.key.weight')
  const clip = (stored: string) => canonicalName('clip-text', stored)
  assert.is(clip('text_model.embeddings.position_ids'), undefined)
  assert.is(clip('embeddings.token_embedding.weight'), 'text_model.embeddings.token_embedding.weight')
  assert.is(clip('text_projection.weight'), 'text_projection.weight')
  assert.is(clip('vision_model.encoder.layers.0.mlp.fc1.bias'), undefined)
  assert.is(clip('logit_scale'), undefined)
})

test('weights: a name that is stored as it is wins over an old one', async () => {
  const path = await copyOf('sd15')
  const [a, b] = ['decoder.mid_block.attentions.0.to_q.weight', 'decoder.mid_block.attentions.0.query.weight']
  for (const order of [
    [a, b],
    [b, a]
  ]) {
    const weights = await findWeights(join(path, 'vae'), 'vae', () => ({ tensors: order.map((name) => ({ name })) }))
    assert.equal(weights.tensors, [{ name: a, file: 0, stored: a }])
  }
})

test('weights: variants', async () => {
  const path = await copyOf('sd15')
  const unet = join(path, 'unet')
  const base = join(unet, 'diffusion_pytorch_model')
  await cp(`${base}.safetensors`, `${base}.fp16.safetensors`)
  assert.is((await findWeights(unet, 'unet', readHeader)).variant, undefined)
  assert.equal((await findWeights(unet, 'unet', readHeader, 'fp16')).files, [`${base}.fp16.safetensors`])
  await failsWith(() => findWeights(unet, 'unet', readHeader, 'bf16'), 'ERR_ND_MODEL_NOT_FOUND', 'bf16')
  await failsWith(() => findWeights(unet, 'unet', readHeader, '../x'), 'ERR_ND_INVALID_ARGUMENT', 'variant')
  await rm(`${base}.safetensors`)
  await cp(`${base}.fp16.safetensors`, `${base}.a.safetensors`)
  const only = await findWeights(unet, 'unet', readHeader)
  assert.is(only.variant, 'fp16')
  assert.equal(only.files, [`${base}.fp16.safetensors`])
})

test('weights: sharded files and every broken index', async () => {
  const path = await copyOf('sd15')
  const unet = join(path, 'unet')
  const shard = (i: number) => `diffusion_pytorch_model-0000${i}-of-00002.safetensors`
  await rename(join(unet, 'diffusion_pytorch_model.safetensors'), join(unet, shard(1)))
  await cp(join(unet, shard(1)), join(unet, shard(2)))
  const all = readHeader(join(unet, shard(1))).tensors.map((t) => t.name)
  const index = join(unet, 'diffusion_pytorch_model.safetensors.index.json')
  const map = Object.fromEntries(all.map((name, i) => [name, shard(1 + (i % 2))]))
  const find = () => findWeights(unet, 'unet', readHeader)
  const write = (json: unknown) => writeFile(index, typeof json === 'string' ? json : JSON.stringify(json))

  await failsWith(find, 'ERR_ND_MODEL_NOT_FOUND', 'no weights') // shards alone are not a model
  await write({ metadata: {}, weight_map: map })
  const weights = await find()
  assert.equal(weights.files, [join(unet, shard(1)), join(unet, shard(2))])
  assert.is(weights.tensors.length, all.length)
  for (const { name, file, stored } of weights.tensors) {
    assert.is(name, stored)
    assert.is(weights.files[file], join(unet, map[stored]!))
  }
  await write({ weight_map: { ...map, extra: shard(2) } })
  await failsWith(find, 'ERR_ND_MODEL_FORMAT', 'extra', shard(2))
  await write({ weight_map: { ...map, extra: 'gone.safetensors' } })
  await failsWith(find, 'ERR_ND_MODEL_NOT_FOUND', 'gone.safetensors')
  for (const bad of ['../vae/diffusion_pytorch_model.safetensors', 'sub\\x.safetensors', 'x.bin', 7, null]) {
    await write({ weight_map: { ...map, extra: bad } })
    await failsWith(find, 'ERR_ND_MODEL_FORMAT', 'extra')
  }
  for (const json of [{}, { weight_map: [] }, { weight_map: {} }, [], '{']) {
    await write(json)
    await failsWith(find, 'ERR_ND_MODEL_FORMAT', index)
  }
})

test('weights: pickles are refused with the remedy', async () => {
  const path = await copyOf('sd15')
  const file = join(path, 'unet', 'diffusion_pytorch_model')
  await rename(`${file}.safetensors`, `${file}.bin`)
  await failsWith(() => read(path), 'ERR_ND_UNSUPPORTED', 'diffusion_pytorch_model.bin', 'safe_serialization')
  await rm(`${file}.bin`)
  await failsWith(() => read(path), 'ERR_ND_MODEL_NOT_FOUND', 'unet')
})

test('folders: what is missing or broken is named', async () => {
  await failsWith(() => read('/no/such/folder'), 'ERR_ND_MODEL_NOT_FOUND', '/no/such/folder')
  await failsWith(() => read(join(postcard, 'model_index.json')), 'ERR_ND_MODEL_NOT_FOUND', 'model_index.json')
  await failsWith(() => read(join(postcard, 'unet')), 'ERR_ND_MODEL_NOT_FOUND', 'single file')
  for (const part of [
    'unet',
    'vae',
    'text_encoder',
    'tokenizer',
    'scheduler',
    'unet/config.json',
    'scheduler/scheduler_config.json'
  ]) {
    const path = await copyOf('sd15')
    await rm(join(path, part), { recursive: true })
    await failsWith(() => read(path), 'ERR_ND_MODEL_NOT_FOUND', join(path, part))
  }
  for (const part of [
    'model_index.json',
    'unet/config.json',
    'vae/config.json',
    'text_encoder/config.json',
    'scheduler/scheduler_config.json'
  ])
    for (const text of ['{', '[]', '', 'version https://git-lfs.github.com/spec/v1']) {
      const path = await copyOf('sd15')
      await writeFile(join(path, part), text)
      await failsWith(() => read(path), 'ERR_ND_MODEL_FORMAT', join(path, part))
    }
})

test('folders: components and classes', async () => {
  const changed = async (name: string, change: (json: Json) => void): Promise<string> => {
    const path = await copyOf(name)
    await edit(join(path, 'model_index.json'), change)
    return path
  }
  const fails = async (change: (json: Json) => void, code: string, ...texts: string[]): Promise<void> => {
    const path = await changed('sd15', change)
    await failsWith(() => read(path), code, ...texts)
  }
  await fails(
    (j) => (j._class_name = 'FluxPipeline'),
    'ERR_ND_UNSUPPORTED',
    'FluxPipeline',
    'StableDiffusionXLPipeline'
  )
  await fails((j) => delete j._class_name, 'ERR_ND_MODEL_FORMAT', '_class_name')
  for (const name of ['unet', 'vae', 'text_encoder', 'tokenizer', 'scheduler']) {
    await fails((j) => (j[name] = [null, null]), 'ERR_ND_MODEL_FORMAT', name)
    await fails((j) => delete j[name], 'ERR_ND_MODEL_FORMAT', name)
    await fails((j) => (j[name] = 'x'), 'ERR_ND_MODEL_FORMAT', name)
  }
  await fails((j) => (j.unet[1] = 'UNet3DConditionModel'), 'ERR_ND_UNSUPPORTED', 'UNet3DConditionModel')
  await fails((j) => (j.vae[1] = 'AsymmetricAutoencoderKL'), 'ERR_ND_UNSUPPORTED', 'AsymmetricAutoencoderKL')
  await fails((j) => (j.text_encoder[1] = 'T5EncoderModel'), 'ERR_ND_UNSUPPORTED', 'T5EncoderModel')
  await fails((j) => (j.tokenizer[1] = 'T5Tokenizer'), 'ERR_ND_UNSUPPORTED', 'T5Tokenizer')

  assert.is(
    (await read(await changed('sd15', (j) => (j._class_name = 'LatentConsistencyModelPipeline')))).textEncoder2,
    null
  )
  const odd = await read(
    await changed('sd15', (j) => (j.image_encoder = ['transformers', 'CLIPVisionModelWithProjection']))
  )
  assert.match(odd.warnings.join(), 'image_encoder')
  const path = await changed('sdxl', (j) => (j.force_zeros_for_empty_prompt = false))
  assert.is((await read(path)).forceZerosForEmptyPrompt, false)
})

test('folders: components of different models do not fit', async () => {
  const path = await copyOf('sd15')
  await rm(join(path, 'text_encoder'), { recursive: true })
  await cp(join(tiny('sd2'), 'text_encoder'), join(path, 'text_encoder'), { recursive: true })
  await failsWith(() => read(path), 'ERR_ND_MODEL_FORMAT', 'cross_attention_dim', '48')
  const xl = await copyOf('sdxl')
  await edit(join(xl, 'unet', 'config.json'), (j) => (j.projection_class_embeddings_input_dim = 80))
  await failsWith(() => read(xl), 'ERR_ND_MODEL_FORMAT', 'projection_class_embeddings_input_dim 88')
})

test('a VAE on its own', async () => {
  const vae = await readVaeFolder(join(postcard, 'vae'), { readHeader })
  assert.equal('channels' in vae.config && vae.config.channels, [24, 48, 64])
  await failsWith(
    () => readVaeFolder(join(postcard, 'unet'), { readHeader }),
    'ERR_ND_UNSUPPORTED',
    'UNet2DConditionModel'
  )
})

test.run()
