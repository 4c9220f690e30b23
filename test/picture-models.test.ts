/**
 * Models that take a picture beside the latents, and SDXL's refiner, evaluated by hand: the first prediction after guidance
 * is what the definition makes of the UNet's outputs. The models are cut out of others, as the references' own are large.
 */
import { cpSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createScheduler, Generator, Pipeline, type RawImage, type StepEvent, type Tensor } from 'node-diffusion'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { relativeError } from './support/compare.js'
import { editJson, inpaintModel, narrow } from './support/picture-models.js'
import { reference } from './support/paths.js'

const test = suite('picture models')
const scratch = mkdtempSync(join(tmpdir(), 'nd-models-'))
test.after(() => rmSync(scratch, { recursive: true, force: true }))

const image: RawImage = {
  data: new Uint8Array(new Generator(1).randn([48, 64, 3]).data.map((v) => Math.min(255, Math.max(0, 128 + 50 * v)))),
  width: 64,
  height: 48,
  channels: 3
}
const stacked = (...parts: Tensor[]): Tensor => ({
  data: Float32Array.from(parts.flatMap((t) => [...t.data])),
  shape: [parts.reduce((n, t) => n + t.shape[0]!, 0), ...parts[0]!.shape.slice(1)]
})
/** [B, L, C1] and [B, L, C2] side by side. */
const sideBySide = (a: Tensor, b: Tensor): Tensor => {
  const [batch, length, first] = a.shape as [number, number, number]
  const width = first + b.shape[2]!
  const data = new Float32Array(batch * length * width)
  for (let r = 0; r < batch * length; r++) {
    data.set(a.data.subarray(r * first, (r + 1) * first), r * width)
    data.set(b.data.subarray(r * (width - first), (r + 1) * (width - first)), r * width + first)
  }
  return { data, shape: [batch, length, width] }
}

test('InstructPix2Pix: guidance over nothing, the picture, the picture and the text', async () => {
  const folder = inpaintModel(join(scratch, 'edit'))
  narrow(folder, 'conv_in.weight', 8)
  editJson(join(folder, 'unet', 'config.json'), (c) => (c['in_channels'] = 8))
  editJson(join(folder, 'model_index.json'), (c) => (c['_class_name'] = 'StableDiffusionInstructPix2PixPipeline'))
  const pipe = await Pipeline.fromPretrained(folder)
  assert.equal(pipe.tasks, ['edit'])
  const prompt = 'make it blue'
  const negativePrompt = 'dark'
  const [scale, imageScale] = [7, 1.6]
  const events: StepEvent[] = []
  const scheduler = createScheduler('Euler', pipe.scheduler.toJSON())
  const call = { prompt, negativePrompt, image, steps: 3, seed: 4, scheduler }
  const out = await pipe.edit({
    ...call,
    guidanceScale: scale,
    imageGuidanceScale: imageScale,
    stepLatents: true,
    onStep: (e) => events.push(e)
  })
  assert.equal([out.images[0]!.width, out.images[0]!.height], [64, 48])

  const pixels = image.width * image.height
  const picture = new Float32Array(pixels * 3)
  for (let i = 0; i < pixels; i++)
    for (let c = 0; c < 3; c++) picture[c * pixels + i] = image.data[i * 3 + c]! / 127.5 - 1
  const { mean } = await pipe.vae.encode({ data: picture, shape: [1, 3, 48, 64] })
  const plan = scheduler.plan(3)
  const noise = new Generator(4).randn([1, 4, 6, 8]).data
  const x = noise.map((v) => v * plan.initNoiseSigma * plan.rows[0]!.inputScale)
  const input = (latents: Float32Array): Tensor => ({ data: Float32Array.of(...x, ...latents), shape: [1, 8, 6, 8] })
  const ids = [prompt, negativePrompt].map((p) => pipe.tokenizer.encode(p).ids)
  const text = (await pipe.textEncoder.encode([ids[0]!, ids[1]!, ids[1]!])).lastHiddenState
  const nothing = new Float32Array(mean.data.length)
  const { sample } = await pipe.unet.predict({
    sample: stacked(input(mean.data), input(mean.data), input(nothing)),
    timestep: plan.rows[0]!.timestep,
    context: text
  })
  const each = mean.data.length
  const expected = Array.from({ length: each }, (_, i) => {
    const [t, p, u] = [sample.data[i]!, sample.data[each + i]!, sample.data[2 * each + i]!]
    return u + scale * (t - p) + imageScale * (p - u)
  })
  const error = relativeError(events[0]!.predictedNoise!.data, expected)
  assert.ok(error < 1e-4, `error ${error}`)

  // Without guidance there is one branch, which sees picture and text.
  const plain: StepEvent[] = []
  await pipe.edit({ ...call, guidanceScale: 1, stepLatents: true, onStep: (e) => plain.push(e) })
  assert.ok(relativeError(plain[0]!.predictedNoise!.data, sample.data.subarray(0, each)) < 1e-4)
  await pipe.dispose()
})

test("SDXL's refiner: an aesthetic score instead of the target size", async () => {
  const folder = join(scratch, 'refiner')
  cpSync(reference('models', 'tiny-sdxl'), folder, { recursive: true })
  narrow(folder, 'add_embedding.linear_1.weight', 40 + 5 * 8)
  editJson(join(folder, 'unet', 'config.json'), (c) => (c['projection_class_embeddings_input_dim'] = 40 + 5 * 8))
  editJson(join(folder, 'model_index.json'), (c) => {
    c['_class_name'] = 'StableDiffusionXLImg2ImgPipeline'
    c['requires_aesthetics_score'] = true
  })
  const pipe = await Pipeline.fromPretrained(folder)
  assert.equal(pipe.tasks, ['img2img', 'inpaint'])
  const [prompt, negativePrompt] = ['a red house', 'dark']
  const latents = new Generator(3).randn([1, 4, 8, 6])
  const scheduler = createScheduler('DDIM', pipe.scheduler.toJSON())
  const events: StepEvent[] = []
  await pipe.img2img({
    prompt,
    negativePrompt,
    image: latents,
    denoisingStart: 0.5,
    steps: 4,
    scheduler,
    guidanceScale: 5,
    aestheticScore: 7,
    stepLatents: true,
    onStep: (e) => events.push(e)
  })
  assert.is(events.length, 2)

  const ids = [negativePrompt, prompt].map((p) => pipe.tokenizer.encode(p).ids)
  const first = await pipe.textEncoder.encode(ids)
  const second = await pipe.textEncoder2!.encode(ids)
  const size = [64, 48, 0, 0]
  const { sample } = await pipe.unet.predict({
    sample: stacked(latents, latents),
    timestep: events[0]!.timestep,
    context: sideBySide(first.hiddenStates.at(-2)!, second.hiddenStates.at(-2)!),
    added: {
      textEmbeds: second.projected!,
      timeIds: { data: Float32Array.of(...size, 2.5, ...size, 7), shape: [2, 5] }
    }
  })
  const each = latents.data.length
  const expected = latents.data.map((_, i) => sample.data[i]! + 5 * (sample.data[each + i]! - sample.data[i]!))
  const error = relativeError(events[0]!.predictedNoise!.data, expected)
  assert.ok(error < 1e-4, `error ${error}`)
  await pipe.dispose()
})

test('a latent consistency model takes all its steps from the part of the schedule that strength leaves', async () => {
  const folder = join(scratch, 'lcm')
  cpSync(reference('models', 'tiny-sd15'), folder, { recursive: true })
  editJson(join(folder, 'model_index.json'), (c) => (c['_class_name'] = 'LatentConsistencyModelPipeline'))
  const pipe = await Pipeline.fromPretrained(folder, { scheduler: 'LCM' })
  const timesteps: number[] = []
  const call = { prompt: 'x', image, steps: 4, strength: 0.5, seed: 1, guidanceScale: 1 }
  await pipe.img2img({ ...call, onStep: (e) => timesteps.push(e.timestep) })
  // 50 · 0.5 = 25 timesteps of the distilled schedule, 20 apart, down from 499; four of them, evenly.
  assert.equal(timesteps, [499, 379, 259, 139])
  let steps = 0
  await pipe.img2img({ ...call, scheduler: 'DDIM', onStep: () => void steps++ })
  assert.is(steps, 2, 'other schedulers leave steps out')
  await pipe.dispose()
})

test.run()
