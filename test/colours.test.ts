/** The bundled model paints what it is told: the colours of flat shapes, read back from the pixels. */
import { type DiffusionImage, Pipeline } from 'node-diffusion'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'

const test = suite('colours')

/** The colours that the model's training pictures were drawn in (tools/postcard/scenes.py). */
const colours: Record<string, readonly [number, number, number]> = {
  red: [214, 40, 40],
  orange: [244, 128, 30],
  yellow: [250, 210, 50],
  green: [46, 160, 67],
  blue: [38, 92, 214],
  purple: [128, 60, 190],
  pink: [240, 130, 180],
  white: [245, 245, 245],
  black: [24, 24, 28]
}
const pairs = [
  ['red', 'blue'],
  ['yellow', 'black'],
  ['green', 'purple'],
  ['blue', 'yellow'],
  ['orange', 'green'],
  ['pink', 'black'],
  ['white', 'red'],
  ['purple', 'orange'],
  ['black', 'pink'],
  ['yellow', 'blue']
] as const

/** Mean colour of the square from (x, y), by its nearest name. */
const nameAt = (image: DiffusionImage, x: number, y: number, side: number): string => {
  const mean = [0, 1, 2].map((channel) => {
    let sum = 0
    for (let j = 0; j < side; j++)
      for (let i = 0; i < side; i++) sum += image.data[((y + j) * image.width + x + i) * 3 + channel]!
    return sum / side / side
  })
  const distance = (c: readonly number[]): number => c.reduce((sum, v, i) => sum + (v - mean[i]!) ** 2, 0)
  return Object.keys(colours).sort((a, b) => distance(colours[a]!) - distance(colours[b]!))[0]!
}

test('a COLOUR circle on a COLOUR background: right in at least 80 % of 10 pairs × 4 seeds', async () => {
  const pipe = await Pipeline.fromPretrained('postcard')
  let right = 0
  const wrong: string[] = []
  for (const [shape, background] of pairs) {
    const { images } = await pipe.txt2img({
      prompt: `a ${shape} circle on a ${background} background`.replace('a orange', 'an orange'),
      steps: 20,
      guidanceScale: 5,
      scheduler: 'DPM++ 2M Karras',
      count: 4,
      seed: [1, 2, 3, 4]
    })
    images.forEach((image, i) => {
      const seen = [nameAt(image, 28, 28, 8), nameAt(image, 2, 2, 6), nameAt(image, 56, 56, 6)]
      if (seen[0] === shape && seen[1] === background && seen[2] === background) right++
      else wrong.push(`${shape} on ${background}, seed ${i + 1}: ${seen.join(', ')}`)
    })
  }
  await pipe.dispose()
  console.log(`colours: ${right} of ${pairs.length * 4} right${wrong.length ? `; not: ${wrong.join('; ')}` : ''}`)
  assert.ok(right >= 0.8 * pairs.length * 4)
})

test.run()
