/** Models of few steps: the settings of docs/few-step.md compile to the timesteps that they were distilled for, and paint. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createScheduler, Pipeline, type StepEvent, type Txt2ImgOptions } from 'node-diffusion'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { guidanceEmbedding } from '#lib/conditions.js'
import { family, optionsOf } from './support/cases.js'
import { pictureError, relativeError } from './support/compare.js'
import { lcmModel } from './support/picture-models.js'
import { reference } from './support/paths.js'

const test = suite('few steps')
const scratch = mkdtempSync(join(tmpdir(), 'nd-few-'))
let sd: Pipeline
let xl: Pipeline
let lcm: Pipeline
test.before(async () => {
  sd = await Pipeline.fromPretrained(reference('models', 'tiny-sd15'))
  xl = await Pipeline.fromPretrained(reference('models', 'tiny-sdxl'))
  lcm = await Pipeline.fromPretrained(lcmModel(join(scratch, 'lcm')))
})
test.after(async () => {
  for (const pipe of [sd, xl, lcm]) await pipe.dispose()
  rmSync(scratch, { recursive: true, force: true })
})

const prompt = 'a red house on a beach at sunset'
const size = { width: 64, height: 64 }

/** Timesteps and step events of a call, and the batch that the UNet saw. */
const run = async (pipe: Pipeline, options: Omit<Txt2ImgOptions, 'prompt'>) => {
  const events: StepEvent[] = []
  await pipe.profile(true)
  const out = await pipe.txt2img({
    prompt,
    seed: 1,
    ...size,
    ...options,
    stepLatents: true,
    onStep: (e) => events.push(e)
  })
  const labels = (await pipe.profile(false)).map((e) => e.operation)
  assert.ok(out.latents.data.every(Number.isFinite))
  return {
    out,
    events,
    timesteps: events.map((e) => Math.round(e.timestep)),
    two: labels.some((l) => /^attention.*@ 2x/.test(l))
  }
}

test('LCM: the reference, with embedded guidance', async () => {
  const { cases, tensors } = family('lcm')
  assert.is(cases.length, 1)
  for (const c of cases) {
    const events: StepEvent[] = []
    const out = await lcm.txt2img({ ...optionsOf(c), stepLatents: true, onStep: (e) => events.push(e) })
    const expected = tensors.floats(`${c.case}.latents`)
    const count = tensors.get(`${c.case}.latents`).shape[0]!
    assert.is(events.length, count)
    const each = expected.length / count
    events.forEach((e, i) => {
      const error = relativeError(e.latents!.data, expected.subarray(i * each, (i + 1) * each))
      assert.ok(error < 1e-4, `step ${i + 1}: ${error}`)
    })
    assert.ok(pictureError(out.images[0]!.data, tensors.floats(`${c.case}.output`)) < 1)
  }
})

test('LCM: one branch, whose time carries the guidance scale', async () => {
  const { events, timesteps, two } = await run(lcm, { steps: 4, guidanceScale: 8 })
  assert.equal(timesteps, [999, 759, 499, 259])
  assert.not(two)
  const other = await run(lcm, { steps: 4, guidanceScale: 1.5 })
  assert.ok(relativeError(events[0]!.predictedNoise!.data, other.events[0]!.predictedNoise!.data) > 1e-4)
  // w = 7: sines, then cosines, of 7000 · 10000^(−i / 127)
  const embedding = guidanceEmbedding(8, 256)
  assert.ok(Math.abs(embedding[0]! - Math.sin(7000)) < 1e-6 && Math.abs(embedding[128]! - Math.cos(7000)) < 1e-6)
  assert.ok(Math.abs(embedding[255]! - Math.cos(0.7)) < 1e-6)
})

const trailing =
  (name: string, more: object = {}) =>
  (pipe: Pipeline) =>
    createScheduler(name, { ...pipe.scheduler.toJSON(), timestep_spacing: 'trailing', ...more })

const settings: readonly {
  name: string
  on: 'sd' | 'xl'
  scheduler: (pipe: Pipeline) => ReturnType<typeof createScheduler>
  options: Omit<Txt2ImgOptions, 'prompt'>
  timesteps: number[]
}[] = [
  {
    name: 'LCM-LoRA',
    on: 'sd',
    scheduler: (pipe) => createScheduler('LCMScheduler', pipe.scheduler.toJSON()),
    options: { steps: 4, guidanceScale: 1 },
    timesteps: [999, 759, 499, 259]
  },
  {
    name: 'SDXL Turbo, one step',
    on: 'xl',
    scheduler: trailing('EulerAncestralDiscreteScheduler'),
    options: { steps: 1, guidanceScale: 0 },
    timesteps: [999]
  },
  {
    name: 'SDXL Turbo, four steps',
    on: 'xl',
    scheduler: trailing('EulerAncestralDiscreteScheduler'),
    options: { steps: 4, guidanceScale: 0 },
    timesteps: [999, 749, 499, 249]
  },
  {
    name: 'Lightning, four steps',
    on: 'xl',
    scheduler: trailing('EulerDiscreteScheduler'),
    options: { steps: 4, guidanceScale: 0 },
    timesteps: [999, 749, 499, 249]
  },
  {
    name: 'Lightning, two steps',
    on: 'xl',
    scheduler: trailing('EulerDiscreteScheduler'),
    options: { steps: 2, guidanceScale: 0 },
    timesteps: [999, 499]
  },
  {
    name: 'Lightning, one step that predicts the original',
    on: 'xl',
    scheduler: trailing('EulerDiscreteScheduler', { prediction_type: 'sample' }),
    options: { steps: 1, guidanceScale: 0 },
    timesteps: [999]
  },
  {
    name: 'Hyper-SD, LoRA of four steps',
    on: 'xl',
    scheduler: trailing('DDIMScheduler'),
    options: { steps: 4, guidanceScale: 0 },
    timesteps: [999, 749, 499, 249]
  },
  {
    name: 'Hyper-SD, unified LoRA',
    on: 'xl',
    scheduler: (pipe) => createScheduler('TCDScheduler', pipe.scheduler.toJSON()),
    options: { steps: 1, guidanceScale: 0, eta: 1 },
    timesteps: [999]
  },
  {
    name: 'Hyper-SD, UNet of one step',
    on: 'xl',
    scheduler: (pipe) => createScheduler('LCMScheduler', pipe.scheduler.toJSON()),
    options: { timesteps: [800], guidanceScale: 0 },
    timesteps: [800]
  },
  {
    name: 'TCD-LoRA',
    on: 'xl',
    scheduler: (pipe) => createScheduler('TCDScheduler', pipe.scheduler.toJSON()),
    options: { steps: 4, guidanceScale: 0, eta: 0.3 },
    timesteps: [999, 759, 499, 259]
  },
  {
    name: 'DMD2, four steps',
    on: 'xl',
    scheduler: (pipe) => createScheduler('LCMScheduler', pipe.scheduler.toJSON()),
    options: { timesteps: [999, 749, 499, 249], guidanceScale: 0 },
    timesteps: [999, 749, 499, 249]
  },
  {
    name: 'DMD2, one step',
    on: 'xl',
    scheduler: (pipe) => createScheduler('LCMScheduler', pipe.scheduler.toJSON()),
    options: { timesteps: [399], guidanceScale: 0 },
    timesteps: [399]
  }
]

for (const { name, on, scheduler, options, timesteps } of settings)
  test(`${name}: its timesteps, one branch`, async () => {
    const pipe = on === 'sd' ? sd : xl
    const result = await run(pipe, { ...options, scheduler: scheduler(pipe) })
    assert.equal(result.timesteps, timesteps)
    assert.not(result.two, 'no unguided half')
    // The last step leaves what was predicted, without noise; TCD at the level of timestep 0.
    const last = result.events.at(-1)!
    assert.ok(
      relativeError(result.out.latents.data, last.predictedOriginal!.data) < (/TCD|unified/.test(name) ? 0.1 : 1e-5)
    )
  })

test('guidance above 1 has two branches, at 1 and below one', async () => {
  const scheduler = trailing('EulerDiscreteScheduler')(xl)
  assert.ok((await run(xl, { steps: 1, guidanceScale: 2, scheduler })).two)
  const at = async (guidanceScale: number) => run(xl, { steps: 1, guidanceScale, scheduler })
  const [zero, half, one] = [await at(0), await at(0.5), await at(1)]
  assert.not(zero.two || half.two || one.two)
  assert.is(relativeError(zero.out.latents.data, one.out.latents.data), 0)
  assert.is(relativeError(half.out.latents.data, one.out.latents.data), 0)
})

test('few steps of img2img: strength times steps run', async () => {
  const image = { data: new Uint8Array(64 * 64 * 3).fill(120), width: 64, height: 64, channels: 3 as const }
  const timesteps: number[] = []
  await xl.img2img({
    prompt,
    image,
    steps: 2,
    strength: 0.5,
    guidanceScale: 0,
    seed: 1,
    scheduler: trailing('EulerAncestralDiscreteScheduler')(xl),
    onStep: (e) => void timesteps.push(e.timestep)
  })
  assert.equal(timesteps, [499])
})

test.run()
