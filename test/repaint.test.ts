/** Around inpainting: feathers, regions, overlays, masked content, outpainting. */
import {
  parseParameters,
  Pipeline,
  type DiffusionImage,
  type GenerationResult,
  type InpaintOptions,
  type RawImage
} from 'node-diffusion'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { relativeError } from './support/compare.js'
import { fails } from './support/fails.js'

const test = suite('repaint')
let pipe: Pipeline
let image: DiffusionImage
const prompt = 'a green tree'
test.before(async () => {
  pipe = await Pipeline.fromPretrained('postcard')
  const first = await pipe.txt2img({
    prompt: 'a red circle on a blue background',
    steps: 8,
    seed: 5,
    scheduler: 'DPM++ 2M'
  })
  image = first.images[0]!
})
test.after(() => pipe.dispose())

const rectangle = (size: number, left: number, top: number, right: number, bottom: number): RawImage => {
  const data = new Uint8Array(size * size)
  for (let y = top; y < bottom; y++) data.fill(255, y * size + left, y * size + right)
  return { data, width: size, height: size, channels: 1 }
}
const mask = rectangle(64, 16, 24, 48, 56)
const inpaint = (options: Partial<InpaintOptions> = {}): Promise<GenerationResult> =>
  pipe.inpaint({ prompt, image, mask, steps: 4, seed: 1, scheduler: 'DDIM', strength: 0.9, ...options })
const error = (a: GenerationResult, b: GenerationResult): number => relativeError(a.latents.data, b.latents.data)
/** Largest difference of the pixels for which `where` holds. */
const difference = (a: RawImage, b: RawImage, where: (x: number, y: number) => boolean): number => {
  let most = 0
  for (let i = 0; i < a.data.length; i++) {
    const pixel = Math.floor(i / 3)
    if (where(pixel % a.width, Math.floor(pixel / a.width))) most = Math.max(most, Math.abs(a.data[i]! - b.data[i]!))
  }
  return most
}
const inside = (x: number, y: number): boolean => x >= 16 && x < 48 && y >= 24 && y < 56
const outside = (x: number, y: number): boolean => !inside(x, y)

test('an overlay keeps the picture to the bit outside the mask, and takes what is painted inside', async () => {
  const plain = await inpaint()
  const over = await inpaint({ overlay: true })
  assert.is(error(over, plain), 0)
  assert.is(difference(over.images[0]!, image, outside), 0)
  assert.is(difference(over.images[0]!, plain.images[0]!, inside), 0)
  assert.ok(difference(plain.images[0]!, image, outside) > 0, 'the autoencoder changes what it keeps')
})

test('a feather mixes both across the edge; the mask itself is cut at one half', async () => {
  const half = rectangle(64, 16, 0, 64, 64) // no corners, which a feather rounds
  const plain = await inpaint({ mask: half })
  const soft = await inpaint({ mask: half, maskBlur: 2 })
  assert.is(error(soft, plain), 0, 'a straight edge stays at one half')
  const far = (x: number): boolean => x < 10
  const deep = (x: number): boolean => x >= 22
  assert.is(difference(soft.images[0]!, image, far), 0)
  assert.is(difference(soft.images[0]!, plain.images[0]!, deep), 0)
  // On the edge the mask is between a quarter and three quarters: neither the one nor the other.
  const edge = (x: number, y: number): boolean => (x === 15 || x === 16) && y > 30 && y < 50
  const [near, painted] = [soft.images[0]!, plain.images[0]!]
  assert.ok(difference(near, image, edge) > 0 && difference(near, painted, edge) > 0)
  for (let y = 31; y < 50; y++)
    for (let c = 0; c < 3; c++) {
      const i = (y * 64 + 16) * 3 + c
      const [low, high] = [Math.min(image.data[i]!, painted.data[i]!), Math.max(image.data[i]!, painted.data[i]!)]
      assert.ok(near.data[i]! >= low - 1 && near.data[i]! <= high + 1)
    }
  const bare = await inpaint({ mask: half, maskBlur: 2, overlay: false })
  assert.equal(bare.images[0]!.data, plain.images[0]!.data)
  assert.is(parseParameters(soft.images[0]!.parameters!).other!['Mask blur'], '2')
})

test('an inverted mask paints the rest', async () => {
  const turned: RawImage = { ...mask, data: mask.data.map((v) => 255 - v) }
  assert.is(error(await inpaint({ invertMask: true }), await inpaint({ mask: turned })), 0)
})

test('only the region around the mask is painted, at full size, and put back', async () => {
  const small = rectangle(64, 20, 28, 36, 44)
  const inner = (x: number, y: number): boolean => x >= 20 && x < 36 && y >= 28 && y < 44
  const out = await inpaint({ mask: small, paddingMaskCrop: 8, width: 64, height: 64 })
  assert.equal([out.images[0]!.width, out.images[0]!.height], [64, 64])
  assert.equal(out.latents.shape, [1, 4, 16, 16])
  assert.is(
    difference(out.images[0]!, image, (x, y) => !inner(x, y)),
    0
  )
  assert.ok(difference(out.images[0]!, image, inner) > 10)
  // By hand: the region 12..44 × 20..52, twice as large.
  const part = (p: RawImage): RawImage => {
    const channels = p.channels
    const data = new Uint8Array(32 * 32 * channels)
    for (let y = 0; y < 32; y++)
      data.set(p.data.subarray(((y + 20) * 64 + 12) * channels, ((y + 20) * 64 + 44) * channels), y * 32 * channels)
    return { data, width: 32, height: 32, channels }
  }
  const hand = await inpaint({ image: part(image), mask: part(small), width: 64, height: 64 })
  assert.is(error(out, hand), 0)
  // A picture of another size than what is painted comes back in its own.
  const wide: RawImage = { data: new Uint8Array(100 * 40 * 3).fill(90), width: 100, height: 40, channels: 3 }
  const region = await inpaint({ image: wide, mask: { ...rectangle(40, 5, 5, 20, 20) }, paddingMaskCrop: 4 })
  assert.equal([region.images[0]!.width, region.images[0]!.height], [100, 40])
  const other = parseParameters(out.images[0]!.parameters!).other!
  assert.equal([other['Inpaint area'], other['Masked area padding']], ['Only masked', '8'])
  await fails(
    () => inpaint({ mask: rectangle(64, 0, 0, 0, 0), paddingMaskCrop: 8 }),
    'ERR_ND_INVALID_ARGUMENT',
    /white/
  )
})

test('masked content: what is under the mask when it begins', async () => {
  const original = await inpaint()
  const results = [original]
  for (const maskedContent of ['fill', 'latentNoise', 'latentNothing'] as const) {
    const out = await inpaint({ maskedContent })
    for (const before of results) assert.ok(error(out, before) > 1e-3, maskedContent)
    results.push(out)
    assert.is(
      parseParameters(out.images[0]!.parameters!).other!['Masked content'],
      maskedContent.replace('latentN', 'latent n')
    )
  }
  assert.is(error(await inpaint({ maskedContent: 'original' }), original), 0)
  // What was under the mask is gone: another picture there changes nothing any more.
  const other: RawImage = { data: image.data.slice(), width: 64, height: 64, channels: 3 }
  for (let y = 24; y < 56; y++) other.data.fill(0, (y * 64 + 16) * 3, (y * 64 + 48) * 3)
  for (const maskedContent of ['fill', 'latentNoise', 'latentNothing'] as const)
    assert.ok(
      error(await inpaint({ image: other, maskedContent }), await inpaint({ maskedContent })) < 1e-6,
      maskedContent
    )
  assert.ok(error(await inpaint({ image: other }), original) > 1e-3)
  // Nothing: the first prediction is made of noise alone inside the mask.
  const steps: Float32Array[] = []
  for (const maskedContent of ['latentNoise', 'latentNothing'] as const)
    await inpaint({
      maskedContent,
      steps: 10,
      strength: 0.1,
      stepLatents: true,
      onStep: (e) => void steps.push(e.latents!.data)
    })
  assert.ok(relativeError(steps[0]!, steps[1]!) > 0.1)
})

test('resize modes', async () => {
  const wide: RawImage = { data: new Uint8Array(96 * 64 * 3), width: 96, height: 64, channels: 3 }
  for (let i = 0; i < wide.data.length; i++) wide.data[i] = (Math.floor(i / 3) % 96) + 2 * Math.floor(i / 288)
  const call = { prompt, strength: 0, steps: 2, seed: 1, width: 64, height: 64, image: wide }
  const results = await Promise.all(
    (['default', 'crop', 'fill'] as const).map((resizeMode) => pipe.img2img({ ...call, resizeMode }))
  )
  const middle: RawImage = { data: new Uint8Array(64 * 64 * 3), width: 64, height: 64, channels: 3 }
  for (let y = 0; y < 64; y++) middle.data.set(wide.data.subarray((y * 96 + 16) * 3, (y * 96 + 80) * 3), y * 64 * 3)
  assert.is(error(results[1]!, await pipe.img2img({ ...call, image: middle })), 0)
  assert.ok(error(results[0]!, results[1]!) > 0.01 && error(results[0]!, results[2]!) > 1e-4)
  await fails(() => pipe.img2img({ ...call, resizeMode: 'stretch' as never }), 'ERR_ND_INVALID_ARGUMENT', /resizeMode/)
})

test('outpainting keeps the picture and paints the margin', async () => {
  const call = { prompt, image, steps: 4, seed: 1, scheduler: 'DDIM' }
  for (const fill of ['edge', 'reflect', 'noise'] as const) {
    const { images } = await pipe.outpaint({ ...call, right: 32, top: 16, fill, strength: 0.8 })
    const out = images[0]!
    assert.equal([out.width, out.height], [96, 80])
    const at = (x: number, y: number, c: number): number => out.data[(y * 96 + x) * 3 + c]!
    for (let y = 16; y < 64; y++)
      for (let x = 0; x < 48; x++)
        for (let c = 0; c < 3; c++) assert.is(at(x, y + 16, c), image.data[(y * 64 + x) * 3 + c], `${x}, ${y}`)
  }
  // 70 + 10 pixels are 80; 64 + 3 are 67, and grow to 72 where they were asked for.
  const odd: RawImage = { data: new Uint8Array(70 * 64 * 3).fill(100), width: 70, height: 64, channels: 3 }
  const { images } = await pipe.outpaint({ ...call, image: odd, left: 10, top: 3 })
  assert.equal([images[0]!.width, images[0]!.height], [80, 72])
  const bad = 'ERR_ND_INVALID_ARGUMENT'
  await fails(() => pipe.outpaint(call), bad, /at least one margin/)
  await fails(() => pipe.outpaint({ ...call, left: -1 }), bad, /left/)
  await fails(() => pipe.outpaint({ ...call, left: 8, mask } as never), bad, /mask/)
  await fails(() => pipe.outpaint({ ...call, left: 8, fill: 'none' as never }), bad, /fill/)
})

test('what is wrong is refused', async () => {
  const bad = 'ERR_ND_INVALID_ARGUMENT'
  await fails(() => inpaint({ maskBlur: -1 }), bad, /maskBlur/)
  await fails(() => inpaint({ paddingMaskCrop: 1.5 }), bad, /paddingMaskCrop/)
  await fails(() => inpaint({ maskedContent: 'blank' as never }), bad, /maskedContent/)
  await fails(() => inpaint({ overlay: 1 as never }), bad, /overlay/)
  const other: RawImage = { data: new Uint8Array(32 * 32 * 3), width: 32, height: 32, channels: 3 }
  await fails(() => inpaint({ image: [image, other], count: 2, paddingMaskCrop: 8 }), bad, /one size/)
})

test.run()
