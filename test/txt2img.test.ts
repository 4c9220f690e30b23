/** The text-to-image cases of the references: latents after every step, and pictures. */
import { Pipeline, type StepEvent } from 'node-diffusion'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { family, optionsOf, type PipelineCase } from './support/cases.js'
import { pictureError, relativeError } from './support/compare.js'
import { postcard, reference } from './support/paths.js'
import type { TestFile } from './support/safetensors.js'

const test = suite('txt2img')
const worst = { latents: { error: 0, name: '' }, picture: { error: 0, name: '' } }

const txt2img = ['StableDiffusionPipeline', 'StableDiffusionXLPipeline']
const check = async (pipe: Pipeline, c: PipelineCase, tensors: TestFile, name: string): Promise<void> => {
  const events: StepEvent[] = []
  const out = await pipe.txt2img({ ...optionsOf(c), stepLatents: true, onStep: (e) => events.push(e) })

  const steps = tensors.get(`${c.case}.latents`)
  const expected = tensors.floats(`${c.case}.latents`)
  // All steps [steps, B, C, h, w], or only the last [B, C, h, w]; in the bundled model's file as float16.
  const many = steps.shape.length === 5
  const count = many ? steps.shape[0]! : 1
  if (many) assert.is(events.length, count, 'one event per step')
  const each = expected.length / count
  const half = steps.dtype === 'F16'
  for (let i = 0; i < count; i++) {
    const actual = many ? events[i]!.latents!.data : out.latents.data
    const error = relativeError(actual, expected.subarray(i * each, (i + 1) * each))
    if (!half && error > worst.latents.error) worst.latents = { error, name: `${name} ${c.case}, step ${i + 1}` }
    assert.ok(error < (half ? 2e-3 : 1e-3), `${name} ${c.case}, step ${i + 1}: error ${error}`)
  }

  const picture = tensors.floats(`${c.case}.output`)
  const pixels = new Uint8Array(out.images.flatMap((image) => [...image.data]))
  assert.is(pixels.length, picture.length, 'as many pixels')
  const error = pictureError(pixels, picture)
  if (error > worst.picture.error) worst.picture = { error, name: `${name} ${c.case}` }
  assert.ok(error < 1, `${name} ${c.case}: picture differs by ${error}/255 on average`)
}

const embedding = reference('models', 'tiny-embedding.safetensors')
const models = [
  ['sd15', reference('models', 'tiny-sd15')],
  ['sd2', reference('models', 'tiny-sd2')],
  ['sdxl', reference('models', 'tiny-sdxl')],
  ['postcard', postcard]
] as const

for (const [name, folder] of models) {
  const { cases, tensors } = family(name)
  let pipe: Pipeline
  test(`${name}: loads`, async () => {
    pipe = await Pipeline.fromPretrained(folder)
  })
  for (const c of cases)
    if (txt2img.includes(c.pipeline))
      test(`${name}: ${c.case}`, async () => {
        const inversion = c.case === 'textual_inversion'
        if (inversion) await pipe.loadTextualInversion(embedding, { token: 'my-style' })
        await check(pipe, c, tensors, name)
        if (inversion) await pipe.unloadTextualInversion('my-style')
      })
  test(`${name}: disposes`, () => pipe.dispose())
}

test('files of 2022 give the same pictures: tiny-sd15-legacy', async () => {
  const { cases, tensors } = family('sd15')
  const pipe = await Pipeline.fromPretrained(reference('models', 'tiny-sd15-legacy'))
  assert.ok(pipe.warnings.some((w) => w.includes('safety checker')))
  for (const c of cases.filter((c) => ['txt2img_pndm', 'txt2img_ddim'].includes(c.case)))
    await check(pipe, c, tensors, 'legacy')
  await pipe.dispose()
})

test('guidance: what comes before the text is computed once for both branches', async () => {
  const pipe = await Pipeline.fromPretrained(postcard)
  const convIn = async (guidanceScale: number): Promise<string[]> => {
    await pipe.profile(true)
    await pipe.txt2img({ prompt: 'a red house', steps: 2, seed: 1, guidanceScale, count: 2, outputType: 'latent' })
    const operations = (await pipe.profile(false)).map((e) => e.operation)
    return operations.filter((o) => /^conv2d 3x3 s1 4->48 /.test(o))
  }
  assert.equal(await convIn(5), ['conv2d 3x3 s1 4->48 @ 2x16x16'])
  assert.equal(await convIn(1), ['conv2d 3x3 s1 4->48 @ 2x16x16'])
  await pipe.dispose()
})

test.after(() => {
  const { latents, picture } = worst
  console.log(`txt2img: largest error of latents ${latents.error.toExponential(2)} (${latents.name})`)
  console.log(`txt2img: largest mean difference of a picture ${picture.error.toFixed(3)}/255 (${picture.name})`)
})
test.run()
