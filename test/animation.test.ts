/** Pictures one after another as one file. */
import { animation, DiffusionImage, Pipeline } from 'node-diffusion'
import sharp from 'sharp'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { fails } from './support/fails.js'

const test = suite('animation')

const plain = (red: number, width = 24, height = 16): DiffusionImage =>
  new DiffusionImage({
    data: Uint8Array.from({ length: width * height * 3 }, (_, i) => (i % 3 ? 40 : red)),
    width,
    height
  })

test('every picture is a frame, in order, with its time', async () => {
  const reds = [10, 90, 170, 250]
  for (const format of ['webp', 'gif'] as const) {
    const file = await animation(
      reds.map((red) => plain(red)),
      { format, delay: 120, lastDelay: 900, loop: 3, ...(format === 'webp' ? { quality: 100 } : {}) }
    )
    const { pages, delay, loop, pageHeight, width } = await sharp(file, { animated: true }).metadata()
    assert.equal([pages, delay, loop, pageHeight, width], [4, [120, 120, 120, 900], 3, 16, 24], format)
    for (const [page, red] of reds.entries()) {
      const { data, info } = await sharp(file, { page }).removeAlpha().raw().toBuffer({ resolveWithObject: true })
      assert.equal([info.width, info.height], [24, 16])
      const middle = (8 * 24 + 12) * 3
      assert.ok(Math.abs(data[middle]! - red) < 8, `${format} frame ${page}: ${data[middle]} instead of ${red}`)
    }
  }
})

test('the steps of a generation', async () => {
  const pipe = await Pipeline.fromPretrained('postcard')
  const steps: DiffusionImage[] = []
  const { images } = await pipe.txt2img({
    prompt: 'a red house on a beach',
    steps: 5,
    seed: 7,
    preview: true,
    onStep: ({ image }) => image && void steps.push(image)
  })
  await pipe.dispose()
  const { pages, width } = await sharp(await animation([...steps, images[0]!]), { animated: true }).metadata()
  // Equal neighbours become one frame: the last preview is the picture.
  assert.ok(pages! >= 5 && pages! <= steps.length + 1, String(pages))
  assert.is(width, 64)
})

test('mistakes', async () => {
  await fails(() => animation([]), 'ERR_ND_INVALID_ARGUMENT', /at least one picture/)
  await fails(() => animation([plain(1), plain(1, 8, 8)]), 'ERR_ND_INVALID_ARGUMENT', /one size \(24 × 16\).*8 × 8/)
  await fails(() => animation([plain(1)], { delay: 0 }), 'ERR_ND_INVALID_ARGUMENT', /delay/)
  await fails(() => animation([plain(1)], { format: 'avi' as 'gif' }), 'ERR_ND_INVALID_ARGUMENT', /format/)
  await fails(() => animation([plain(1)], { speed: 1 } as object), 'ERR_ND_INVALID_ARGUMENT', /speed/)
})

test.run()
