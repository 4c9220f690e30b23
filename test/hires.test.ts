/** The second pass: sizes, upscalers as torch interpolates, and the same picture as txt2img and img2img by hand. */
import { parseParameters, Pipeline, type GenerationResult, type StepEvent, type Txt2ImgOptions } from 'node-diffusion'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { resolveHires } from '#lib/hires-options.js'
import { cropMiddle, interpolate } from '#lib/interpolate.js'
import { relativeError } from './support/compare.js'
import { fails } from './support/fails.js'

const test = suite('hires')
let pipe: Pipeline
test.before(async () => {
  pipe = await Pipeline.fromPretrained('postcard')
})
test.after(() => pipe.dispose())

const call = { prompt: 'a red circle on a blue background', steps: 4, seed: 5, scheduler: 'DDIM', guidanceScale: 3 }
const paint = (hires: Txt2ImgOptions['hires'], more: Partial<Txt2ImgOptions> = {}): Promise<GenerationResult> =>
  pipe.txt2img({ ...call, ...more, hires: hires! })
const error = (a: GenerationResult, b: GenerationResult): number => relativeError(a.latents.data, b.latents.data)
const line = (...data: number[]) => ({ data: Float32Array.from(data), shape: [1, 1, 1, data.length] })

test('interpolation as torch', () => {
  const close = (actual: Float32Array, expected: number[]): void =>
    assert.ok(relativeError(actual, expected) < 1e-6, Array.from(actual).join())
  const x = line(0, 1, 2, 3)
  close(interpolate(x, 1, 8, { mode: 'bilinear' }).data, [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3])
  close(interpolate(x, 1, 6, { mode: 'nearest' }).data, [0, 0, 1, 2, 2, 3])
  close(interpolate(line(0, 1, 2), 1, 5, { mode: 'nearest' }).data, [0, 0, 1, 1, 2])
  close(interpolate(line(0, 1, 2), 1, 5, { mode: 'nearestExact' }).data, [0, 0, 1, 2, 2])
  // Keys' cubic with a = −0.75 at a distance of 1¼ is −0.10546875, of 1¾ −0.03515625, of ¾ 0.26171875.
  close(interpolate(line(1, 2), 1, 4, { mode: 'bicubic' }).data, [0.89453125, 1.2265625, 1.7734375, 2.10546875])
  // Shrinking with antialias is a triangle over twice the width, cut at the edges and of sum 1.
  close(interpolate(x, 1, 2, { mode: 'bilinear', antialias: true }).data, [
    (0 * 0.75 + 1 * 0.75 + 2 * 0.25) / 1.75,
    (1 * 0.25 + 2 * 0.75 + 3 * 0.75) / 1.75
  ])
  // In both directions, one after the other.
  const square = { data: Float32Array.from([0, 1, 2, 3]), shape: [1, 1, 2, 2] }
  close(interpolate(square, 4, 2, { mode: 'bilinear' }).data, [0, 1, 0.5, 1.5, 1.5, 2.5, 2, 3])
  const flat = { data: new Float32Array(2 * 3 * 5 * 4).fill(0.7), shape: [2, 3, 5, 4] }
  for (const mode of ['bilinear', 'bicubic'] as const)
    for (const antialias of [true, false])
      close(interpolate(flat, 9, 3, { mode, antialias }).data, Array<number>(2 * 3 * 9 * 3).fill(0.7))
  assert.equal(Array.from(cropMiddle(line(0, 1, 2, 3), 1, 2).data), [1, 2])
})

test('sizes', () => {
  const size = (h: Parameters<typeof resolveHires>[0], width = 64, height = 48) => {
    const { size, cover } = resolveHires(h, { width, height, steps: 10 }, 8)
    return [size.width, size.height, cover.width, cover.height]
  }
  assert.equal(size({}), [128, 96, 128, 96])
  assert.equal(size({ scale: 1.3 }), [80, 56, 80, 56])
  assert.equal(size({ width: 128 }), [128, 96, 128, 96])
  assert.equal(size({ height: 96 }), [128, 96, 128, 96])
  assert.equal(size({ width: 128, height: 128 }), [128, 128, 168, 128])
  assert.equal(size({ width: 128, height: 64 }), [128, 64, 128, 96])
})

test('it is txt2img, interpolation of the latents and img2img with the same seed', async () => {
  const first = await pipe.txt2img({ ...call, outputType: 'latent' })
  for (const [upscaler, how] of [
    ['latent', { mode: 'bilinear' }],
    ['Latent (bicubic antialiased)', { mode: 'bicubic', antialias: true }],
    ['latentNearest', { mode: 'nearest' }]
  ] as const) {
    const image = interpolate(first.latents, 24, 24, how)
    // 4 steps that are the last 0.5 of the schedule: of 8.
    const expected = await pipe.img2img({ ...call, image, steps: 8, strength: 0.5 })
    const actual = await paint({ scale: 1.5, upscaler, denoisingStrength: 0.5 })
    assert.equal([actual.images[0]!.width, actual.images[0]!.height], [96, 96])
    assert.is(error(actual, expected), 0, upscaler)
    assert.equal(actual.images[0]!.data, expected.images[0]!.data)
  }
})

test('or, by way of the picture, Lanczos and img2img', async () => {
  const image = (await pipe.txt2img(call)).images[0]!
  const options = { image, width: 96, height: 80, resizeMode: 'crop', steps: 5, strength: 0.4 } as const
  const expected = await pipe.img2img({ ...call, ...options })
  const actual = await paint({ width: 96, height: 80, upscaler: 'Lanczos', denoisingStrength: 0.4, steps: 2 })
  assert.is(error(actual, expected), 0)
  const nearest = await paint({ width: 96, upscaler: 'nearest', denoisingStrength: 0 })
  const round = await paint({ width: 96, upscaler: 'lanczos', denoisingStrength: 0 })
  assert.ok(error(nearest, round) > 1e-3)
})

test('options of the second pass; events go on', async () => {
  const events: StepEvent[] = []
  const out = await paint(
    { scale: 1.25, steps: 3, denoisingStrength: 0.6, prompt: 'a green tree', guidanceScale: 6, scheduler: 'Euler' },
    { onStep: (e) => events.push(e), preview: true }
  )
  assert.equal(
    events.map((e) => e.step),
    [1, 2, 3, 4, 5, 6, 7]
  )
  assert.ok(events.every((e) => e.steps === 7))
  assert.equal(
    events.map((e) => e.image!.width),
    [64, 64, 64, 64, 80, 80, 80]
  )
  const fields = parseParameters(out.images[0]!.parameters!)
  assert.equal([fields.width, fields.height, fields.steps, fields.cfgScale, fields.seed], [64, 64, 4, 3, 5])
  const other = fields.other!
  assert.is(other['Denoising strength'], '0.6')
  assert.is(other['Hires upscale'], '1.25')
  assert.is(other['Hires steps'], '3')
  assert.is(other['Hires upscaler'], 'Latent')
  assert.is(other['Hires sampler'], 'Euler')
  assert.is(other['Hires CFG Scale'], '6')
  assert.is(other['Hires prompt'], 'a green tree')
  const same = await paint({ scale: 1.25, steps: 3, denoisingStrength: 0.6 })
  assert.ok(error(out, same) > 0.01)
  const size = parseParameters((await paint({ width: 80, denoisingStrength: 0 })).images[0]!.parameters!)
  assert.is(size.other!['Hires resize'], '80x0')
})

test('batches, seeds, an abort', async () => {
  const two = await paint({ scale: 1.25, steps: 2 }, { count: 2, seed: [5, 6] })
  assert.equal(two.seeds, [5, 6])
  const alone = await paint({ scale: 1.25, steps: 2 }, { seed: 6 })
  assert.ok(relativeError(two.latents.data.subarray(two.latents.data.length / 2), alone.latents.data) < 1e-5)
  const stop = new AbortController()
  const running = paint(
    {},
    { signal: stop.signal, onStep: (e) => void (e.step === 5 && stop.abort(new Error('enough'))) }
  )
  await running.then(
    () => assert.unreachable('it ended'),
    (e: Error) => assert.is(e.message, 'enough')
  )
})

test('what is wrong is refused', async () => {
  const bad = 'ERR_ND_INVALID_ARGUMENT'
  await fails(() => paint({ scale: 0.5 }), bad, /hires\.scale/)
  await fails(() => paint({ scale: 2, width: 80 }), bad, /not both/)
  await fails(() => paint({ width: 81 }), bad, /hires\.width/)
  await fails(() => paint({ upscaler: 'ESRGAN' }), bad, /hires\.upscaler/)
  await fails(() => paint({ denoisingStrength: 1.2 }), bad, /hires\.denoisingStrength/)
  await fails(() => paint({ sclae: 2 } as never), bad, /sclae/)
  await fails(() => paint({ denoisingStrength: 0.01, steps: 20 }), bad, /hires\.denoisingStrength/)
  const image = { data: new Uint8Array(64 * 64 * 3), width: 64, height: 64, channels: 3 as const }
  await fails(() => pipe.img2img({ ...call, image, hires: {} } as never), bad, /hires/)
})

test.run()
