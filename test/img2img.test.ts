/** The img2img, inpainting and editing cases of the references: latents after every step, and pictures. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Pipeline, type StepEvent } from 'node-diffusion'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { family, type PipelineCase } from './support/cases.js'
import { pictureError, relativeError } from './support/compare.js'
import { editModel, inpaintModel, refinerModel } from './support/picture-models.js'
import { postcard, reference } from './support/paths.js'
import { pictureOptionsOf, taskOf, type PictureTask } from './support/picture-cases.js'
import type { TestFile } from './support/safetensors.js'

const test = suite('img2img')
const scratch = mkdtempSync(join(tmpdir(), 'nd-img2img-'))
const worst = { latents: { error: 0, name: '' }, picture: { error: 0, name: '' } }

const check = async (
  pipe: Pipeline,
  task: PictureTask,
  c: PipelineCase,
  tensors: TestFile,
  name: string
): Promise<void> => {
  const events: StepEvent[] = []
  const options = { ...pictureOptionsOf(c, tensors), stepLatents: true, onStep: (e: StepEvent) => events.push(e) }
  const out = await pipe[task](options as never)

  const steps = tensors.get(`${c.case}.latents`)
  const expected = tensors.floats(`${c.case}.latents`)
  // All steps [steps, B, C, h, w], or only the last [B, C, h, w].
  const many = steps.shape.length === 5
  const count = many ? steps.shape[0]! : 1
  if (many) assert.is(events.length, count, 'one event per step')
  const each = expected.length / count
  for (let i = 0; i < count; i++) {
    const actual = many ? events[i]!.latents!.data : out.latents.data
    const error = relativeError(actual, expected.subarray(i * each, (i + 1) * each))
    if (error > worst.latents.error) worst.latents = { error, name: `${name} ${c.case}, step ${i + 1}` }
    assert.ok(error < 1e-3, `${name} ${c.case}, step ${i + 1}: error ${error}`)
  }

  const picture = tensors.floats(`${c.case}.output`)
  const pixels = new Uint8Array(out.images.flatMap((image) => [...image.data]))
  assert.is(pixels.length, picture.length, 'as many pixels')
  const error = pictureError(pixels, picture)
  if (error > worst.picture.error) worst.picture = { error, name: `${name} ${c.case}` }
  assert.ok(error < 1, `${name} ${c.case}: picture differs by ${error}/255 on average`)
}

const models: readonly (readonly [name: string, folder: () => string, cases: number])[] = [
  ['sd15', () => reference('models', 'tiny-sd15'), 5],
  ['sdxl', () => reference('models', 'tiny-sdxl'), 2],
  ['sd15-inpaint', () => inpaintModel(join(scratch, 'tiny-sd15-inpaint')), 2],
  ['sdxl-refiner', () => refinerModel(join(scratch, 'tiny-sdxl-refiner')), 1],
  ['instruct-pix2pix', () => editModel(join(scratch, 'tiny-instruct-pix2pix')), 1],
  ['postcard', () => postcard, 2]
]

for (const [name, folder, count] of models) {
  const { cases, tensors } = family(name)
  let pipe: Pipeline
  test(`${name}: loads`, async () => {
    pipe = await Pipeline.fromPretrained(folder())
  })
  let found = 0
  for (const c of cases) {
    const task = taskOf(c)
    if (!task) continue
    found++
    test(`${name}: ${c.case}`, () => check(pipe, task, c, tensors, name))
  }
  assert.is(found, count, `cases of ${name}`)
  test(`${name}: disposes`, () => pipe.dispose())
}

test.after(() => {
  rmSync(scratch, { recursive: true, force: true })
  const { latents, picture } = worst
  console.log(`img2img: largest error of latents ${latents.error.toExponential(2)} (${latents.name})`)
  console.log(`img2img: largest mean difference of a picture ${picture.error.toFixed(3)}/255 (${picture.name})`)
})
test.run()
