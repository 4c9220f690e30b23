/** img2img, inpaint and edit from their definitions: what is drawn, kept, resized, refused. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  createScheduler,
  Generator,
  Pipeline,
  type DiffusionImage,
  type GenerationResult,
  type Img2ImgOptions,
  type InpaintOptions,
  type RawImage,
  type Tensor
} from 'node-diffusion'
import sharp from 'sharp'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { relativeError } from './support/compare.js'
import { inpaintModel } from './support/picture-models.js'
import { fails } from './support/fails.js'
import { reference } from './support/paths.js'

const test = suite('img2img options')
const scratch = mkdtempSync(join(tmpdir(), 'nd-pictures-'))
let pipe: Pipeline
let image: DiffusionImage
const prompt = 'a red circle on a blue background'

test.before(async () => {
  pipe = await Pipeline.fromPretrained('postcard')
  const out = await pipe.txt2img({ prompt, steps: 8, seed: 5, scheduler: 'DPM++ 2M' })
  image = out.images[0]!
})
test.after(async () => {
  await pipe.dispose()
  rmSync(scratch, { recursive: true, force: true })
})

const img2img = (options: Partial<Img2ImgOptions> = {}): Promise<GenerationResult> =>
  pipe.img2img({ prompt, image, steps: 4, seed: 1, scheduler: 'DDIM', ...options })

/** White in the rectangle, black around it. */
const rectangle = (size: number, left: number, top: number, right: number, bottom: number): RawImage => {
  const data = new Uint8Array(size * size)
  for (let y = top; y < bottom; y++) data.fill(255, y * size + left, y * size + right)
  return { data, width: size, height: size, channels: 1 }
}
const mask = rectangle(64, 16, 24, 56, 64)
const inpaint = (options: Partial<InpaintOptions> = {}): Promise<GenerationResult> =>
  pipe.inpaint({ prompt, image, mask, steps: 4, seed: 1, scheduler: 'DDIM', ...options })

const same = (a: GenerationResult, b: GenerationResult): number => relativeError(a.latents.data, b.latents.data)
const entry = (t: Tensor, index: number): Float32Array => {
  const each = t.data.length / t.shape[0]!
  return t.data.subarray(index * each, (index + 1) * each)
}

/** The picture as [1, 3, H, W] in −1..1. */
const tensorOf = (picture: DiffusionImage): Tensor => {
  const { width, height, data } = picture
  const pixels = width * height
  const out = new Float32Array(pixels * 3)
  for (let i = 0; i < pixels; i++) for (let c = 0; c < 3; c++) out[c * pixels + i] = (data[i * 3 + c]! / 255) * 2 - 1
  return { data: out, shape: [1, 3, height, width] }
}
/** A sample of the posterior with the next numbers of `noise`, scaled: what diffusers' latent_dist.sample gives. */
const sampled = async (noise: Generator): Promise<Float32Array> => {
  const { mean, logvar } = await pipe.vae.encode(tensorOf(image))
  const n = noise.randn(mean.shape).data
  const factor = pipe.vae.config['scalingFactor'] as number
  return mean.data.map((m, i) => factor * (m + Math.exp(0.5 * Math.min(20, Math.max(-30, logvar!.data[i]!))) * n[i]!))
}

test('strength 0 is the round trip through the autoencoder', async () => {
  let steps = 0
  const out = await img2img({ strength: 0, seed: 9, onStep: () => void steps++ })
  assert.is(steps, 0)
  const expected = await sampled(new Generator(9))
  const error = relativeError(out.latents.data, expected)
  assert.ok(error < 1e-5, `error ${error}`)
  const distance = out.images[0]!.data.reduce((sum, v, i) => sum + Math.abs(v - image.data[i]!), 0) / image.data.length
  assert.ok(distance < 12, `${distance}/255 from the picture`)
})

test('the more strength, the further from the picture, and the more steps', async () => {
  const distances: number[] = []
  const clean = await img2img({ strength: 0, outputType: 'latent' })
  for (const [strength, steps] of [
    [0.25, 1],
    [0.5, 2],
    [1, 4]
  ] as const) {
    let count = 0
    const out = await img2img({ strength, prompt: 'a green tree', outputType: 'latent', onStep: () => void count++ })
    assert.is(count, steps)
    distances.push(same(out, clean))
  }
  assert.ok(distances[0]! < distances[1]! && distances[1]! < distances[2]!, distances.join())
})

test('inpainting keeps the latents outside the mask, and nothing else', async () => {
  for (const options of [{ strength: 0.75 }, { strength: 1 }, { scheduler: 'Euler a' }, { scheduler: 'Heun' }]) {
    const out = await inpaint({ ...options, prompt: 'a green tree' })
    const clean = await sampled(new Generator(1))
    let inside = 0
    for (let i = 0; i < clean.length; i++) {
      const [x, y] = [i % 16, Math.floor(i / 16) % 16]
      const difference = Math.abs(out.latents.data[i]! - clean[i]!)
      if (x >= 4 && x < 14 && y >= 6) inside += difference
      else assert.ok(difference < 1e-5, `${x}, ${y}: ${difference}`)
    }
    assert.ok(inside / (10 * 10 * 4) > 0.05, 'painted inside')
  }
})

test('a mask of another size is resized; any kind of picture will do', async () => {
  const expected = await inpaint()
  const large = rectangle(256, 64, 96, 224, 256)
  assert.is(same(await inpaint({ mask: large }), expected), 0)
  const rgb = await sharp(mask.data, { raw: { width: 64, height: 64, channels: 1 } })
    .toColourspace('srgb')
    .png()
    .toBuffer()
  assert.is(same(await inpaint({ mask: rgb }), expected), 0)
  // Half grey is white from 128 on.
  const grey = (value: number): RawImage => ({ ...mask, data: mask.data.map((v) => (v ? value : 0)) })
  assert.is(same(await inpaint({ mask: grey(128) }), expected), 0)
  const none = await inpaint({ mask: grey(127) })
  assert.ok(relativeError(none.latents.data, await sampled(new Generator(1))) < 1e-5)
})

test('pictures as path, file, sharp instance or pixels, with alpha or 16 bits, are one', async () => {
  const expected = await img2img()
  const path = join(scratch, 'a.png')
  await image.save(path)
  const png = await image.toBuffer('png')
  const { width, height, data } = image
  const alpha = { width, height, channels: 4 as const, data: new Uint8Array(width * height * 4).fill(200) }
  for (let i = 0; i < width * height; i++) alpha.data.set(data.subarray(i * 3, i * 3 + 3), i * 4)
  const deep = await sharp(data, { raw: { width, height, channels: 3 } })
    .toColourspace('rgb16')
    .png()
    .toBuffer()
  const raw = { width, height, channels: 3 as const, data }
  for (const [name, input] of Object.entries({ path, png, sharp: sharp(png), raw, alpha, deep }))
    assert.is(same(await img2img({ image: input }), expected), 0, name)
  writeFileSync(join(scratch, 'no.png'), 'no picture')
  await fails(() => img2img({ image: join(scratch, 'no.png') }), 'ERR_ND_INVALID_ARGUMENT', /no\.png/)
})

test("sizes: the picture's own, rounded down to whole latents, or as asked for; inpainting has the model's", async () => {
  const flat = (width: number, height: number): RawImage => ({
    data: new Uint8Array(width * height * 3).fill(120),
    width,
    height,
    channels: 3
  })
  const size = ({ images }: GenerationResult): number[] => [images[0]!.width, images[0]!.height]
  const odd = await img2img({ image: flat(71, 46) })
  assert.equal(size(odd), [68, 44])
  assert.is(same(odd, await img2img({ image: flat(68, 44) })), 0, 'one colour stays one colour')
  assert.equal(size(await img2img({ image: flat(71, 46), width: 48, height: 40 })), [48, 40])
  assert.equal(size(await inpaint({ image: flat(71, 46) })), [64, 64])
  assert.equal(size(await inpaint({ image: flat(71, 46), width: 48, height: 40 })), [48, 40])
  await fails(() => img2img({ image: flat(3, 64) }), 'ERR_ND_INVALID_ARGUMENT', /at least 4 × 4/)
})

test('batches: a seed for each image paints what it paints alone; one seed is continued', async () => {
  const other: RawImage = { data: image.data.map((v) => 255 - v), width: 64, height: 64, channels: 3 }
  const two = await img2img({ image: [image, other], count: 2, seed: [3, 4], scheduler: 'Euler a' })
  for (const [k, picture] of [image, other].entries()) {
    const alone = await img2img({ image: picture, seed: 3 + k, scheduler: 'Euler a' })
    assert.ok(relativeError(entry(two.latents, k), alone.latents.data) < 1e-5, `image ${k}`)
  }
  assert.equal(two.seeds, [3, 4])
  const one = await img2img({ count: 2, seed: 3 })
  assert.ok(relativeError(entry(one.latents, 0), (await img2img({ seed: 3 })).latents.data) < 1e-5)
  assert.equal(one.seeds, [3, null])
  // By the definition: one sample of the posterior for both, then one draw for both.
  const noise = new Generator(3)
  const clean = await sampled(noise)
  const drawn = noise.randn([2, 4, 16, 16])
  const scheduler = createScheduler('DDIM', pipe.scheduler.toJSON())
  scheduler.plan(4, { strength: 0.25 })
  const [alpha, sigma] = scheduler.startLevel
  const start = Array.from({ length: 2 * 1024 }, (_, i) => alpha * clean[i % 1024]! + sigma * drawn.data[i]!)
  const first = await pipe.unet.predict({
    sample: { data: Float32Array.from(start), shape: [2, 4, 16, 16] },
    timestep: scheduler.timesteps[3]!,
    context: await textOf([prompt, prompt])
  })
  let predicted: Tensor | undefined
  await img2img({
    count: 2,
    seed: 3,
    strength: 0.25,
    guidanceScale: 1,
    stepLatents: true,
    onStep: (e) => void (predicted = e.predictedNoise)
  })
  assert.ok(relativeError(predicted!.data, first.sample.data) < 1e-4)
  const inpainted = await inpaint({ count: 2, seed: [3, 4] })
  assert.equal(inpainted.seeds, [3, null], "the second one's picture was sampled by the first one's generator")
  assert.ok(relativeError(entry(inpainted.latents, 0), (await inpaint({ seed: 3 })).latents.data) < 1e-5)
})

const textOf = async (prompts: string[]): Promise<Tensor> => {
  const { lastHiddenState } = await pipe.textEncoder.encode(prompts.map((p) => pipe.tokenizer.encode(p).ids))
  return lastHiddenState
}

test('given latents are the noise that inpainting would have drawn after the posterior', async () => {
  const noise = new Generator(1)
  await sampled(noise)
  const latents = noise.randn([1, 4, 16, 16])
  const drawn = await inpaint({ strength: 1 })
  assert.ok(same(await inpaint({ strength: 1, latents }), drawn) < 1e-6)
  await fails(
    () => inpaint({ latents: { ...latents, shape: [1, 4, 32, 8] } }),
    'ERR_ND_INVALID_ARGUMENT',
    /latents\.shape/
  )
})

test('latents as the picture are taken as they are', async () => {
  const { latents } = await img2img({ strength: 0, outputType: 'latent' })
  const again = await img2img({ image: latents, strength: 0 })
  assert.equal(again.latents, latents)
  const wide = { data: new Float32Array(4 * 12 * 20), shape: [1, 4, 12, 20] }
  assert.equal((await img2img({ image: wide })).latents.shape, [1, 4, 12, 20])
})

test('SDXL: denoisingEnd hands over to denoisingStart without a seam', async () => {
  const xl = await Pipeline.fromPretrained(reference('models', 'tiny-sdxl'))
  const options = { prompt, negativePrompt: 'dark', steps: 8, guidanceScale: 5, scheduler: 'Euler', seed: 2 }
  const size = { width: 64, height: 64 }
  const whole = await xl.txt2img({ ...options, ...size })
  const half = await xl.txt2img({ ...options, ...size, denoisingEnd: 0.5, outputType: 'latent' })
  let steps = 0
  const rest = await xl.img2img({
    ...options,
    image: half.latents,
    denoisingStart: 0.5,
    onStep: (e) => void (steps = e.steps)
  })
  assert.is(steps, 4)
  assert.ok(relativeError(rest.latents.data, whole.latents.data) < 1e-5)
  await fails(() => xl.img2img({ ...options, image, denoisingStart: 1 }), 'ERR_ND_INVALID_ARGUMENT', /denoisingStart/)
  await fails(() => xl.img2img({ ...options, image, aestheticScore: 6 }), 'ERR_ND_INVALID_ARGUMENT', /refiner/)
  await xl.dispose()
})

test('bad options are refused by name', async () => {
  const bad = 'ERR_ND_INVALID_ARGUMENT'
  for (const strength of [-0.1, 1.1, NaN, '0.5' as never])
    for (const run of [img2img, inpaint]) await fails(() => run({ strength }), bad, /strength/)
  await fails(() => img2img({ strength: 0.1 }), bad, /strength/) // less than one of four steps
  await fails(() => inpaint({ strength: 0 }), bad, /strength/)
  await fails(() => img2img({ image: undefined as never }), bad, /image/)
  await fails(() => img2img({ image: [] }), bad, /image/)
  await fails(() => inpaint({ mask: undefined as never }), bad, /mask/)
  await fails(() => img2img({ image: [image, image] }), bad, /divides the batch \(1/)
  await fails(() => inpaint({ image: [image, image], mask: [mask, mask, mask], count: 6 }), bad, /mask/)
  await fails(() => img2img({ mask } as never), bad, /mask/)
  await fails(() => img2img({ latents: {} } as never), bad, /latents/)
  await fails(() => img2img({ denoisingStart: 0.5 }), bad, /SDXL/)
  await fails(() => img2img({ image: { data: new Float32Array(48), shape: [1, 3, 4, 4] } }), bad, /image\.shape/)
  await fails(() => inpaint({ image: { data: new Float32Array(64), shape: [1, 4, 4, 4] } as never }), bad, /image/)
  await fails(() => pipe.img2img(null as never), bad, /options/)
  await fails(() => pipe.txt2img({ prompt, strength: 0.5 } as never), bad, /strength/)
  await fails(
    () => pipe.edit({ prompt, image }),
    'ERR_ND_UNSUPPORTED',
    /edit.*4 input channels.*txt2img, img2img, inpaint/
  )
})

test('a UNet of 9 channels inpaints, and says so to the rest', async () => {
  const model = await Pipeline.fromPretrained(inpaintModel(join(scratch, 'nine')))
  assert.equal(model.tasks, ['inpaint'])
  await fails(() => model.img2img({ prompt, image }), 'ERR_ND_UNSUPPORTED', /img2img.*9 input channels.*inpaint/)
  await fails(() => model.txt2img({ prompt }), 'ERR_ND_UNSUPPORTED', /txt2img.*9 input channels.*inpaint/)
  await model.dispose()
})

test('events, previews and an abort are those of txt2img', async () => {
  const seen: string[] = []
  for await (const e of pipe.stream('inpaint', { prompt, image, mask, steps: 4, scheduler: 'DDIM', preview: true })) {
    if (e.type === 'step') assert.is(e.image!.width, 64)
    seen.push(e.type)
  }
  assert.equal(seen, ['step', 'step', 'step', 'step', 'result'])
  const stop = new AbortController()
  const reason = new Error('enough')
  let count = 0
  const run = img2img({
    strength: 1,
    steps: 100,
    signal: stop.signal,
    onStep() {
      count++
      stop.abort(reason)
    }
  })
  await run.then(
    () => assert.unreachable('it ended'),
    (error: unknown) => assert.is(error, reason)
  )
  assert.ok(count < 5)
})

test('a pipeline disposed of while the picture is decoded rejects, and lives on elsewhere', async () => {
  const other = await Pipeline.fromPretrained('postcard')
  const png = await image.toBuffer('png')
  const running = other.img2img({ prompt, image: png, steps: 2 })
  const gone = other.dispose()
  await fails(() => running, 'ERR_ND_DISPOSED', /disposed/)
  await gone
})

test('a strength that is no share is refused', async () => {
  for (const strength of [-0.01, 1.01, NaN, Infinity, '0.5' as unknown as number])
    for (const paint of [img2img, inpaint])
      await fails(() => paint({ strength }), 'ERR_ND_INVALID_ARGUMENT', /strength/)
})

test('pictures carry their strength', async () => {
  assert.match((await img2img({ strength: 0.5 })).images[0]!.parameters!, /Denoising strength: 0\.5/)
})

test.run()
