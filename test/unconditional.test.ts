/** Diffusion in pixel space without a condition: UNet2DModel, DDPMPipeline, DDIMPipeline. */
import { cpSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createScheduler, Generator, Pipeline, runPlan, type StepEvent, type Tensor } from 'node-diffusion'
import { parseUNet2dConfig } from '#lib/models/unet2d.js'
import { canonicalName } from '#lib/models/weights.js'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { pictureError, relativeError } from './support/compare.js'
import { fails } from './support/fails.js'
import { editJson } from './support/picture-models.js'
import { reference } from './support/paths.js'
import { TestFile } from './support/safetensors.js'
import { rawTensors, writeTensors } from './support/single-file.js'

const test = suite('unconditional')
const scratch = mkdtempSync(join(tmpdir(), 'nd-ddpm-'))
test.after(() => rmSync(scratch, { recursive: true, force: true }))

const model = reference('models', 'tiny-ddpm')
const file = new TestFile(reference('tiny', 'ddpm.safetensors'))
const copy = (name: string): string => {
  const folder = join(scratch, name)
  cpSync(model, folder, { recursive: true })
  return folder
}
let pipe: Pipeline

test('one evaluation, and the reference pictures', async () => {
  pipe = await Pipeline.fromPretrained(model)
  assert.equal([...pipe.tasks], ['unconditional'])
  const sample: Tensor = { data: file.floats('unet.in_sample'), shape: [2, 3, 16, 16] }
  const out = await pipe.unet.predict({ sample, timestep: [...file.floats('unet.in_timesteps')] })
  const error = relativeError(out.sample.data, file.floats('unet.out'))
  assert.ok(error < 2e-5, `UNet2DModel: ${error}`)

  const result = await pipe.unconditional({ steps: 8, seed: 1029, count: 2 })
  const pictures = Float32Array.from(result.latents.data, (v) => Math.min(Math.max(v / 2 + 0.5, 0), 1))
  const expected = file.floats('unconditional.output') // NHWC
  const nhwc = Float32Array.from(
    expected,
    (_, i) => pictures[(Math.floor(i / 768) * 3 + (i % 3)) * 256 + (Math.floor(i / 3) % 256)]!
  )
  const pixels = relativeError(nhwc, expected)
  assert.ok(pixels < 1e-4, `DDPMPipeline: ${pixels}`)
  const bytes = Uint8Array.from([...result.images[0]!.data, ...result.images[1]!.data])
  assert.ok(pictureError(bytes, expected) < 0.3)
  assert.equal([...result.seeds], [null, null]) // DDPM draws on the way: no picture can be drawn alone
  assert.equal([...(await pipe.unconditional({ steps: 2, seed: [4, 5], count: 2 })).seeds], [4, 5])
  console.log(`unconditional: UNet2DModel ${error.toExponential(2)}, DDPMPipeline ${pixels.toExponential(2)}`)
})

test('the loop is the scheduler’s plan around the UNet', async () => {
  const seed = 11
  const noise = new Generator(seed).randn([1, 3, 16, 16])
  const scheduler = createScheduler('DDIMScheduler', pipe.scheduler.toJSON())
  const plan = scheduler.plan(5, { eta: 0 })
  const events: StepEvent[] = []
  const result = await pipe.unconditional({
    steps: 5,
    seed,
    scheduler: 'DDIMScheduler',
    stepLatents: true,
    preview: { every: 2 },
    onStep: (e) => void events.push(e)
  })
  const outputs = await Promise.all(
    events.map((e, i) => pipe.unet.predict({ sample: i === 0 ? noise : events[i - 1]!.latents!, timestep: e.timestep }))
  )
  const again = runPlan(plan, { shape: [1, 3, 16, 16], latents: noise }, (_, __, row) => outputs[row]!.sample.data)
  assert.ok(relativeError(result.latents.data, again.data) < 1e-5)
  assert.equal(
    events.map((e) => e.images?.length ?? 0),
    [0, 1, 0, 1, 1]
  )
  // epsilon-prediction: the predicted noise is the model's output.
  events.forEach((e, i) => assert.ok(relativeError(e.predictedNoise!.data, outputs[i]!.sample.data) < 1e-6))
  const given = await pipe.unconditional({ steps: 5, latents: noise, scheduler: 'DDIMScheduler' })
  assert.equal(given.latents.data, result.latents.data)
  assert.is(result.seeds[0], 11)
  assert.match(result.images[0]!.parameters!, /Steps: 5.*Seed: 11.*Size: 16x16/s)
  const wide = await pipe.unconditional({ steps: 1, seed: 1, width: 24, height: 8 })
  assert.equal([wide.images[0]!.width, wide.images[0]!.height], [24, 8])
  const steps: string[] = []
  for await (const e of pipe.stream('unconditional', { steps: 3, seed: 1 })) steps.push(e.type)
  assert.equal(steps, ['step', 'step', 'step', 'result'])
})

test('DDIMPipeline converts the scheduler; η draws noise', async () => {
  const folder = copy('ddim')
  editJson(join(folder, 'model_index.json'), (json) => (json['_class_name'] = 'DDIMPipeline'))
  await using ddim = await Pipeline.fromPretrained(folder)
  assert.is(ddim.scheduler.className, 'DDIMScheduler')
  const still = await ddim.unconditional({ steps: 4, seed: 2 })
  const moving = await ddim.unconditional({ steps: 4, seed: 2, eta: 1 })
  assert.not.equal(still.latents.data, moving.latents.data)
  const same = await pipe.unconditional({ steps: 4, seed: 2, scheduler: 'DDIMScheduler' })
  assert.equal(same.latents.data, still.latents.data)
})

test('names of 2022, a grey model, predicted variance', async () => {
  const old = 'mid_block.attentions.0.'
  for (const [before, after] of [
    ['query', 'to_q'],
    ['key', 'to_k'],
    ['value', 'to_v'],
    ['proj_attn', 'to_out.0']
  ])
    assert.is(canonicalName('unet2d', `${old}${before}.weight`), `${old}${after}.weight`)
  const folder = copy('grey')
  const path = join(folder, 'unet', 'diffusion_pytorch_model.safetensors')
  const shrink = (bytes: Buffer, shape: number[], axis: 0 | 1): { bytes: Buffer; shape: number[] } => {
    if (axis === 0) return { bytes: bytes.subarray(0, bytes.length / shape[0]!), shape: [1, ...shape.slice(1)] }
    const [rows, columns, ...rest] = shape as [number, number, ...number[]]
    const each = 2 * rest.reduce((a, b) => a * b, 1)
    const kept = Array.from({ length: rows }, (_, r) => bytes.subarray(r * columns * each, (r * columns + 1) * each))
    return { bytes: Buffer.concat(kept), shape: [rows, 1, ...rest] }
  }
  const tensors = [...rawTensors(path)].map(([name, t]) => {
    const dtype = t.dtype
    if (name === 'conv_in.weight') return [name, { dtype, ...shrink(t.bytes, t.shape, 1) }] as const
    if (name.startsWith('conv_out.')) return [name, { dtype, ...shrink(t.bytes, t.shape, 0) }] as const
    return [name.replace('.to_q.', '.query.').replace('.to_out.0.', '.proj_attn.'), t] as const
  })
  writeTensors(path, tensors)
  editJson(join(folder, 'unet', 'config.json'), (c) => Object.assign(c, { in_channels: 1, out_channels: 1 }))
  await using grey = await Pipeline.fromPretrained(folder)
  const { images, latents } = await grey.unconditional({ steps: 2, seed: 1 })
  assert.equal([...latents.shape], [1, 1, 16, 16])
  const { data } = images[0]!
  for (let i = 0; i < 256; i++) assert.ok(data[3 * i] === data[3 * i + 1] && data[3 * i] === data[3 * i + 2])
})

test('what it refuses', async () => {
  await fails(() => pipe.txt2img({ prompt: 'a' }), 'ERR_ND_UNSUPPORTED', /txt2img.*unconditional/)
  await fails(() => pipe.img2img({ prompt: 'a', image: 'x.png' }), 'ERR_ND_UNSUPPORTED', /unconditional/)
  assert.throws(() => pipe.vae, /paints pixels/)
  assert.throws(() => pipe.tokenizer, /without text/)
  assert.throws(() => pipe.textEncoder, /without text/)
  await using text = await Pipeline.fromPretrained(reference('models', 'tiny-sd15'))
  await fails(() => text.unconditional({}), 'ERR_ND_UNSUPPORTED', /unconditional.*txt2img/)
  const bad = (o: object, words: RegExp): Promise<void> =>
    fails(() => pipe.unconditional(o), 'ERR_ND_INVALID_ARGUMENT', words)
  await bad({ prompt: 'a' }, /unconditional/)
  await bad({ width: 18 }, /width/)
  await bad({ steps: 0 }, /steps/)
  await bad({ steps: 1001 }, /steps/)
  await bad({ count: 2, seed: [1] }, /seed/)
  await bad({ eta: 2 }, /eta/)
  await bad({ latents: { data: new Float32Array(3), shape: [1, 3, 1, 1] } }, /latents/)
  const stop = new AbortController()
  stop.abort(new Error('enough'))
  try {
    await pipe.unconditional({ steps: 2, signal: stop.signal })
    assert.unreachable()
  } catch (error) {
    assert.is((error as Error).message, 'enough')
  }
  for (const [key, value] of Object.entries({
    time_embedding_type: 'fourier',
    class_embed_type: 'timestep',
    num_class_embeds: 10,
    resnet_time_scale_shift: 'scale_shift',
    mid_block_scale_factor: 1.4,
    downsample_type: 'resnet',
    center_input_sample: true,
    down_block_types: ['SkipDownBlock2D', 'AttnSkipDownBlock2D', 'DownBlock2D', 'DownBlock2D']
  }))
    assert.throws(() => parseUNet2dConfig({ [key]: value }, 'c'), new RegExp(key))
  const plain = parseUNet2dConfig({ attention_head_dim: null, add_attention: false, downsample_padding: 0 }, 'c')
  assert.equal(
    plain.levels.map((l) => [l.heads, l.upHeads]),
    [
      [0, 0],
      [1, 1],
      [1, 1],
      [1, 1]
    ]
  )
  assert.is(plain.midHeads, 0)
  const sde = copy('sde')
  editJson(join(sde, 'model_index.json'), (json) => (json['_class_name'] = 'ScoreSdeVePipeline'))
  await fails(() => Pipeline.fromPretrained(sde), 'ERR_ND_UNSUPPORTED', /ScoreSdeVePipeline/)
  await pipe.dispose()
})

test.run()
