/** Variations of a seed and seamless tiles, from their definitions. */
import {
  Generator,
  parseParameters,
  Pipeline,
  type DiffusionImage,
  type GenerationResult,
  type Txt2ImgOptions
} from 'node-diffusion'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { relativeError } from './support/compare.js'
import { fails } from './support/fails.js'

const test = suite('variation')
let pipe: Pipeline
test.before(async () => {
  pipe = await Pipeline.fromPretrained('postcard')
})
test.after(() => pipe.dispose())

const prompt = 'a red circle on a blue background'
const paint = (options: Partial<Txt2ImgOptions> = {}): Promise<GenerationResult> =>
  pipe.txt2img({ prompt, steps: 3, seed: 5, scheduler: 'DDIM', ...options })
const error = (a: GenerationResult, b: GenerationResult): number => relativeError(a.latents.data, b.latents.data)
const latents = (data: Float32Array, batch = 1) => ({ data, shape: [batch, 4, 16, 16] })

/** AUTOMATIC1111's slerp of [C, h, w]: along every column of each channel. */
const slerp = (share: number, low: Float32Array, high: Float32Array, h = 16, w = 16): Float32Array => {
  const out = new Float32Array(low.length)
  for (let c = 0; c < low.length / (h * w); c++)
    for (let x = 0; x < w; x++) {
      const at = Array.from({ length: h }, (_, y) => (c * h + y) * w + x)
      const dot = (a: Float32Array, b: Float32Array): number => at.reduce((sum, i) => sum + a[i]! * b[i]!, 0)
      const angle = Math.acos(dot(low, high) / Math.sqrt(dot(low, low) * dot(high, high)))
      for (const i of at)
        out[i] = (Math.sin((1 - share) * angle) * low[i]! + Math.sin(share * angle) * high[i]!) / Math.sin(angle)
    }
  return out
}
const noise = (seed: number, shape = [1, 4, 16, 16]): Float32Array => new Generator(seed).randn(shape).data

test('the noise is turned from the seed towards the subseed', async () => {
  const varied = await paint({ subseed: 9, subseedStrength: 0.3 })
  assert.ok(error(varied, await paint({ latents: latents(slerp(0.3, noise(5), noise(9))) })) < 1e-5)
  assert.ok(error(await paint({ subseed: 9, subseedStrength: 1 }), await paint({ seed: 9 })) < 1e-5)
  assert.is(error(await paint({ subseed: 9, subseedStrength: 0 }), await paint()), 0)
  assert.ok(error(varied, await paint()) > 0.01)
  const fields = parseParameters(varied.images[0]!.parameters!)
  assert.is(fields.seed, 5)
  assert.is(fields.other!['Variation seed'], '9')
  assert.is(fields.other!['Variation seed strength'], '0.3')
  assert.equal(varied.seeds, [5])
})

test('one subseed goes on over the images, an array has one for each', async () => {
  const each = await paint({ count: 2, seed: [5, 6], subseed: [9, 10], subseedStrength: 0.5 })
  const joined = new Float32Array(2048)
  joined.set(slerp(0.5, noise(5), noise(9)))
  joined.set(slerp(0.5, noise(6), noise(10)), 1024)
  assert.ok(error(each, await paint({ count: 2, seed: [5, 6], latents: latents(joined, 2) })) < 1e-5)
  assert.equal(each.seeds, [5, 6])
  const one = await paint({ count: 2, seed: [5, 6], subseed: 9, subseedStrength: 0.5 })
  const going = noise(9, [2, 4, 16, 16])
  joined.set(slerp(0.5, noise(6), going.subarray(1024)), 1024)
  assert.ok(error(one, await paint({ count: 2, seed: [5, 6], latents: latents(joined, 2) })) < 1e-5)
  assert.equal(one.seeds, [5, null])
})

test('a seed resized from another size: its noise in the middle', async () => {
  const small = noise(5, [1, 4, 8, 12])
  const expected = noise(5)
  for (let c = 0; c < 4; c++)
    for (let y = 0; y < 8; y++)
      for (let x = 0; x < 12; x++) expected[(c * 16 + y + 4) * 16 + x + 2] = small[(c * 8 + y) * 12 + x]!
  const resized = await paint({ seedResizeFromWidth: 48, seedResizeFromHeight: 32 })
  assert.ok(error(resized, await paint({ latents: latents(expected) })) < 1e-5)
  assert.is(parseParameters(resized.images[0]!.parameters!).other!['Seed resize from'], '48x32')
  // From a larger one: its middle.
  const large = noise(5, [1, 4, 20, 18])
  const cut = noise(5)
  for (let c = 0; c < 4; c++)
    for (let y = 0; y < 16; y++)
      for (let x = 0; x < 16; x++) cut[(c * 16 + y) * 16 + x] = large[(c * 20 + y + 2) * 18 + x + 1]!
  const shrunk = await paint({ seedResizeFromWidth: 72, seedResizeFromHeight: 80 })
  assert.ok(error(shrunk, await paint({ latents: latents(cut) })) < 1e-5)
  // With a variation, at the small size.
  const both = await paint({ seedResizeFromWidth: 64, seedResizeFromHeight: 64, subseed: 9, subseedStrength: 0.3 })
  assert.ok(error(both, await paint({ subseed: 9, subseedStrength: 0.3 })) < 1e-6, 'the same size changes nothing')
})

test('img2img varies the noise that it adds', async () => {
  const image = (await paint()).images[0]!
  const call = { prompt, image, strength: 1, steps: 2, scheduler: 'DDIM', seed: 5 }
  const plain = await pipe.img2img(call)
  const varied = await pipe.img2img({ ...call, subseed: 9, subseedStrength: 0.4 })
  assert.ok(error(varied, plain) > 0.01)
  assert.is(error(await pipe.img2img({ ...call, subseed: 9, subseedStrength: 0.4 }), varied), 0)
})

test('what is wrong is refused', async () => {
  const bad = 'ERR_ND_INVALID_ARGUMENT'
  await fails(() => paint({ subseedStrength: 1.5 }), bad, /subseedStrength/)
  await fails(() => paint({ subseed: [1, 2], subseedStrength: 0.5 }), bad, /subseed/)
  await fails(() => paint({ subseed: -1 }), bad, /subseed/)
  await fails(() => paint({ seedResizeFromWidth: 32 }), bad, /both or none/)
  await fails(() => paint({ subseedStrength: 0.5, latents: latents(noise(1)) }), bad, /latents/)
  await fails(() => paint({ tiling: 'z' as never }), bad, /tiling/)
})

/** Mean difference of neighbours across an edge that meets its opposite, over that of neighbours inside. */
const seam = ({ width, height, data }: DiffusionImage, axis: 'x' | 'y'): number => {
  const at = (x: number, y: number, c: number): number => data[(y * width + x) * 3 + c]!
  const [along, across] = axis === 'x' ? [height, width] : [width, height]
  const between = (i: number, j: number): number => {
    let sum = 0
    for (let k = 0; k < along; k++)
      for (let c = 0; c < 3; c++)
        sum += axis === 'x' ? Math.abs(at(i, k, c) - at(j, k, c)) : Math.abs(at(k, i, c) - at(k, j, c))
    return sum / along / 3
  }
  let inside = 0
  for (let i = 0; i + 1 < across; i++) inside += between(i, i + 1) / (across - 1)
  return between(across - 1, 0) / inside
}

test('tiles have no seam, along the axes asked for', async () => {
  const call = {
    prompt: 'a red house on a beach at sunset',
    steps: 6,
    scheduler: 'DPM++ 2M',
    seed: [1, 2, 3, 4],
    count: 4,
    guidanceScale: 1
  }
  const results: GenerationResult[] = []
  for (const tiling of [false, true, 'x', 'y'] as const) results.push(await pipe.txt2img({ ...call, tiling }))
  const seams = results.map(({ images }) =>
    (['x', 'y'] as const).map((axis) => images.reduce((sum, image) => sum + seam(image, axis) / 4, 0))
  )
  const expected = [
    [true, true],
    [false, false],
    [false, true],
    [true, false]
  ]
  const text = JSON.stringify(seams)
  seams.forEach((row, i) =>
    row.forEach((value, axis) => assert.ok(expected[i]![axis] ? value > 2 : value < 1.4, `${i}, ${axis}: ${text}`))
  )
  const [plain, both, x, y] = results as [GenerationResult, GenerationResult, GenerationResult, GenerationResult]
  assert.ok(error(x, y) > 0.01 && error(x, both) > 0.01 && error(y, both) > 0.01)
  assert.is(error(await pipe.txt2img(call), plain), 0, 'nothing stays behind')
})

test('a tile painted from rolled noise is the rolled tile', async () => {
  const data = noise(3)
  const rolled = data.map((_, i) => data[i - (i % 16) + (((i % 16) + 8) % 16)]!)
  const call = { steps: 2, tiling: 'x' as const }
  const a = await paint({ ...call, latents: latents(data) })
  const b = await paint({ ...call, latents: latents(rolled) })
  const back = b.latents.data.map((_, i) => b.latents.data[i - (i % 16) + (((i % 16) + 8) % 16)]!)
  assert.ok(relativeError(back, a.latents.data) < 1e-4)
  const [p, q] = [a.images[0]!.data, b.images[0]!.data]
  const distance = p.reduce((sum, v, i) => {
    const pixel = Math.floor(i / 3)
    const from = pixel - (pixel % 64) + (((pixel % 64) + 32) % 64)
    return sum + Math.abs(v - q[from * 3 + (i % 3)]!)
  }, 0)
  assert.ok(distance / p.length < 0.5, `${distance / p.length}/255`)
})

test.run()
