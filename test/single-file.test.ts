/** Checkpoints in the original layouts: recognised from names and shapes, and the same numbers as from the folder. */
import { cpSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ClipTokenizer, type DiffusionError, Pipeline, type Tensor } from 'node-diffusion'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { parseClipTextConfig } from '#lib/models/clip-text.js'
import type { Component, ModelFolder } from '#lib/models/folder.js'
import { readModel, type ReadModelOptions } from '#lib/models/model.js'
import { parseUNetConfig } from '#lib/models/unet.js'
import { parseVaeConfig } from '#lib/models/vae.js'
import { createScheduler } from '#lib/schedulers/index.js'
import { family, optionsOf } from './support/cases.js'
import { relativeError } from './support/compare.js'
import { reference } from './support/paths.js'
import { folderShapes, rawTensors, singleFileShapes, writeShapes, writeTinySingleFile } from './support/single-file.js'

const test = suite('single-file')
const scratch = mkdtempSync(join(tmpdir(), 'nd-single-'))
test.after(() => rmSync(scratch, { recursive: true, force: true }))

type Shapes = Record<string, number[]>
type Options = Omit<ReadModelOptions, 'readHeader'>

const tiny = (name: string): string => join(scratch, `tiny-${name}.safetensors`)
const tinyFolder = (name: string): string => reference('models', `tiny-${name}`)
for (const name of ['sd15', 'sd2', 'sdxl']) writeTinySingleFile(name, tiny(name))

const rejects = async (body: () => unknown, code: string, ...texts: (string | RegExp)[]): Promise<void> => {
  let error: unknown
  try {
    await body()
  } catch (caught) {
    error = caught
  }
  assert.ok(error instanceof Error, `expected ${code}`)
  assert.is((error as DiffusionError).code, code, error.message)
  for (const text of texts) assert.match(error.message, text)
}

/** The description of a file that would have these tensors. */
const describe = (shapes: Shapes, options: Options = {}, metadata: Record<string, string> = {}): Promise<ModelFolder> =>
  readModel('model.safetensors', {
    ...options,
    readHeader: () => ({ tensors: Object.entries(shapes).map(([name, shape]) => ({ name, shape })), metadata })
  })

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
    assert.equal(model.vae.config, expected.vae)
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
  const { scheduler } = await readModel(tinyFolder(name), {
    readHeader: (path) => ({
      tensors: [...rawTensors(path)].map(([tensor, { shape }]) => ({ name: tensor, shape })),
      metadata: {}
    })
  })
  return { ...scheduler.config, _class_name: scheduler.className }
}

test('an inpainting UNet is recognised, and refused by text-to-image', async () => {
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

const noise = (shape: readonly number[], seed: number): Tensor => {
  let state = seed
  const next = (): number => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 31 - 1
  return { data: Float32Array.from({ length: shape.reduce((n, d) => n * d, 1) }, next), shape: [...shape] }
}

/** The largest relative error between two pipelines over every module's outputs. */
const compareModules = async (a: Pipeline, b: Pipeline): Promise<number> => {
  let worst = 0
  const compare = (x: Tensor, y: Tensor): void => {
    assert.equal(x.shape, y.shape)
    worst = Math.max(worst, relativeError(x.data, y.data))
  }
  const { ids } = a.tokenizer.encode('a red fox, a blue house!')
  assert.equal(b.tokenizer.encode('a red fox, a blue house!').ids, ids)
  for (const [x, y] of [
    [a.textEncoder, b.textEncoder],
    [a.textEncoder2, b.textEncoder2]
  ] as const) {
    assert.is(x === undefined, y === undefined)
    if (!x || !y) continue
    const [p, q] = [await x.encode(ids), await y.encode(ids)]
    compare(p.lastHiddenState, q.lastHiddenState)
    compare(p.pooled, q.pooled)
    p.hiddenStates.forEach((h, i) => compare(h, q.hiddenStates[i]!))
    assert.is(p.projected === undefined, q.projected === undefined)
    if (p.projected && q.projected) compare(p.projected, q.projected)
  }
  const { levels, addedTimeWidth, addedInputWidth } = a.unet.config as {
    levels: { contextWidth: number }[]
    addedTimeWidth: number
    addedInputWidth: number
  }
  const request = {
    sample: noise([1, 4, 8, 8], 1),
    timestep: 321,
    context: noise([1, 77, levels[0]!.contextWidth], 2),
    blocks: true,
    ...(addedTimeWidth
      ? { added: { textEmbeds: noise([1, addedInputWidth - 6 * addedTimeWidth], 3), timeIds: noise([1, 6], 4) } }
      : {})
  }
  const [u, v] = [await a.unet.predict(request), await b.unet.predict(request)]
  compare(u.sample, v.sample)
  for (const name of Object.keys(u.blocks!)) compare(u.blocks![name]!, v.blocks![name]!)
  const picture = noise([1, 3, 64, 64], 5)
  const [e, f] = [await a.vae.encode(picture), await b.vae.encode(picture)]
  compare(e.mean, f.mean)
  compare(e.logvar, f.logvar)
  compare(await a.vae.decode(request.sample), await b.vae.decode(request.sample))
  return worst
}

for (const name of ['sd15', 'sd2', 'sdxl'])
  test(`tiny-${name}: every module gives the folder's numbers, and a picture is the reference's`, async () => {
    const file = await Pipeline.fromPretrained(tiny(name), { config: tinyFolder(name) })
    const folder = await Pipeline.fromPretrained(tinyFolder(name))
    const error = await compareModules(file, folder)
    assert.ok(error <= 1e-6, `error ${error}`)
    const { cases, tensors } = family(name)
    const c = cases.find((c) => /^StableDiffusion(XL)?Pipeline$/.test(c.pipeline))!
    const { images } = await file.txt2img(optionsOf(c))
    const actual = images[0]!.toFloat32()
    const expected = tensors.floats(`${c.case}.output`).subarray(0, actual.length)
    assert.ok(relativeError(actual, expected) < 0.02, c.case)
    await file.dispose()
    await folder.dispose()
  })

test('tiny models need config, and say so', async () => {
  for (const name of ['sd15', 'sd2', 'sdxl'])
    await rejects(() => Pipeline.fromPretrained(tiny(name)), 'ERR_ND_UNSUPPORTED', tiny(name), 'config')
})

test('a config of another family, or of other sizes, is refused', async () => {
  const load = (name: string, config: string) => Pipeline.fromPretrained(tiny(name), { config: tinyFolder(config) })
  await rejects(() => load('sd15', 'sdxl'), 'ERR_ND_MODEL_FORMAT')
  await rejects(() => load('sdxl', 'sd15'), 'ERR_ND_MODEL_FORMAT', 'Stable Diffusion XL')
  await rejects(() => load('sd15', 'sd2'), 'ERR_ND_MODEL_FORMAT')
  await rejects(
    () => Pipeline.fromPretrained(tinyFolder('sd15'), { config: scratch }),
    'ERR_ND_INVALID_ARGUMENT',
    'config'
  )
  await rejects(
    () => Pipeline.fromPretrained(tiny('sd15'), { config: join(scratch, 'none') }),
    'ERR_ND_MODEL_NOT_FOUND',
    'none'
  )
  await rejects(
    () => Pipeline.fromPretrained(tiny('sd15'), { config: tinyFolder('sd15'), variant: 'fp16' }),
    'ERR_ND_INVALID_ARGUMENT',
    'variant'
  )
  // Without a tokenizer in config it is CLIP's own, which a small vocabulary has no embeddings for.
  const config = join(scratch, 'no-tokenizer')
  cpSync(tinyFolder('sd15'), config, { recursive: true })
  rmSync(join(config, 'tokenizer'), { recursive: true })
  await rejects(() => Pipeline.fromPretrained(tiny('sd15'), { config }), 'ERR_ND_UNSUPPORTED', 'vocabulary')
})

test('predictionType overrides a folder, too; next to a scheduler instance it is refused', async () => {
  const folder = tinyFolder('sd15')
  const pipe = await Pipeline.fromPretrained(folder, { predictionType: 'v_prediction', scheduler: 'DDIMScheduler' })
  assert.is((pipe.scheduler.toJSON() as { prediction_type: string }).prediction_type, 'v_prediction')
  await rejects(
    () => Pipeline.fromPretrained(folder, { predictionType: 'epsilon', scheduler: pipe.scheduler }),
    'ERR_ND_INVALID_ARGUMENT',
    'predictionType'
  )
  await pipe.dispose()
})

type Raw = ReturnType<typeof rawTensors>
const writeRaw = (path: string, tensors: Raw): void => {
  let offset = 0
  const header = Object.fromEntries(
    [...tensors].map(([name, { dtype, shape, bytes }]) => [
      name,
      { dtype, shape, data_offsets: [offset, (offset += bytes.length)] }
    ])
  )
  const text = Buffer.from(JSON.stringify(header))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(text.length))
  writeFileSync(path, Buffer.concat([length, text, ...[...tensors.values()].map((t) => t.bytes)]))
}

test('another VAE from a file, with and without its prefix; what shapes do not say is the own VAE’s', async () => {
  const tensors = rawTensors(tiny('sdxl'))
  const prefix = 'first_stage_model.'
  const vae = new Map([...tensors].filter(([name]) => name.startsWith(prefix)))
  const bare = new Map([...vae].map(([name, t]) => [name.slice(prefix.length), t]))
  const rest = new Map([...tensors].filter(([name]) => !name.startsWith(prefix)))
  const paths = { vae: join(scratch, 'vae.safetensors'), bare: join(scratch, 'bare.safetensors') }
  writeRaw(paths.vae, vae)
  writeRaw(paths.bare, bare)
  const noVae = join(scratch, 'no-vae.safetensors')
  writeRaw(noVae, rest)
  const config = tinyFolder('sdxl')
  const folder = await Pipeline.fromPretrained(config)
  for (const pipe of [
    await Pipeline.fromPretrained(config, { vae: paths.vae }),
    await Pipeline.fromPretrained(config, { vae: paths.bare }),
    await Pipeline.fromPretrained(noVae, { config, vae: paths.bare }),
    await Pipeline.fromPretrained(tiny('sdxl'), { config, vae: join(config, 'vae') })
  ]) {
    assert.equal({ ...pipe.vae.config }, { ...folder.vae.config })
    assert.ok((await compareModules(pipe, folder)) <= 1e-6)
    await pipe.dispose()
  }
  await folder.dispose()
  await rejects(() => Pipeline.fromPretrained(noVae, { config }), 'ERR_ND_MODEL_FORMAT', 'option vae')
  await rejects(() => Pipeline.fromPretrained(paths.bare), 'ERR_ND_UNSUPPORTED', 'VAE alone', 'option vae')
  const diffusers = join(config, 'vae', 'diffusion_pytorch_model.safetensors')
  await rejects(() => Pipeline.fromPretrained(config, { vae: diffusers }), 'ERR_ND_UNSUPPORTED', 'config.json')
  await rejects(() => Pipeline.fromPretrained(config, { vae: tiny('none') }), 'ERR_ND_MODEL_NOT_FOUND', 'none')
})

test('broken checkpoints: missing, truncated and misshapen tensors', async () => {
  const config = tinyFolder('sd2')
  const broken = join(scratch, 'broken.safetensors')
  const load = () => Pipeline.fromPretrained(broken, { config })
  const change = (edit: (tensors: Raw) => void): void => {
    const tensors = rawTensors(tiny('sd2'))
    edit(tensors)
    writeRaw(broken, tensors)
  }
  const fused = 'cond_stage_model.model.transformer.resblocks.1.attn.in_proj_weight'
  change((t) => t.delete('model.diffusion_model.out.2.bias'))
  await rejects(load, 'ERR_ND_MODEL_FORMAT', 'conv_out.bias')
  change((t) => t.delete(fused))
  await rejects(load, 'ERR_ND_MODEL_FORMAT', 'q_proj')
  for (const rows of [143, 141, 6])
    await rejects(
      () => {
        change((t) => {
          const { dtype, bytes } = t.get(fused)!
          t.set(fused, { dtype, shape: [rows, 48], bytes: bytes.subarray(0, 2 * 48 * rows) })
        })
        return load()
      },
      'ERR_ND_MODEL_FORMAT',
      rows % 3 ? 'multiple of 3' : 'q_proj'
    )
  change((t) => t.set('model.diffusion_model.label_emb.weight', { dtype: 'F16', shape: [1], bytes: Buffer.alloc(2) }))
  await rejects(load, 'ERR_ND_UNSUPPORTED', 'label_emb.weight')
  change((t) =>
    t.set('first_stage_model.encoder.down.0.attn.0.q.weight', { dtype: 'F16', shape: [1], bytes: Buffer.alloc(2) })
  )
  await rejects(load, 'ERR_ND_UNSUPPORTED', 'attn.0.q.weight')
  writeTinySingleFile('sd2', broken)
  truncateSync(broken, 1_000_000)
  await rejects(load, 'ERR_ND_MODEL_FORMAT', 'broken.safetensors')
})

test('other files are refused with what they seem to be', async () => {
  const kinds: [Shapes, string | RegExp][] = [
    [{ 'lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight': [4, 4] }, 'a LoRA'],
    [{ 'unet.down_blocks.0.attentions.0.proj_in.lora_A.weight': [4, 4] }, 'a LoRA'],
    [{ 'control_model.input_blocks.0.0.weight': [4, 4] }, 'a ControlNet'],
    [{ 'controlnet_cond_embedding.conv_in.weight': [4, 4] }, 'a ControlNet'],
    [{ emb_params: [2, 768] }, 'textual inversion'],
    [{ 'model.diffusion_model.joint_blocks.0.context_block.attn.qkv.weight': [4, 4] }, 'Stable Diffusion 3'],
    [{ 'double_blocks.0.img_attn.qkv.weight': [4, 4] }, 'Flux'],
    [{ 'down_blocks.0.resnets.0.conv1.weight': [4, 4] }, 'diffusers layout'],
    [{ 'input_blocks.0.0.weight': [4, 4, 3, 3] }, 'UNet alone'],
    [{ 'something.else': [1] }, 'something.else'],
    [{}, 'no tensors'],
    [
      {
        'model.diffusion_model.input_blocks.0.0.weight': [320, 4, 3, 3],
        'model.diffusion_model.label_emb.0.0.weight': [4, 4],
        'conditioner.embedders.0.model.ln_final.bias': [4]
      },
      'refiner'
    ],
    [{ 'model.diffusion_model.input_blocks.0.0.weight': [320, 4, 3, 3] }, 'text encoder'],
    [{ 'model.diffusion_model.input_blocks.0.0.weight': [320, 4, 3, 3], scaled_fp8: [0] }, 'quantized']
  ]
  const path = join(scratch, 'foreign.safetensors')
  for (const [shapes, what] of kinds) {
    writeShapes(path, shapes)
    await rejects(() => Pipeline.fromPretrained(path), 'ERR_ND_UNSUPPORTED', path, what)
  }
  await rejects(() => Pipeline.fromPretrained('model.ckpt'), 'ERR_ND_UNSUPPORTED', 'pickled')
  await rejects(
    () => Pipeline.fromPretrained(join(scratch, 'no.safetensors')),
    'ERR_ND_MODEL_NOT_FOUND',
    'no.safetensors'
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
