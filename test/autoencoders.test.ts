/** AutoencoderTiny (TAESD), tiles, slices, previews, the round trip; and what the steps predict. */
import { cpSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  createScheduler,
  DiffusionImage,
  Generator,
  Pipeline,
  psnrOf,
  type StepEvent,
  type Tensor
} from 'node-diffusion'
import { autoencoderBytes } from '#lib/models/autoencoder.js'
import { parseTinyVaeConfig } from '#lib/models/taesd.js'
import { parseVaeConfig } from '#lib/models/vae.js'
import { resolveTiling } from '#lib/vae-tiling.js'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { relativeError } from './support/compare.js'
import { fails } from './support/fails.js'
import { editJson } from './support/picture-models.js'
import { postcard, reference } from './support/paths.js'
import { TestFile } from './support/safetensors.js'
import { rawTensors, writeTensors } from './support/single-file.js'
import { tiledKl, tiledTiny } from './support/tiles.js'

const test = suite('autoencoders')
const scratch = mkdtempSync(join(tmpdir(), 'nd-autoencoders-'))
test.after(() => rmSync(scratch, { recursive: true, force: true }))

const taesd = reference('models', 'tiny-taesd')
const sd15 = reference('models', 'tiny-sd15')
const file = new TestFile(reference('tiny', 'taesd.safetensors'))
const tensor = (name: string): Tensor => ({ data: file.floats(name), shape: file.get(name).shape })
const random = (seed: number, shape: number[]): Tensor => new Generator(seed).randn(shape)
const image = (seed: number, width: number, height: number): DiffusionImage =>
  new DiffusionImage({
    data: new Uint8Array(random(seed, [height, width, 3]).data.map((v) => Math.min(255, Math.max(0, 128 + 50 * v)))),
    width,
    height
  })
let worst = 0
const close = (actual: Tensor, expected: Tensor, bound = 2e-5): void => {
  assert.equal([...actual.shape], [...expected.shape])
  const error = relativeError(actual.data, expected.data)
  worst = Math.max(worst, error)
  assert.ok(error < bound, `error ${error}`)
}
const matches = async (pipe: Pipeline): Promise<void> => {
  close(await pipe.vae.decode(tensor('taesd.in_latent')), tensor('taesd.decoded'))
  const { mean, logvar } = await pipe.vae.encode(tensor('taesd.in_image'))
  close(mean, tensor('taesd.encoded'))
  assert.is(logvar, undefined)
}

/** TAESD in its original layout: the decoder counts its clamp as layer 0. */
const originalFile = (path: string, sides: readonly ('encoder' | 'decoder')[], prefix = ''): string => {
  const tensors = [...rawTensors(join(taesd, 'diffusion_pytorch_model.safetensors'))].flatMap(([name, value]) => {
    const [, side, layer, rest] = /^(encoder|decoder)\.layers\.(\d+)\.(.*)$/.exec(name)!
    if (!sides.includes(side as 'encoder')) return []
    const number = Number(layer) + (side === 'decoder' ? 1 : 0)
    return [[`${prefix && `${prefix}${side}.`}${number}.${rest}`, value] as const]
  })
  writeTensors(path, tensors)
  return path
}

test('TAESD as the pipeline’s VAE: folder, model_index.json, original files', async () => {
  for (const vae of [
    taesd,
    join(taesd, 'diffusion_pytorch_model.safetensors'),
    originalFile(join(scratch, 'both.safetensors'), ['encoder', 'decoder'], 'taesd_')
  ]) {
    await using pipe = await Pipeline.fromPretrained(sd15, { vae })
    assert.is(pipe.vae.factor, 8)
    await matches(pipe)
  }
  const folder = join(scratch, 'with-taesd')
  cpSync(sd15, folder, { recursive: true })
  rmSync(join(folder, 'vae'), { recursive: true })
  cpSync(taesd, join(folder, 'vae'), { recursive: true })
  editJson(join(folder, 'model_index.json'), (json) => (json['vae'] = ['diffusers', 'AutoencoderTiny']))
  await using pipe = await Pipeline.fromPretrained(folder)
  await matches(pipe)
  // Its latents are the loop's own: pixels are the decoder's, not scaled.
  const out = await pipe.txt2img({ prompt: 'a house', steps: 2, seed: 3, width: 64, height: 48 })
  const decoded = await pipe.vae.decode(out.latents)
  const byte = (v: number): number => Math.round(Math.min(Math.max(v / 2 + 0.5, 0), 1) * 255)
  for (const i of [0, 1000, 3071])
    assert.ok(Math.abs(out.images[0]!.data[3 * i]! - byte(decoded.data[i]!)) <= 1, `pixel ${i}`)
})

test('TAESD: one half alone, and the other beside it', async () => {
  const alone = join(scratch, 'alone')
  cpSync(taesd, alone, { recursive: true })
  const decoder = originalFile(join(alone, 'taesd_decoder.safetensors'), ['decoder'])
  {
    await using pipe = await Pipeline.fromPretrained(sd15, { vae: decoder })
    close(await pipe.vae.decode(tensor('taesd.in_latent')), tensor('taesd.decoded'))
    await fails(() => pipe.vae.encode(tensor('taesd.in_image')), 'ERR_ND_UNSUPPORTED', /only the decoder/)
  }
  const encoder = originalFile(join(alone, 'taesd_encoder.safetensors'), ['encoder'])
  for (const vae of [decoder, encoder]) {
    await using pipe = await Pipeline.fromPretrained(sd15, { vae })
    await matches(pipe)
  }
})

test('TAESD: img2img takes its latents as they are and draws nothing for them', async () => {
  await using pipe = await Pipeline.fromPretrained(sd15, { vae: taesd })
  const picture = image(5, 64, 48)
  const options = { prompt: 'a house', image: picture, seed: 7, steps: 4 }
  const kept = await pipe.img2img({ ...options, strength: 0, outputType: 'latent' })
  const { latents } = await pipe.vae.roundtrip(picture)
  close(kept.latents, latents)
  // The first draw of the generator is the noise: DDIM's first x is α·latents + σ·noise.
  const events: StepEvent[] = []
  pipe.scheduler = createScheduler('DDIMScheduler', { ...pipe.scheduler.toJSON(), clip_sample: false })
  await pipe.img2img({ ...options, strength: 0.5, stepLatents: true, onStep: (e) => void events.push(e) })
  const noise = random(7, [...latents.shape]).data
  const [alpha, sigma] = pipe.scheduler.noiseLevel(events[0]!.timestep)
  const x = latents.data.map((v, i) => alpha * v + sigma * noise[i]!)
  const implied = events[0]!.predictedOriginal!.data.map(
    (v, i) => alpha * v + sigma * events[0]!.predictedNoise!.data[i]!
  )
  assert.ok(relativeError(implied, x) < 1e-4)
})

test('previews by a second autoencoder', async () => {
  await using pipe = await Pipeline.fromPretrained(sd15, { previewVae: taesd })
  const run = async (vae?: 'own' | 'preview'): Promise<StepEvent> => {
    const events: StepEvent[] = []
    await pipe.txt2img({
      prompt: 'a house',
      seed: 3,
      steps: 2,
      width: 64,
      height: 64,
      stepLatents: true,
      preview: vae ? { vae } : true,
      onStep: (e) => void events.push(e)
    })
    return events.at(-1)!
  }
  const pixels = (picture: Tensor): Uint8Array => {
    const plane = picture.data.length / 3
    return Uint8Array.from({ length: picture.data.length }, (_, i) =>
      Math.round(Math.min(Math.max(picture.data[(i % 3) * plane + Math.floor(i / 3)]! / 2 + 0.5, 0), 1) * 255)
    )
  }
  await using other = await Pipeline.fromPretrained(sd15, { vae: taesd })
  const scale = pipe.vae.config['scalingFactor'] as number
  for (const choice of [undefined, 'preview', 'own'] as const) {
    const event = await run(choice)
    const { data, shape } = event.predictedOriginal!
    const expected =
      choice === 'own'
        ? await pipe.vae.decode({ data: data.map((v) => v / scale), shape })
        : await other.vae.decode({ data, shape })
    assert.ok(psnrOf(event.image!.data, pixels(expected)) > 60, `preview: ${choice}`)
  }
  await fails(() => pipe.loadPreviewVae(postcard + '/vae'), 'ERR_ND_MODEL_FORMAT', /4 channels, 1\/4 of the picture/)
  await fails(() => Pipeline.fromPretrained(sd15, { previewVae: '' }), 'ERR_ND_INVALID_ARGUMENT', /previewVae/)
  await using bare = await Pipeline.fromPretrained(sd15)
  await fails(
    () => bare.txt2img({ prompt: '', preview: { vae: 'preview' } }),
    'ERR_ND_INVALID_ARGUMENT',
    /loadPreviewVae/
  )
})

test('TAESD’s config: every field honoured or refused by name', () => {
  const parse = (json: object) => () => parseTinyVaeConfig(json as Record<string, unknown>, 'config.json')
  assert.is(parse({ act_fn: 'swish' })().activation, 'silu')
  assert.throws(parse({ upsample_fn: 'bilinear' }), /upsample_fn/)
  assert.throws(parse({ upsampling_scaling_factor: 4 }), /upsampling_scaling_factor/)
  assert.throws(parse({ act_fn: 'mish' }), /act_fn/)
  assert.throws(parse({ encoder_block_out_channels: [64, 32, 64, 64] }), /encoder_block_out_channels/)
  assert.throws(parse({ num_decoder_blocks: [3, 1] }), /num_decoder_blocks/)
  assert.throws(
    parse({ num_encoder_blocks: [1, 1, 1], encoder_block_out_channels: [8, 8, 8] }),
    /num_decoder_blocks.*as many levels/
  )
})

test('tiles are blended as diffusers blends them', async () => {
  for (const vae of [undefined, taesd]) {
    await using pipe = await Pipeline.fromPretrained(sd15, vae === undefined ? {} : { vae })
    const whole = { tiling: false } as const
    const decode = (t: Tensor): Promise<Tensor> => pipe.vae.decode(t, whole)
    const encode = async (t: Tensor): Promise<Tensor> => (await pipe.vae.encode(t, whole)).mean
    const latents = random(1, [1, 4, 21, 13])
    const picture = random(2, [1, 3, 104, 168])
    for (const overlap of [0.25, 0.5]) {
      const tiling = { tileSize: 64, overlap }
      const decoded = await pipe.vae.decode(latents, { tiling })
      const { mean } = await pipe.vae.encode(picture, { tiling })
      if (vae === undefined) {
        close(decoded, await tiledKl(latents, 8, overlap, 8, decode), 1e-6)
        close(mean, await tiledKl(picture, 64, overlap, 1 / 8, encode), 1e-6)
      } else {
        close(decoded, await tiledTiny(latents, 8, overlap, 8, 3, decode), 1e-6)
        close(mean, await tiledTiny(picture, 64, overlap, 1 / 8, 4, encode), 1e-6)
      }
    }
    // A batch: every image by itself. AutoencoderKL leaves alone what fits into one tile.
    const pair = random(3, [2, 4, 12, 9])
    const both = await pipe.vae.decode(pair, { tiling: { tileSize: 64 } })
    const second = { data: pair.data.slice(4 * 12 * 9), shape: [1, 4, 12, 9] }
    const one = await pipe.vae.decode(second, { tiling: { tileSize: 64 } })
    assert.equal(both.data.slice(one.data.length), one.data)
    if (vae === undefined) {
      const small = random(4, [1, 4, 8, 8])
      assert.equal((await pipe.vae.decode(small, { tiling: { tileSize: 64 } })).data, (await decode(small)).data)
    }
  }
})

test('slices: a batch is decoded as its images are alone', async () => {
  await using pipe = await Pipeline.fromPretrained(sd15)
  const pair = random(6, [2, 4, 6, 8])
  const both = await pipe.vae.decode(pair)
  for (const k of [0, 1]) {
    const one = await pipe.vae.decode({ data: pair.data.slice(k * 192, (k + 1) * 192), shape: [1, 4, 6, 8] })
    assert.equal(both.data.slice(k * one.data.length, (k + 1) * one.data.length), one.data)
  }
  const options = { prompt: ['a', 'b'], seed: 1, steps: 1, width: 64, height: 64 }
  const plain = await pipe.txt2img(options)
  const sliced = await pipe.txt2img({ ...options, vaeSlicing: true })
  assert.equal(sliced.images[1]!.data, plain.images[1]!.data)
})

test('tiles of the bundled model: close to the whole, no seam, bounded memory', async () => {
  await using pipe = await Pipeline.fromPretrained(postcard)
  const painted = await pipe.txt2img({ prompt: 'a red house by the sea', seed: 4, steps: 12 })
  const enlarged = await painted.images[0]!.toSharp().resize(256, 256, { kernel: 'cubic' }).png().toBuffer()
  const { latents } = await pipe.vae.roundtrip(enlarged)
  const tiled = await pipe.vae.decode(latents, { tiling: { tileSize: 128 } })
  const whole = await pipe.vae.decode(latents, { tiling: false })
  const after = (await pipe.memory()).activations
  let difference = 0
  whole.data.forEach((v, i) => (difference += Math.abs(v - tiled.data[i]!) / whole.data.length))
  assert.ok(difference < 0.05, `mean difference ${difference} of −1..1`)
  assert.ok(difference > 0, 'tiles were used')

  // Steps between neighbouring columns: at the borders of tiles no larger than elsewhere.
  const steps = (t: Tensor): number[] =>
    Array.from({ length: 255 }, (_, x) => {
      let sum = 0
      for (let row = 0; row < 3 * 256; row++) sum += Math.abs(t.data[row * 256 + x + 1]! - t.data[row * 256 + x]!)
      return sum / (3 * 256)
    })
  const [inTiles, inWhole] = [steps(tiled), steps(whole)]
  const growth = inTiles.map((s, x) => s - inWhole[x]!)
  for (const border of [95, 127, 191, 223])
    assert.ok(growth[border]! < 0.01, `step at column ${border} grows by ${growth[border]}`)

  const config = parseVaeConfig(
    {
      block_out_channels: [24, 48, 64],
      norm_num_groups: 8,
      down_block_types: Array(3).fill('DownEncoderBlock2D'),
      up_block_types: Array(3).fill('UpDecoderBlock2D')
    },
    'c'
  )
  const estimate = autoencoderBytes(config, 256, 256)
  assert.ok(after < 1.2 * estimate && after > 0.7 * estimate, `${after} bytes, estimated ${estimate}`)
  const bound = autoencoderBytes(config, 128, 128)
  const large = random(9, [1, 4, 160, 160])
  await using fresh = await Pipeline.fromPretrained(postcard)
  await fresh.vae.decode(large, { tiling: { tileSize: 128 } })
  // The result itself is 640² pixels of 12 bytes; everything else is a tile's.
  const used = (await fresh.memory()).activations - 640 * 640 * 12
  assert.ok(used < 1.2 * bound, `${used} bytes for tiles of ${bound}`)
})

test('vaeTiling: what it means, and what it refuses', async () => {
  const sd = parseVaeConfig(
    {
      block_out_channels: [128, 256, 512, 512],
      layers_per_block: 2,
      down_block_types: Array(4).fill('DownEncoderBlock2D'),
      up_block_types: Array(4).fill('UpDecoderBlock2D'),
      sample_size: 512
    },
    'c'
  )
  const square = (side: number) => ({ width: side, height: side })
  assert.is(resolveTiling(undefined, sd, square(1024)), undefined)
  for (const [width, height] of [
    [2048, 2048],
    [2048, 1104],
    [1480, 1480],
    [8192, 512],
    [4096, 4088]
  ] as const) {
    const tiling = resolveTiling('auto', sd, { width, height })!
    assert.ok(autoencoderBytes(sd, tiling.tileSize, tiling.tileSize) <= 4 * 2 ** 30, 'a tile keeps to the bound')
    assert.ok(tiling.tileSize > 900 && tiling.tileSize % 8 === 0, `large tiles (${tiling.tileSize})`)
    const step = Math.floor((tiling.tileSize / 8) * (1 - tiling.overlap))
    for (const side of [width / 8, height / 8]) {
      const last = side - (Math.ceil(side / step) - 1) * step
      assert.ok(last >= Math.min(side, step / 2), `${width} × ${height}: the last tile is no sliver`)
    }
  }
  assert.is(resolveTiling(false, sd, square(4096)), undefined)
  assert.equal(resolveTiling(true, sd, square(64)), { tileSize: 512, overlap: 0.25 })
  assert.equal(resolveTiling({ tileSize: 256 }, sd, square(64)), { tileSize: 256, overlap: 0.25 })
  assert.equal(resolveTiling(true, parseTinyVaeConfig({}, 'c'), square(64)), { tileSize: 512, overlap: 0.125 })
  for (const wrong of [
    'yes',
    3,
    null,
    { tileSize: 100 },
    { tileSize: 8 },
    { overlap: 1 },
    { overlap: -0.1 },
    { size: 1 }
  ])
    assert.throws(() => resolveTiling(wrong as never, sd, square(64)), /vaeTiling/)

  await using pipe = await Pipeline.fromPretrained(sd15)
  const options = { prompt: 'a', seed: 1, steps: 1, width: 128, height: 64 }
  const tiled = await pipe.txt2img({ ...options, vaeTiling: { tileSize: 64 } })
  const plain = await pipe.txt2img(options)
  assert.equal(tiled.latents.data, plain.latents.data)
  assert.not.equal(tiled.images[0]!.data, plain.images[0]!.data)
  const z = { ...plain.latents, data: plain.latents.data.map((v) => v / (pipe.vae.config['scalingFactor'] as number)) }
  const decoded = await pipe.vae.decode(z, { tiling: { tileSize: 64 } })
  const red = Array.from({ length: 128 * 64 }, (_, i) => tiled.images[0]!.data[3 * i]!)
  const expected = Array.from(
    { length: 128 * 64 },
    (_, i) => Math.min(Math.max(decoded.data[i]! / 2 + 0.5, 0), 1) * 255
  )
  assert.ok(red.every((v, i) => Math.abs(v - expected[i]!) < 0.6))
})

test('round trip of a picture', async () => {
  await using pipe = await Pipeline.fromPretrained(postcard)
  const painted = (await pipe.txt2img({ prompt: 'a red circle on a white background', seed: 4, steps: 12 })).images[0]!
  const { image: back, psnr, latents } = await pipe.vae.roundtrip(painted)
  assert.equal([back.width, back.height], [painted.width, painted.height])
  assert.equal([...latents.shape], [1, 4, painted.height / 4, painted.width / 4])
  let square = 0
  back.data.forEach((v, i) => (square += (v - painted.data[i]!) ** 2))
  assert.ok(Math.abs(psnr - 10 * Math.log10((255 ** 2 * back.data.length) / square)) < 1e-9)
  assert.ok(psnr > 25, `${psnr} dB`)
  // Sides that are no multiples of the factor: as large as given.
  const odd = await painted.toSharp().extract({ left: 0, top: 0, width: 61, height: 47 }).png().toBuffer()
  const trip = await pipe.vae.roundtrip(odd)
  assert.equal([trip.image.width, trip.image.height], [61, 47])
  assert.ok(trip.psnr > 22, `${trip.psnr} dB`)
  assert.is(psnrOf([1, 2], [1, 2]), Infinity)
})

test('predicted noise and predicted original of a v-prediction model', async () => {
  await using pipe = await Pipeline.fromPretrained(reference('models', 'tiny-sd2'), { scheduler: 'DDIMScheduler' })
  assert.is(pipe.scheduler.config['predictionType' as never], 'v_prediction')
  const events: StepEvent[] = []
  await pipe.txt2img({
    prompt: 'a house',
    seed: 3,
    steps: 4,
    width: 64,
    height: 64,
    stepLatents: true,
    onStep: (e) => void events.push(e)
  })
  let x = random(3, [1, 4, 8, 8]).data
  for (const e of events) {
    const [alpha, sigma] = pipe.scheduler.noiseLevel(e.timestep)
    const implied = e.predictedOriginal!.data.map((v, i) => alpha * v + sigma * e.predictedNoise!.data[i]!)
    assert.ok(relativeError(implied, x) < 1e-5, `timestep ${e.timestep}: ${relativeError(implied, x)}`)
    x = e.latents!.data
  }
})

test('every scheduler says what its rows predict as noise', () => {
  const cases: [name: string, config: object][] = [
    ...[
      'DDIMScheduler',
      'DDPMScheduler',
      'EulerDiscreteScheduler',
      'HeunDiscreteScheduler',
      'UniPCMultistepScheduler',
      'PNDMScheduler'
    ].flatMap((name) =>
      ['epsilon', 'v_prediction'].map(
        (type) => [name, { prediction_type: type, skip_prk_steps: true }] as [string, object]
      )
    ),
    ['DPMSolverMultistepScheduler', { prediction_type: 'sample' }],
    ['DDIMScheduler', { prediction_type: 'sample' }],
    ['FlowMatchEulerDiscreteScheduler', {}],
    ['FlowMatchHeunDiscreteScheduler', {}],
    ['KDPM2DiscreteScheduler', { prediction_type: 'v_prediction' }]
  ]
  for (const [name, config] of cases) {
    const scheduler = createScheduler({ _class_name: name, ...config })
    const { predictionType } = scheduler.config as { predictionType?: string }
    const plan = scheduler.plan(6)
    assert.ok(plan.rows.length >= 6)
    for (const row of plan.rows) {
      const { a, b } = row.convert
      const [nx, nm] = row.noise!
      if (predictionType === 'epsilon') assert.equal([nx, nm], [0, 1], name)
      else {
        // x = α·p + σ·ε whatever x and m are, with one level [α, σ] that the row's timestep has.
        const level = scheduler.noiseLevel(row.timestep)
        const [alpha, sigma] = name === 'KDPM2DiscreteScheduler' ? [1, Math.sqrt(1 / a - 1)] : level
        assert.ok(Math.abs(alpha * a + sigma * nx - 1) < 1e-5, `${name} ${JSON.stringify(row)}`)
        assert.ok(Math.abs(alpha * b + sigma * nm) < 1e-5 * Math.max(1, Math.abs(b)), `${name} ${JSON.stringify(row)}`)
      }
    }
  }
})

test.after(() => console.log(`autoencoders: largest error ${worst.toExponential(2)}`))
test.run()
