/** Checkpoints in the original layouts: the same numbers as from the folder; other VAEs; broken and foreign files. */
import { cpSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Pipeline, type Tensor } from 'node-diffusion'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { family, optionsOf } from './support/cases.js'
import { relativeError } from './support/compare.js'
import { reference } from './support/paths.js'
import { refinerModel } from './support/picture-models.js'
import {
  rawTensors,
  refinerFile,
  rejects,
  type Shapes,
  singleFileShapes,
  writeShapes,
  writeTensors,
  writeTinySingleFile
} from './support/single-file.js'

const test = suite('single-file')
const scratch = mkdtempSync(join(tmpdir(), 'nd-single-'))
test.after(() => rmSync(scratch, { recursive: true, force: true }))

const tiny = (name: string): string => join(scratch, `tiny-${name}.safetensors`)
const tinyFolder = (name: string): string => reference('models', `tiny-${name}`)
for (const name of ['sd15', 'sd2', 'sdxl']) writeTinySingleFile(name, tiny(name))

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
  compare(e.logvar!, f.logvar!)
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

/** The shapes of a real model with narrower layers, whose heads and groups still follow the real models' rules. */
const narrow = (name: string): Shapes => {
  const unet = (d: number): number => ({ 768: 64, 1024: 64, 2048: 128, 2816: 64 + 6 * 256 })[d] ?? (d % 320 ? d : d / 5)
  const vae = (d: number): number => (d % 128 ? d : d / 4)
  const text =
    (width: number) =>
    (d: number): number =>
      d % width ? d : (64 * d) / width
  const size = (tensor: string): ((d: number) => number) => {
    if (tensor.startsWith('model.')) return unet
    if (tensor.startsWith('first_stage_model.')) return vae
    return text(name === 'sd2' ? 1024 : tensor.startsWith('conditioner.embedders.1.') ? 1280 : 768)
  }
  return Object.fromEntries(
    Object.entries(singleFileShapes(name)).map(([tensor, shape]) => [tensor, shape.map(size(tensor))])
  )
}

for (const name of ['sd15', 'sd2', 'sdxl'])
  test(`${name}: a file alone loads and paints`, async () => {
    const path = join(scratch, `narrow-${name}.safetensors`)
    writeShapes(path, narrow(name))
    const pipe = await Pipeline.fromPretrained(path)
    assert.is(pipe.tokenizer.vocabSize, 49408)
    assert.is(pipe.tokenizer.padTokenId, name === 'sd2' ? 0 : 49407)
    assert.is(pipe.tokenizer2?.padTokenId, name === 'sdxl' ? 0 : undefined)
    assert.is(pipe.warnings.length, name === 'sd2' ? 1 : 0)
    const { images } = await pipe.txt2img({ prompt: 'a fox!', steps: 1, width: 64, height: 64, seed: 1 })
    // Weights of zero decode to the middle of the range.
    assert.ok(images[0]!.data.every((v) => v === 127 || v === 128))
    await pipe.dispose()
    rmSync(path)
  })

test('an inpainting checkpoint is one, and text-to-image refuses it', async () => {
  const path = join(scratch, 'inpaint.safetensors')
  const input = 'model.diffusion_model.input_blocks.0.0.weight'
  writeShapes(path, { ...narrow('sd15'), [input]: [64, 9, 3, 3] })
  const pipe = await Pipeline.fromPretrained(path)
  assert.equal([...pipe.tasks], ['inpaint'])
  await rejects(() => pipe.txt2img({ prompt: 'x', steps: 1 }), 'ERR_ND_UNSUPPORTED', 'inpaint')
  await pipe.dispose()
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

test("SDXL's refiner: the same latents as from its folder", async () => {
  const folder = refinerModel(join(scratch, 'refiner'))
  const path = join(scratch, 'refiner.safetensors')
  const unet = rawTensors(join(folder, 'unet', 'diffusion_pytorch_model.safetensors'))
  writeTensors(path, refinerFile(unet, rawTensors(tiny('sdxl'))))
  const image = {
    data: Uint8Array.from({ length: 64 * 64 * 3 }, (_, i) => (7 * i) % 256),
    width: 64,
    height: 64,
    channels: 3 as const
  }
  const run = async (...source: [string, { config: string }?]) => {
    const pipe = await Pipeline.fromPretrained(...source)
    assert.equal(pipe.tasks, ['img2img', 'inpaint'])
    const { latents } = await pipe.img2img({
      prompt: 'a cat',
      image,
      strength: 0.5,
      steps: 4,
      seed: 1,
      aestheticScore: 7
    })
    await pipe.dispose()
    return latents.data
  }
  assert.equal(await run(path, { config: folder }), await run(folder))
  await rejects(
    () => Pipeline.fromPretrained(path, { config: tinyFolder('sdxl') }),
    'ERR_ND_MODEL_FORMAT',
    /text_encoder|StableDiffusionXLPipeline/
  )
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

test.run()
