/** Checkpoints in the original layouts at their real sizes: recognised from names and shapes alone. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { ClipTokenizer } from 'node-diffusion'
import { parseClipTextConfig } from '#lib/models/clip-text.js'
import type { Component, ModelFolder } from '#lib/models/folder.js'
import { readModel, type ReadModelOptions } from '#lib/models/model.js'
import { parseUNetConfig } from '#lib/models/unet.js'
import { parseVaeConfig } from '#lib/models/vae.js'
import { createScheduler } from '#lib/schedulers/index.js'
import { reference } from './support/paths.js'
import { folderShapes, rawTensors, refinerFile, rejects, type Shapes, singleFileShapes } from './support/single-file.js'

const test = suite('single-file-names')

type Options = Omit<ReadModelOptions, 'readHeader'>

/** The description of a file that would have these tensors. */
const describe = (shapes: Shapes, options: Options = {}, metadata: Record<string, string> = {}): Promise<ModelFolder> =>
  readModel('model.safetensors', {
    ...options,
    readHeader: () => ({ tensors: Object.entries(shapes).map(([name, shape]) => ({ name, shape })), metadata })
  }) as Promise<ModelFolder>

const components = (model: ModelFolder): Record<string, Component<object> | null> => ({
  unet: model.unet,
  vae: model.vae,
  text_encoder: model.textEncoder,
  text_encoder_2: model.textEncoder2
})

const plain = (shape: readonly number[]): string => shape.join().replace(/(,1)+$/, '')

/** Every tensor that the diffusers layout has is found once, under its name, in a part of the file with its shape. */
const checkNames = (model: ModelFolder, single: Shapes, folder: Record<string, Shapes>): void => {
  for (const [name, component] of Object.entries(components(model))) {
    const expected = folder[name]
    assert.is(component === null, expected === undefined, name)
    if (!component || !expected) continue
    const found = component.weights.tensors.filter((t) => t.name in expected)
    assert.equal(found.map((t) => t.name).sort(), Object.keys(expected).sort(), name)
    for (const { name: present, stored, view } of found) {
      let shape = single[stored]!
      if (view?.rows) shape = [view.rows[1] - view.rows[0], ...shape.slice(1)]
      if (view?.transpose) shape = [...shape].reverse()
      assert.is(plain(shape), plain(expected[present]!), `${name} ${present}`)
    }
  }
}

/** What diffusers' and transformers' repositories say of the real models. */
const real = (name: 'sd15' | 'sd2' | 'sdxl') => {
  const xl = name === 'sdxl'
  const cross = 'CrossAttnDownBlock2D'
  const crossUp = 'CrossAttnUpBlock2D'
  const unet = {
    sd15: {
      block_out_channels: [320, 640, 1280, 1280],
      down_block_types: [cross, cross, cross, 'DownBlock2D'],
      up_block_types: ['UpBlock2D', crossUp, crossUp, crossUp],
      cross_attention_dim: 768,
      attention_head_dim: 8,
      sample_size: 64
    },
    sd2: {
      block_out_channels: [320, 640, 1280, 1280],
      down_block_types: [cross, cross, cross, 'DownBlock2D'],
      up_block_types: ['UpBlock2D', crossUp, crossUp, crossUp],
      cross_attention_dim: 1024,
      attention_head_dim: [5, 10, 20, 20],
      use_linear_projection: true,
      sample_size: 96
    },
    sdxl: {
      block_out_channels: [320, 640, 1280],
      down_block_types: ['DownBlock2D', cross, cross],
      up_block_types: [crossUp, crossUp, 'UpBlock2D'],
      cross_attention_dim: 2048,
      attention_head_dim: [5, 10, 20],
      transformer_layers_per_block: [1, 2, 10],
      use_linear_projection: true,
      addition_embed_type: 'text_time',
      addition_time_embed_dim: 256,
      projection_class_embeddings_input_dim: 2816,
      sample_size: 128
    }
  }[name]
  const clipL = {
    hidden_size: 768,
    intermediate_size: 3072,
    num_hidden_layers: 12,
    num_attention_heads: 12,
    hidden_act: 'quick_gelu'
  }
  const vitH = {
    hidden_size: 1024,
    intermediate_size: 4096,
    num_hidden_layers: 23,
    num_attention_heads: 16,
    hidden_act: 'gelu'
  }
  const bigG = {
    hidden_size: 1280,
    intermediate_size: 5120,
    num_hidden_layers: 32,
    num_attention_heads: 20,
    hidden_act: 'gelu',
    projection_dim: 1280
  }
  return {
    unet: parseUNetConfig(unet, 'expected'),
    vae: parseVaeConfig(
      {
        block_out_channels: [128, 256, 512, 512],
        layers_per_block: 2,
        down_block_types: Array<string>(4).fill('DownEncoderBlock2D'),
        up_block_types: Array<string>(4).fill('UpDecoderBlock2D'),
        scaling_factor: xl ? 0.13025 : 0.18215,
        sample_size: 8 * unet.sample_size
      },
      'expected'
    ),
    text: parseClipTextConfig(name === 'sd2' ? vitH : clipL, 'CLIPTextModel', 'expected'),
    text2: xl ? parseClipTextConfig(bigG, 'CLIPTextModelWithProjection', 'expected') : undefined
  }
}

for (const name of ['sd15', 'sd2', 'sdxl'] as const)
  test(`${name} at its real size: configurations and names from shapes alone`, async () => {
    const shapes = singleFileShapes(name)
    const model = await describe(shapes)
    const expected = real(name)
    assert.equal(model.unet.config, expected.unet)
    assert.equal(model.vae!.config, expected.vae)
    assert.equal(model.textEncoder!.config, expected.text)
    assert.equal(model.textEncoder2?.config, expected.text2)
    checkNames(model, shapes, folderShapes(name))
    assert.is(model.className, name === 'sdxl' ? 'StableDiffusionXLPipeline' : 'StableDiffusionPipeline')
    const { className, config } = model.scheduler
    const scheduler = createScheduler({ ...config, _class_name: className })
    assert.equal(scheduler.warnings, [])
    const known = createScheduler(await readFolderScheduler(name))
    assert.is(scheduler.constructor, known.constructor)
    assert.equal(scheduler.plan(20), known.plan(20))
    assert.equal(model.tokenizer, { builtIn: 'clip', padToken: name === 'sd2' ? '!' : '<|endoftext|>' })
    assert.equal(model.tokenizer2, name === 'sdxl' ? { builtIn: 'clip', padToken: '!' } : null)
    assert.is(model.warnings.length, name === 'sd2' ? 1 : 0)
  })

/** The tiny models have the schedulers of the real ones' repositories. */
const readFolderScheduler = async (name: string): Promise<{ _class_name: string }> => {
  const { scheduler } = await readModel(reference('models', `tiny-${name}`), {
    readHeader: (path) => ({
      tensors: [...rawTensors(path)].map(([tensor, { shape }]) => ({ name: tensor, shape })),
      metadata: {}
    })
  })
  return { ...scheduler.config, _class_name: scheduler.className }
}

test("SDXL's refiner at its real size", async () => {
  const folder = folderShapes('sdxl-refiner')
  const shapes = Object.fromEntries(
    refinerFile(Object.entries(folder['unet']!), Object.entries(singleFileShapes('sdxl')))
  )
  const model = await describe(shapes)
  checkNames(model, shapes, folder)
  assert.is(model.className, 'StableDiffusionXLImg2ImgPipeline')
  assert.ok(model.requiresAestheticsScore)
  assert.not.ok(model.forceZerosForEmptyPrompt)
  const [down, up] = ['CrossAttnDownBlock2D', 'CrossAttnUpBlock2D']
  const expected = parseUNetConfig(
    {
      block_out_channels: [384, 768, 1536, 1536],
      down_block_types: ['DownBlock2D', down, down, 'DownBlock2D'],
      up_block_types: ['UpBlock2D', up, up, 'UpBlock2D'],
      cross_attention_dim: 1280,
      attention_head_dim: [6, 12, 24, 24],
      transformer_layers_per_block: 4,
      use_linear_projection: true,
      addition_embed_type: 'text_time',
      addition_time_embed_dim: 256,
      projection_class_embeddings_input_dim: 2560,
      sample_size: 128
    },
    'expected'
  )
  const attending = (unet: typeof expected) =>
    unet.levels.map((level) => ({
      ...level,
      ...(level.heads ? {} : { transformerLayers: 0 }),
      ...(level.upHeads ? {} : { upTransformerLayers: 0 })
    }))
  assert.equal(
    { ...model.unet.config, levels: attending(model.unet.config) },
    { ...expected, levels: attending(expected) }
  )
  assert.is(model.textEncoder, null)
  assert.equal(model.textEncoder2!.config, real('sdxl').text2)
  assert.equal(model.vae!.config, real('sdxl').vae)
})

test('an inpainting UNet is recognised', async () => {
  const shapes = singleFileShapes('sd15-inpaint')
  const model = await describe(shapes)
  assert.is(model.unet.config.inChannels, 9)
  assert.equal({ ...model.unet.config, inChannels: 4 }, real('sd15').unet)
  checkNames(model, shapes, folderShapes('sd15-inpaint'))
})

test("SD2's last layer, where a file has it, is not run; its projection and EMA weights are not needed", async () => {
  const shapes = singleFileShapes('sd2')
  const block = 'cond_stage_model.model.transformer.resblocks.'
  for (const [name, shape] of Object.entries(shapes)) {
    if (name.startsWith(`${block}22.`)) shapes[name.replace('.22.', '.23.')] = shape
    if (name.startsWith('model.diffusion_model.'))
      shapes[`model_ema.${name.slice('model.'.length).replaceAll('.', '')}`] = shape
  }
  shapes['cond_stage_model.model.text_projection'] = [1024, 1024]
  shapes['cond_stage_model.model.logit_scale'] = []
  for (const name of ['alphas_cumprod', 'betas']) shapes[name] = [1000]
  const model = await describe(shapes)
  assert.equal(model.textEncoder!.config, real('sd2').text)
  checkNames(model, shapes, folderShapes('sd2'))
  // The same in generative-models' naming.
  const sgm = Object.fromEntries(
    Object.entries(shapes).map(([name, s]) => [name.replace('cond_stage_model.', 'conditioner.embedders.0.'), s])
  )
  const other = await describe(sgm)
  assert.equal(other.textEncoder!.config, real('sd2').text)
  checkNames(other, sgm, folderShapes('sd2'))
})

test('what the UNet predicts: option, marker, metadata, default', async () => {
  const predicts = async (shapes: Shapes, options: Options = {}, metadata: Record<string, string> = {}) => {
    const model = await describe(shapes, options, metadata)
    return [model.scheduler.config.prediction_type, model.unet.config.sampleSize!.width, model.warnings.length]
  }
  const sd15 = singleFileShapes('sd15')
  const sd2 = singleFileShapes('sd2')
  const sdxl = singleFileShapes('sdxl')
  const spec = (type: string) => ({ 'modelspec.prediction_type': type })
  assert.equal(await predicts(sd15), ['epsilon', 64, 0])
  assert.equal(await predicts(sd15, {}, spec('v')), ['v_prediction', 64, 0])
  assert.equal(await predicts(sd15, { predictionType: 'epsilon' }, spec('v')), ['epsilon', 64, 0])
  assert.equal(await predicts(sd2), ['v_prediction', 96, 1])
  assert.equal(await predicts(sd2, { predictionType: 'v_prediction' }), ['v_prediction', 96, 0])
  assert.equal(await predicts(sd2, { predictionType: 'epsilon' }), ['epsilon', 64, 0])
  assert.equal(await predicts(sd2, {}, spec('epsilon')), ['epsilon', 64, 0])
  const inpaint = { ...sd2, 'model.diffusion_model.input_blocks.0.0.weight': [320, 9, 3, 3] }
  assert.equal(await predicts(inpaint), ['epsilon', 64, 0])
  assert.equal(await predicts({ ...sdxl, v_pred: [0] }), ['v_prediction', 128, 0])
  const { scheduler, warnings } = await describe({ ...sdxl, v_pred: [0], ztsnr: [0] })
  assert.is(scheduler.config.rescale_betas_zero_snr, true)
  assert.is(scheduler.config.timestep_spacing, 'trailing')
  assert.match(warnings[0]!, 'ztsnr')
  await rejects(() => describe(sd15, {}, spec('nonsense')), 'ERR_ND_MODEL_FORMAT', 'predictionType')
  await rejects(() => describe({ ...sdxl, edm_mean: [4] }), 'ERR_ND_UNSUPPORTED', 'edm_mean', 'config')
  await rejects(() => describe(sd15, { predictionType: 'v' as 'sample' }), 'ERR_ND_INVALID_ARGUMENT', 'predictionType')
})

test('depths and levels that differ from the released models', async () => {
  const shapes = singleFileShapes('sdxl')
  const without = (pattern: RegExp): Shapes =>
    Object.fromEntries(Object.entries(shapes).filter(([name]) => !pattern.test(name)))
  const model = await describe(
    without(/diffusion_model\.(input_blocks\.[78]|output_blocks\.[012]|middle_block)\.1\.transformer_blocks\.[4-9]/)
  )
  assert.equal(
    model.unet.config.levels.map((l) => [l.transformerLayers, l.upTransformerLayers]),
    [
      [0, 0],
      [2, 2],
      [4, 4]
    ]
  )
  assert.is(model.unet.config.midTransformerLayers, 4)
  const up = await describe(without(/diffusion_model\.output_blocks\.[012]\.1\.transformer_blocks\.[4-9]/))
  assert.equal(
    up.unet.config.levels.map((l) => [l.transformerLayers, l.upTransformerLayers]),
    [
      [0, 0],
      [2, 2],
      [10, 4]
    ]
  )
  await rejects(
    () => describe(without(/diffusion_model\.input_blocks\.8\.1\.transformer_blocks\.9/)),
    'ERR_ND_UNSUPPORTED',
    'transformer blocks'
  )
  await rejects(
    () => describe(without(/diffusion_model\.input_blocks\.8\.1\.transformer_blocks\.5/)),
    'ERR_ND_MODEL_FORMAT',
    'transformer_blocks.5'
  )
})

test('"!" pads as in the tokenizers of SD2 and SDXL', () => {
  const tokenizer = ClipTokenizer.clip('!')
  assert.is(tokenizer.padTokenId, 0)
  assert.equal(tokenizer.encode('a fox', { maxLength: 6 }).ids, [49406, 320, 3240, 49407, 0, 0])
  // A special token is one wherever it stands in the text.
  assert.equal(tokenizer.tokenize('fox!'), [3240, 0])
  assert.equal(ClipTokenizer.clip().tokenize('fox!'), [3240, 256])
  assert.is(ClipTokenizer.clip().padTokenId, 49407)
})

test.run()
