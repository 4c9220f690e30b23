/** Options that no reference case covers: their meaning is tested from its definition. */
import { createScheduler, Generator, Pipeline, type StepEvent, type Txt2ImgOptions } from 'node-diffusion'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { relativeError } from './support/compare.js'
import { postcard } from './support/paths.js'

const test = suite('options')
let pipe: Pipeline
test.before(async () => {
  pipe = await Pipeline.fromPretrained(postcard)
})
test.after(() => pipe.dispose())
const paint = (options: Partial<Txt2ImgOptions> = {}): ReturnType<Pipeline['txt2img']> =>
  pipe.txt2img({ prompt: 'a red circle on a blue background', steps: 4, seed: 1, scheduler: 'DDIM', ...options })
const same = (a: { latents: { data: Float32Array } }, b: { latents: { data: Float32Array } }): number =>
  relativeError(a.latents.data, b.latents.data)

test('one seed per image: each image is what its seed alone paints, also with a scheduler that draws noise', async () => {
  const batch = await paint({ seed: [3, 4], count: 2, scheduler: 'Euler a' })
  const each = batch.latents.data.length / 2
  for (const [i, seed] of [3, 4].entries()) {
    const alone = await paint({ seed, scheduler: 'Euler a' })
    assert.ok(relativeError(batch.latents.data.subarray(i * each, (i + 1) * each), alone.latents.data) < 1e-5)
  }
  assert.equal(batch.seeds, [3, 4])
})

test('one seed for a batch: only the first image can be repainted from it, and only where nothing is drawn later', async () => {
  const plain = await paint({ count: 2 })
  assert.equal(plain.seeds, [1, null])
  const each = plain.latents.data.length / 2
  assert.ok(relativeError(plain.latents.data.subarray(0, each), (await paint()).latents.data) < 1e-5)
  assert.equal((await paint({ count: 2, scheduler: 'Euler a' })).seeds, [null, null])
})

test('latents given are the noise that the seed would draw', async () => {
  const latents = new Generator(1).randn([1, 4, 16, 16])
  assert.ok(same(await paint({ latents }), await paint()) < 1e-6)
})

test("rng 'cuda' draws other noise than 'cpu', and the same every time", async () => {
  const cuda = await paint({ rng: 'cuda' })
  assert.ok(same(cuda, await paint()) > 0.1)
  assert.is(same(cuda, await paint({ rng: 'cuda' })), 0)
})

test('prompt embeddings given are the prompt', async () => {
  const ids = pipe.tokenizer.encode('a red circle on a blue background').ids
  const negative = pipe.tokenizer.encode('').ids
  const promptEmbeds = (await pipe.textEncoder.encode(ids)).lastHiddenState
  const negativePromptEmbeds = (await pipe.textEncoder.encode(negative)).lastHiddenState
  const given = await pipe.txt2img({ promptEmbeds, negativePromptEmbeds, steps: 4, seed: 1, scheduler: 'DDIM' })
  assert.ok(same(given, await paint()) < 1e-6)
})

test('prompt weights: off by default; 1 changes nothing; others keep the mean of the embeddings', async () => {
  const plain = await paint({ prompt: 'a red circle' })
  assert.ok(same(await paint({ prompt: 'a red circle', promptWeighting: true }), plain) < 1e-6)
  assert.ok(same(await paint({ prompt: 'a (red:1.0) circle', promptWeighting: true }), plain) < 1e-6)
  assert.ok(same(await paint({ prompt: 'a (red:1.5) circle', promptWeighting: true }), plain) > 1e-3)

  // The same by hand: weight, then restore the mean of the sequence, and give the result as embeddings.
  const ids = pipe.tokenizer.encode('a red circle').ids
  const { data, shape } = (await pipe.textEncoder.encode(ids)).lastHiddenState
  const width = shape[2]!
  const red = ids.indexOf(pipe.tokenizer.tokenize('red')[0]!)
  const weighted = data.map((v, i) => (Math.floor(i / width) === red ? v * 1.5 : v))
  const sum = (a: Float32Array): number => a.reduce((s, v) => s + v, 0)
  const ratio = sum(data) / sum(weighted)
  const negativePromptEmbeds = (await pipe.textEncoder.encode(pipe.tokenizer.encode('').ids)).lastHiddenState
  const byHand = await pipe.txt2img({
    promptEmbeds: { data: weighted.map((v) => v * ratio), shape },
    negativePromptEmbeds,
    steps: 4,
    seed: 1,
    scheduler: 'DDIM'
  })
  assert.ok(same(await paint({ prompt: 'a (red:1.5) circle', promptWeighting: true }), byHand) < 1e-4)
})

test('long prompts: cut with a warning by default, in chunks with prompt weights', async () => {
  const prompt = 'a red circle on a blue background, '.repeat(20)
  const cut = await paint({ prompt })
  assert.is(cut.warnings.length, 1)
  assert.match(cut.warnings[0]!, /77 tokens/)
  const whole = await paint({ prompt, promptWeighting: true })
  assert.equal(whole.warnings, [])
  assert.ok(same(whole, cut) > 1e-3)
})

test('events: steps in order, latents and previews where asked for', async () => {
  const events: StepEvent[] = []
  const out = await paint({ steps: 6, stepLatents: true, preview: { every: 2 }, onStep: (e) => events.push(e) })
  assert.equal(
    events.map((e) => [e.step, e.steps]),
    [1, 2, 3, 4, 5, 6].map((s) => [s, 6])
  )
  assert.equal(
    events.map((e) => Boolean(e.image)),
    [false, true, false, true, false, true]
  )
  assert.equal(events.at(-1)!.latents!.data, out.latents.data)
  assert.is(events[0]!.predictedOriginal!.shape.join(), '1,4,16,16')
  const last = events.at(-1)!.image!.data
  const picture = out.images[0]!.data
  const difference = last.reduce((sum, v, i) => sum + Math.abs(v - picture[i]!), 0) / picture.length
  assert.ok(difference < 8, `the last prediction is nearly the picture: ${difference}/255`)
  const plain: StepEvent[] = []
  await paint({ onStep: (e) => plain.push(e) })
  assert.is(plain[0]!.latents, undefined)
  assert.is(plain[0]!.image, undefined)
})

test('the predicted original of DDIM follows from latents and predicted noise', async () => {
  const scheduler = createScheduler('DDIM', pipe.scheduler.toJSON())
  const events: StepEvent[] = []
  await paint({ scheduler, stepLatents: true, onStep: (e) => events.push(e) })
  const alphas: number[] = []
  let product = 1
  for (let i = 0; i < 1000; i++) {
    const beta = (Math.sqrt(0.00085) + ((Math.sqrt(0.012) - Math.sqrt(0.00085)) * i) / 999) ** 2
    alphas.push((product *= 1 - beta))
  }
  const x = events[0]!.latents!.data // the input of the second evaluation
  const { predictedNoise, predictedOriginal, timestep } = events[1]!
  const alpha = alphas[timestep]!
  const expected = x.map((v, i) => (v - Math.sqrt(1 - alpha) * predictedNoise!.data[i]!) / Math.sqrt(alpha))
  const error = relativeError(predictedOriginal!.data, expected)
  assert.ok(error < 1e-4, `error ${error}`)
})

test("outputType 'latent' decodes nothing", async () => {
  const out = await paint({ outputType: 'latent' })
  assert.is(out.images.length, 0)
  assert.is(out.latents.shape.join(), '1,4,16,16')
  assert.is(out.timings.decode, 0)
})

test("a model's scheduler can be replaced, by name for a call or for good", async () => {
  const before = pipe.scheduler
  pipe.scheduler = 'DPM++ 2M Karras'
  assert.is(pipe.scheduler.className, 'DPMSolverMultistepScheduler')
  const own = await paint({ scheduler: undefined as never })
  pipe.scheduler = before
  assert.ok(same(own, await paint({ scheduler: 'DPM++ 2M Karras' })) < 1e-6)
})

test('pictures carry their parameters', async () => {
  const { images } = await paint({ negativePrompt: 'dark', guidanceScale: 5, scheduler: 'DPM++ 2M Karras' })
  assert.match(
    images[0]!.parameters!,
    /^a red circle on a blue background\nNegative prompt: dark\nSteps: 4, Sampler: DPM\+\+ 2M, Schedule type: Karras, CFG scale: 5, Seed: 1, Size: 64x64, Model: postcard/
  )
})

test('sizes: any multiple of 8, also such that maps are odd inside', async () => {
  for (const [width, height] of [
    [40, 72],
    [8, 8],
    [104, 56]
  ] as const) {
    const { images } = await paint({ width, height, steps: 1 })
    assert.equal([images[0]!.width, images[0]!.height], [width, height])
  }
})

test.run()
