/** Pictures of every kind as input of img2img and inpaint, and sizes that latents do not halve evenly. */
import { Pipeline, type GenerationResult, type ImageInput, type RawImage } from 'node-diffusion'
import sharp from 'sharp'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { relativeError } from './support/compare.js'
import { fails } from './support/fails.js'
import { reference } from './support/paths.js'

const test = suite('picture inputs')
let pipe: Pipeline
test.before(async () => {
  pipe = await Pipeline.fromPretrained('postcard')
})
test.after(() => pipe.dispose())

const prompt = 'a green tree'
const width = 48
const height = 64
/** Unlike itself however it is turned. */
const image: RawImage = { data: new Uint8Array(width * height * 3), width, height, channels: 3 }
for (let i = 0; i < image.data.length; i++) {
  const [x, y] = [Math.floor(i / 3) % width, Math.floor(i / 3 / width)]
  image.data[i] = [x * 5, y * 3, (x * y) % 256][i % 3]!
}
const mask: RawImage = { data: new Uint8Array(width * height), width, height, channels: 1 }
for (let y = 8; y < 40; y++) mask.data.fill(255, y * width + 8, y * width + 30)

const call = { prompt, steps: 2, seed: 1, scheduler: 'DDIM', width, height }
const tasks: Record<string, (image: ImageInput) => Promise<GenerationResult>> = {
  img2img: (image) => pipe.img2img({ ...call, image, strength: 0.5 }),
  inpaint: (image) => pipe.inpaint({ ...call, image, mask, strength: 0.5 })
}
const raw = () => sharp(image.data, { raw: { width, height, channels: 3 } })
const error = (a: GenerationResult, b: GenerationResult): number => relativeError(a.latents.data, b.latents.data)

test('alpha, 16 bits, EXIF orientation, animations: the picture that is meant', async () => {
  const rgba = new Uint8Array(width * height * 4)
  for (let i = 0; i < width * height; i++) rgba.set([...image.data.subarray(i * 3, i * 3 + 3), i % 256], i * 4)
  const black = Buffer.alloc(image.data.length)
  const frames = Buffer.concat([Buffer.from(image.data), black])
  const kinds: Record<string, ImageInput> = {
    'raw with alpha': { data: rgba, width, height, channels: 4 },
    'PNG with alpha': await sharp(rgba, { raw: { width, height, channels: 4 } })
      .png()
      .toBuffer(),
    'PNG of 16 bits': await raw().toColourspace('rgb16').png().toBuffer(),
    // Stored turned a quarter to the left, with the note to turn it back.
    'EXIF-rotated': await raw().rotate(270).withMetadata({ orientation: 6 }).png().toBuffer(),
    'animated WebP': await sharp(frames, {
      raw: { width, height: 2 * height, channels: 3, pageHeight: height } as never
    })
      .webp({ lossless: true, loop: 0, delay: [100, 100] })
      .toBuffer()
  }
  assert.is((await sharp(kinds['animated WebP'] as Buffer).metadata()).pages, 2)
  for (const [task, run] of Object.entries(tasks)) {
    const expected = await run(image)
    for (const [kind, input] of Object.entries(kinds))
      assert.is(error(await run(input), expected), 0, `${task}: ${kind}`)
  }
})

test('grey pictures are grey in every channel, of 8 and 16 bits, with alpha or not', async () => {
  const grey = new Uint8Array(width * height).map((_, i) => (i * 7) % 256)
  const rgb: RawImage = {
    data: new Uint8Array(image.data.length).map((_, i) => grey[Math.floor(i / 3)]!),
    width,
    height,
    channels: 3
  }
  const alpha = new Uint8Array(grey.length * 2).map((_, i) => (i % 2 ? 90 : grey[i / 2]!))
  const one = sharp(grey, { raw: { width, height, channels: 1 } }).toColourspace('b-w')
  const kinds: Record<string, ImageInput> = {
    raw: { data: grey, width, height, channels: 1 },
    'raw with alpha': { data: alpha, width, height, channels: 2 },
    PNG: await one.clone().png().toBuffer(),
    'PNG of 16 bits': await one.clone().toColourspace('grey16').png().toBuffer()
  }
  for (const [task, run] of Object.entries(tasks)) {
    const expected = await run(rgb)
    for (const [kind, input] of Object.entries(kinds))
      assert.is(error(await run(input), expected), 0, `${task}: ${kind}`)
  }
})

test('masks: of another size, in colour, with alpha, of 16 bits', async () => {
  const inpaint = (mask: ImageInput): Promise<GenerationResult> => pipe.inpaint({ ...call, image, mask, strength: 0.5 })
  const expected = await inpaint(mask)
  const large = sharp(mask.data, { raw: { width, height, channels: 1 } }).resize(width * 3, height * 3, {
    kernel: 'nearest'
  })
  const rgba = new Uint8Array(width * height * 4)
  for (let i = 0; i < width * height; i++) rgba.fill(mask.data[i]!, i * 4, i * 4 + 4)
  const deep = sharp(mask.data, { raw: { width, height, channels: 1 } })
    .toColourspace('b-w')
    .toColourspace('grey16')
  const kinds: Record<string, ImageInput> = {
    larger: large.png(),
    'in colour with alpha': { data: rgba, width, height, channels: 4 },
    'of 16 bits': await deep.png().toBuffer()
  }
  for (const [kind, input] of Object.entries(kinds)) assert.is(error(await inpaint(input), expected), 0, kind)
})

test('what is no picture is refused', async () => {
  const bad = 'ERR_ND_INVALID_ARGUMENT'
  for (const run of Object.values(tasks)) {
    await fails(() => run(Buffer.from('no picture')), bad, /picture/)
    await fails(() => run({ data: new Uint8Array(10), width: 2, height: 2, channels: 3 }), bad, /12|2 × 2/)
    await fails(() => run({ data: new Uint8Array(0), width: 0, height: 2, channels: 3 }), bad, /width/)
    await fails(() => run('nowhere.png'), bad, /nowhere\.png/)
  }
  for (const strength of [-0.1, 1.01, NaN, Infinity])
    for (const task of ['img2img', 'inpaint'] as const)
      await fails(() => pipe[task]({ ...call, image, mask, strength } as never), bad, /strength/)
})

test('any multiple of 8: latents that do not halve evenly', async () => {
  const sd = await Pipeline.fromPretrained(reference('models', 'tiny-sd15'))
  const factor = sd.vae.factor
  for (const [w, h] of [
    [11, 9],
    [5, 7],
    [1, 3],
    [40, 1]
  ] as const) {
    const size = { width: Math.max(8, w * factor), height: Math.max(8, h * factor) }
    const out = await sd.txt2img({ prompt, steps: 2, seed: 1, ...size })
    assert.equal(out.latents.shape.slice(2), [size.height / factor, size.width / factor])
    assert.equal([out.images[0]!.width, out.images[0]!.height], [size.width, size.height])
    assert.ok(out.latents.data.every(Number.isFinite))
    const again = await sd.inpaint({ prompt, image, mask, steps: 2, seed: 1, ...size })
    assert.equal([again.images[0]!.width, again.images[0]!.height], [size.width, size.height])
  }
  await fails(() => sd.txt2img({ prompt, width: 60, height: 64 }), 'ERR_ND_INVALID_ARGUMENT', /width/)
  await sd.dispose()
})

test.run()
