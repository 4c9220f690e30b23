/** FreeU through the pipeline: ones are nothing, each value counts. The filter itself: test/native/free-u.cpp. */
import { Pipeline, type GenerationResult } from 'node-diffusion'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { relativeError } from './support/compare.js'
import { fails } from './support/fails.js'
import { reference } from './support/paths.js'

const test = suite('FreeU')
let pipe: Pipeline
test.before(async () => {
  pipe = await Pipeline.fromPretrained(reference('models', 'tiny-sd15'))
})
test.after(() => pipe.dispose())

const ones = { s1: 1, s2: 1, b1: 1, b2: 1 }
const paint = (freeU?: object, size = 64): Promise<GenerationResult> =>
  pipe.txt2img({
    prompt: 'a red house',
    steps: 2,
    seed: 3,
    width: size,
    height: size + 8,
    outputType: 'latent',
    ...(freeU ? { freeU: freeU as typeof ones } : {})
  })
const error = (a: GenerationResult, b: GenerationResult): number => relativeError(a.latents.data, b.latents.data)

test('ones are the plain picture, also of sizes that are no powers of two', async () => {
  for (const size of [64, 72]) {
    const plain = await paint(undefined, size)
    assert.ok(error(await paint(ones, size), plain) < 1e-6)
  }
})

test('each value changes the picture in its own way', async () => {
  const results = [await paint()]
  for (const change of [{ s1: 0.2 }, { s2: 0.2 }, { b1: 1.5 }, { b2: 1.6 }])
    results.push(await paint({ ...ones, ...change }))
  results.forEach((a, i) => results.slice(i + 1).forEach((b) => assert.ok(error(a, b) > 1e-4)))
  assert.is(error(await paint(), results[0]!), 0, 'nothing stays behind')
})

test('what is wrong is refused', async () => {
  const bad = 'ERR_ND_INVALID_ARGUMENT'
  await fails(() => paint({ s1: 1, s2: 1, b1: 1 }), bad, /freeU\.b2/)
  await fails(() => paint({ ...ones, b3: 1 }), bad, /b3/)
  await fails(() => pipe.txt2img({ prompt: 'x', freeU: 1 as never }), bad, /freeU/)
})

test.run()
