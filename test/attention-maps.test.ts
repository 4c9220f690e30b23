/** Which places read which word (DAAM), drawn over the picture; and the command line's views inside. */
import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import {
  ClipTokenizer,
  heatOverlay,
  loadImage,
  Pipeline,
  psnrOf,
  type AttentionMaps,
  type DiffusionImage
} from 'node-diffusion'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { attentionMaps, attentionPrompts } from '#lib/attention-maps.js'
import { fails } from './support/fails.js'
import { reference, root } from './support/paths.js'

const test = suite('attention maps')
const folder = mkdtempSync(join(tmpdir(), 'nd-attention-'))
test.after(() => rmSync(folder, { recursive: true, force: true }))

const circle = {
  prompt: 'a big red circle on a white background',
  steps: 12,
  seed: 3,
  guidanceScale: 4,
  scheduler: 'DPM++ 2M Karras'
}

const checkSums = ({ probabilities, tokens }: AttentionMaps, shape: readonly number[]): void => {
  assert.equal(probabilities.shape, shape)
  const each = shape[1]! * shape[2]!
  for (let i = 0; i < each; i++) {
    let sum = 0
    for (let t = 0; t < shape[0]!; t++) sum += probabilities.data[t * each + i]!
    assert.ok(Math.abs(sum - 1) < 1e-5, `place ${i}: ${sum}`)
  }
  for (const { map, position } of tokens) {
    assert.equal(map.shape, shape.slice(1))
    assert.equal(map.data, probabilities.data.subarray(position * each, (position + 1) * each))
  }
}

/** Means of a map [h, w] where the picture is red and where it is white. */
const insideAndOutside = (image: DiffusionImage, map: { data: Float32Array; shape: readonly number[] }): number[] => {
  const [h, w] = map.shape as [number, number]
  const [fy, fx] = [image.height / h, image.width / w]
  const sums = [0, 0]
  const counts = [0, 0]
  for (let y = 0; y < h; y++)
    for (let x = 0; x < w; x++) {
      const at = 3 * (Math.floor((y + 0.5) * fy) * image.width + Math.floor((x + 0.5) * fx))
      const [r, g, b] = [image.data[at]!, image.data[at + 1]!, image.data[at + 2]!]
      const which = r > g + 70 && r > b + 70 ? 0 : Math.min(r, g, b) > 180 ? 1 : undefined
      if (which === undefined) continue
      sums[which]! += map.data[y * w + x]!
      counts[which]!++
    }
  assert.ok(counts[0]! > 0.05 * h * w && counts[1]! > 0.2 * h * w, `a red circle on white: ${counts.join(', ')}`)
  return [sums[0]! / counts[0]!, sums[1]! / counts[1]!]
}

test('the circle is painted where "circle" is read; off by default, and no other picture', async () => {
  const pipe = await Pipeline.fromPretrained('postcard')
  const plain = await pipe.txt2img(circle)
  assert.is(plain.attentionMaps, undefined)
  const result = await pipe.txt2img({ ...circle, attentionMaps: true })
  assert.equal(result.images[0]!.data, plain.images[0]!.data)
  const maps = result.attentionMaps!
  assert.is(maps.length, 1)
  checkSums(maps[0]!, [77, ...result.latents.shape.slice(2)])
  assert.equal(
    maps[0]!.tokens.map(({ text }) => text),
    circle.prompt.split(' ')
  )
  assert.equal(
    maps[0]!.words.map(({ text }) => text),
    circle.prompt.split(' ')
  )
  assert.equal(
    maps[0]!.tokens.map(({ id, position }) => [id, position]),
    pipe.tokenizer.tokenize(circle.prompt).map((id, i) => [id, i + 1])
  )
  const [inside, outside] = insideAndOutside(result.images[0]!, maps[0]!.tokens[3]!.map) as [number, number]
  console.log(`attention maps: "circle" ${inside.toFixed(4)} inside, ${outside.toFixed(4)} outside`)
  assert.ok(inside > 1.1 * outside, `${inside} inside, ${outside} outside`)
  await pipe.dispose()
})

test('image k of a batch has the words of its own prompt; pieces, chunks, strengths', async () => {
  const pipe = await Pipeline.fromPretrained(reference('models', 'tiny-sd15'))
  const common = { steps: 2, seed: 1, width: 72, height: 64, attentionMaps: true, outputType: 'latent' } as const
  const prompt = ['a cat', 'hippopotamuses, two']
  const both = (await pipe.txt2img({ ...common, prompt, count: 2, negativePrompt: 'grey' })).attentionMaps!
  const [, , h, w] = (await pipe.txt2img({ ...common, prompt: 'x' })).latents.shape
  assert.is(both.length, 4)
  for (const maps of both) checkSums(maps, [77, h!, w!])
  const texts = both.map((maps) => maps.words.map(({ text }) => text).join('|'))
  assert.equal(texts, ['a|cat', 'a|cat', 'hippopotamuses|,|two', 'hippopotamuses|,|two'])
  const pieces = both[2]!.tokens.slice(
    0,
    both[2]!.tokens.findIndex(({ text }) => text === ',')
  )
  assert.ok(pieces.length > 1, 'a word of several tokens')
  assert.is(pieces.map(({ text }) => text).join(''), 'hippopotamuses')
  const mean = pieces.reduce((sum, { map }) => sum + map.data[5]!, 0) / pieces.length
  assert.ok(Math.abs(both[2]!.words[0]!.map.data[5]! - mean) < 1e-7)

  // The branch with the prompt is what is recorded: the negative prompt changes nothing in the first evaluation.
  const one = { ...common, prompt: 'a cat', steps: 1 }
  const guided = (await pipe.txt2img({ ...one, negativePrompt: 'grey' })).attentionMaps![0]!
  const alone = (await pipe.txt2img({ ...one, guidanceScale: 1 })).attentionMaps![0]!
  const off = guided.probabilities.data.reduce((m, v, i) => Math.max(m, Math.abs(v - alone.probabilities.data[i]!)), 0)
  assert.ok(off < 1e-6, `${off}`)

  const long = await pipe.txt2img({ ...one, prompt: 'a cat BREAK (a dog:1.2)', promptWeighting: true })
  checkSums(long.attentionMaps![0]!, [154, h!, w!])
  assert.equal(
    long.attentionMaps![0]!.tokens.map(({ text, position }) => `${text} ${position}`),
    ['a 1', 'cat 2', 'a 78', 'dog 79']
  )

  const grey = { data: new Uint8Array(64 * 64 * 3).fill(128), width: 64, height: 64, channels: 3 } as const
  const from = { prompt: 'a cat', image: grey, steps: 2, seed: 1, attentionMaps: true }
  assert.is((await pipe.img2img({ ...from, strength: 0.5 })).attentionMaps!.length, 1)
  const white = { ...grey, data: new Uint8Array(grey.data.length).fill(255) }
  assert.is((await pipe.inpaint({ ...from, mask: white })).attentionMaps!.length, 1)
  const none = await pipe.img2img({ ...from, strength: 0 })
  assert.is(none.attentionMaps, undefined)
  assert.match(none.warnings.join(), /No step ran/)
  const twice = await pipe.txt2img({ ...one, width: 64, hires: { scale: 2, steps: 1 } })
  assert.equal(twice.attentionMaps![0]!.probabilities.shape.slice(1), [...twice.latents.shape.slice(2)])

  const embeds = { data: new Float32Array(77 * 32), shape: [1, 77, 32] }
  await fails(
    () => pipe.txt2img({ promptEmbeds: embeds, guidanceScale: 1, attentionMaps: true }),
    'ERR_ND_INVALID_ARGUMENT',
    /promptEmbeds, which have no words/
  )
  await fails(
    () => pipe.txt2img({ prompt: 'a', attentionMaps: 1 as never }),
    'ERR_ND_INVALID_ARGUMENT',
    /attentionMaps/
  )
  await pipe.dispose()
})

test('SDXL: the words of the first encoder', async () => {
  const pipe = await Pipeline.fromPretrained(reference('models', 'tiny-sdxl'))
  const result = await pipe.txt2img({
    prompt: 'a red cat!',
    steps: 1,
    seed: 1,
    width: 64,
    height: 64,
    attentionMaps: true
  })
  checkSums(result.attentionMaps![0]!, [77, ...result.latents.shape.slice(2)])
  assert.is(result.attentionMaps![0]!.words.map(({ text }) => text).join('|'), 'a|red|cat|!')
  await pipe.dispose()
})

test('tokens of textual inversion are words of their own', () => {
  const plain = { normalized: false, leftStrip: false, rightStrip: false, singleWord: false }
  const tokenizer = ClipTokenizer.clip().withTokens([{ content: '<toy>', id: 49408, ...plain }])
  const ids = Int32Array.from(tokenizer.encode('a <toy> cat').ids)
  const prompt = { rows: 1, chunks: 1, length: 77, encoders: [{ ids }] }
  const prompts = attentionPrompts(prompt as never, 1, tokenizer)
  const maps = attentionMaps({ data: new Float32Array(77).fill(1 / 77), shape: [1, 77, 1, 1] }, prompts, 1, tokenizer)
  assert.equal(
    maps[0]!.words.map(({ text }) => text),
    ['a', '<toy>', 'cat']
  )
})

test('heatOverlay: dark where the map is low, yellow where it is high', async () => {
  const { DiffusionImage } = await import('node-diffusion')
  const image = new DiffusionImage({ data: new Uint8Array(8 * 4 * 3).fill(100), width: 8, height: 4 })
  const map = { data: Float32Array.of(0.1, 0.3), shape: [1, 2] }
  const drawn = heatOverlay(image, map, { opacity: 1 })
  assert.equal([...drawn.data.subarray(0, 3)], [20, 11, 52])
  assert.equal([...drawn.data.subarray(21, 24)], [252, 255, 164])
  assert.equal(heatOverlay(image, map, { opacity: 0 }).data, image.data)
  assert.equal([...heatOverlay(image, map, { opacity: 1, range: [0.3, 1] }).data.subarray(21, 24)], [20, 11, 52])
  assert.throws(() => heatOverlay(image, { data: map.data, shape: [2] }), /map/)
})

const cli = async (...args: string[]): Promise<string> =>
  (await promisify(execFile)(process.execPath, [join(root, 'dist/cli/main.js'), ...args], { cwd: folder })).stdout

test('the command line: --attention, --vae-tiling, roundtrip', async () => {
  const words = ['a red circle', '--steps', '2', '--seed', '1', '--quiet', '--vae-tiling', '--attention', '-o', 'a.png']
  assert.is(await cli(...words), 'a.png\na-attention.png\n')
  const sheet = await loadImage(join(folder, 'a-attention.png'))
  assert.equal([sheet.width, sheet.height], [4 + 2 * 68, 4 + 2 * (64 + 16 + 4)])

  const printed = await cli('roundtrip', 'a.png')
  const [, path, psnr] = /^(\S+)\nPSNR (\S+) dB\n$/.exec(printed) ?? []
  assert.is(path, 'a-roundtrip.png')
  const [before, after] = [await loadImage(join(folder, 'a.png')), await loadImage(join(folder, path!))]
  assert.ok(Math.abs(psnrOf(before.data, after.data) - Number(psnr)) < 0.01)
  assert.ok(Number(psnr) > 15, psnr)
})

test('the command line: painting without a prompt', async () => {
  const model = ['-m', reference('models', 'tiny-ddpm'), '--quiet']
  assert.is(await cli('paint', ...model, '--steps', '2', '--seed', '5', '-o', 'noise.png'), 'noise.png\n')
  const pipe = await Pipeline.fromPretrained(reference('models', 'tiny-ddpm'))
  const { images } = await pipe.unconditional({ steps: 2, seed: 5 })
  await pipe.dispose()
  assert.equal((await loadImage(join(folder, 'noise.png'))).data, images[0]!.data)
  for (const [args, message] of [
    [['paint', 'a cat', ...model], /knows no text/],
    [['paint', '--guidance', '5', ...model], /--guidance but received 5/],
    [['paint', '--quiet'], /what to paint/]
  ] as const) {
    const error = await cli(...args).then(
      () => undefined,
      (e: unknown) => e as { stderr: string; code: number }
    )
    assert.is(error?.code, 1)
    assert.match(error!.stderr, message)
  }
})

test.run()
