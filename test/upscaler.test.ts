/** Stable Diffusion's ×4 upscaler against diffusers' UNet, autoencoder, schedulers and StableDiffusionUpscalePipeline's loop. */
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { Pipeline, type SuperResolutionOptions, type Tensor } from 'node-diffusion'
import { pictureError, relativeError } from './support/compare.js'
import { fails } from './support/fails.js'
import { copyOf, failsWith, removeCopies } from './support/model-folders.js'
import { editJson, upscalerModel } from './support/picture-models.js'
import { reference } from './support/paths.js'
import { TestFile } from './support/safetensors.js'

const test = suite('upscaler')
const tensors = new TestFile(reference('tiny', 'upscaler.safetensors'))
const tensor = (key: string): Tensor => ({ data: tensors.floats(key), shape: tensors.get(key).shape })
let folder: string
let pipe: Pipeline
test.before(async () => {
  folder = upscalerModel(await copyOf('upscaler'))
  pipe = await Pipeline.fromPretrained(folder)
})
test.after(async () => {
  await pipe.dispose()
  await removeCopies()
})

const picture = (name: string) => {
  const [height, width] = tensors.get(name).shape
  return { data: Uint8Array.from(tensors.floats(name)), width: width!, height: height!, channels: 3 as const }
}
const cases: Record<string, { pictures: number; options: Partial<SuperResolutionOptions> }> = {
  plain: { pictures: 1, options: { seed: 3, steps: 4 } },
  two: { pictures: 2, options: { seed: 4, steps: 3, guidanceScale: 5, noiseLevel: 100, count: 2 } },
  // 19 × 14 is made 16 × 12, as Pillow's bicubic filter does it
  odd: { pictures: 1, options: { seed: 5, steps: 3, guidanceScale: 1, noiseLevel: 0 } }
}
const optionsOf = (name: string): SuperResolutionOptions => {
  const { pictures, options } = cases[name]!
  return {
    promptEmbeds: tensor(`${name}.embeds`),
    negativePromptEmbeds: tensor(`${name}.negative`),
    image: Array.from({ length: pictures }, (_, i) => picture(`${name}.picture${i}`)),
    ...options
  } as SuperResolutionOptions
}

test('the UNet: noise levels and attention to the text alone', async () => {
  const request = { sample: tensor('unet.sample'), timestep: [801, 3], context: tensor('unet.context') }
  const { sample } = await pipe.unet.predict({ ...request, added: { noiseLevel: [20, 999] } })
  const error = relativeError(sample.data, tensors.floats('unet.out'))
  assert.ok(error < 1e-5, `${error}`)
  const invalid = 'ERR_ND_INVALID_ARGUMENT'
  await fails(() => pipe.unet.predict({ ...request, added: { noiseLevel: 1000 } }), invalid, /0 to 999/)
  await fails(() => pipe.unet.predict({ ...request, added: { noiseLevel: 1.5 } }), invalid, /whole noise level/)
  await fails(() => pipe.unet.predict(request), invalid, /noise level/)
})

for (const name of Object.keys(cases))
  test(`${name}: latents and pictures`, async () => {
    const { latents, images } = await pipe.superResolution(optionsOf(name))
    assert.equal(latents.shape, tensors.get(`${name}.latents`).shape)
    const error = relativeError(latents.data, tensors.floats(`${name}.latents`))
    assert.ok(error < 1e-5, `latents: ${error}`)
    const expected = tensor(`${name}.image`)
    const [, , height, width] = expected.shape
    const each = height! * width!
    for (const [n, image] of images.entries()) {
      assert.equal([image.width, image.height], [width, height])
      const pixels = Float32Array.from({ length: 3 * each }, (_, i) => {
        return expected.data[(n * 3 + (i % 3)) * each + Math.floor(i / 3)]!
      })
      assert.ok(pictureError(image.data, pixels) < 0.5)
    }
  })

test('one picture for several prompts, a prompt, a tensor, VAE tiles', async () => {
  assert.equal(pipe.tasks, ['superResolution'])
  const image = picture('plain.picture0')
  const options = { prompt: ['a red house', 'a boat'], image, steps: 2, seed: [1, 2] }
  const both = await pipe.superResolution(options)
  assert.is(both.images.length, 2)
  const first = await pipe.superResolution({ ...options, prompt: 'a red house', seed: 1 })
  assert.ok(relativeError(both.latents.data.subarray(0, first.latents.data.length), first.latents.data) < 1e-5)
  const { width, height, data } = image
  const planes = Float32Array.from({ length: data.length }, (_, i) => {
    return data[(i % (width * height)) * 3 + Math.floor(i / (width * height))]! / 127.5 - 1
  })
  const asTensor = { data: planes, shape: [1, 3, height, width] }
  const again = await pipe.superResolution({ ...options, prompt: 'a red house', seed: 1, image: asTensor })
  assert.ok(relativeError(again.latents.data, first.latents.data) < 1e-5)
  const tiled = await pipe.superResolution({ ...options, seed: 3, vaeTiling: { tileSize: 32 } })
  assert.is(tiled.images[0]!.width, 64)
})

test('what does not fit is refused', async () => {
  const options = optionsOf('plain')
  const wrong = (change: object, message: RegExp) =>
    fails(() => pipe.superResolution({ ...options, ...change }), 'ERR_ND_INVALID_ARGUMENT', message)
  await wrong({ noiseLevel: 351 }, /350 for noiseLevel/)
  await wrong({ width: 64 }, /4 times as large.*width/)
  await wrong({ image: { data: new Float32Array(3 * 6 * 6), shape: [1, 3, 6, 6] } }, /multiple of 4/)
  await wrong({ image: { data: new Uint8Array(27), width: 3, height: 3, channels: 3 } }, /multiple of 4/)
  await wrong({ image: [picture('two.picture0'), picture('two.picture1')] }, /one picture/)
  await wrong({ freeU: { b1: 1, b2: 1, s1: 1, s2: 1 } }, /freeU/)
  await fails(() => pipe.txt2img({ prompt: 'x' }), 'ERR_ND_UNSUPPORTED', /superResolution/)
  editJson(join(folder, 'model_index.json'), (json) => delete json['low_res_scheduler'])
  await failsWith(() => Pipeline.fromPretrained(folder), 'ERR_ND_MODEL_FORMAT', /low_res_scheduler/)
})

test.run()
