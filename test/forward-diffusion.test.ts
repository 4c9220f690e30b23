/** addNoise and velocity: the forward process of a picture, from its definition. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  createScheduler,
  EulerDiscreteScheduler,
  Generator,
  loadImage,
  Pipeline,
  type DiffusionImage
} from 'node-diffusion'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { relativeError } from './support/compare.js'
import { fails } from './support/fails.js'
import { root } from './support/paths.js'

const test = suite('forward diffusion')
const scratch = mkdtempSync(join(tmpdir(), 'nd-noise-'))
let pipe: Pipeline
let image: DiffusionImage

test.before(async () => {
  pipe = await Pipeline.fromPretrained('postcard')
  image = (await pipe.txt2img({ prompt: 'a white castle at night', steps: 6, seed: 7, scheduler: 'DPM++ 2M' }))
    .images[0]!
})
test.after(async () => {
  await pipe.dispose()
  rmSync(scratch, { recursive: true, force: true })
})

const distance = (a: DiffusionImage, b: DiffusionImage): number =>
  a.data.reduce((sum, v, i) => sum + Math.abs(v - b.data[i]!), 0) / a.data.length

test('latents are α·clean + σ·noise at every timestep, for schedulers of each kind', async () => {
  for (const name of ['DDIMScheduler', 'EulerDiscreteScheduler', 'FlowMatchEulerDiscreteScheduler']) {
    const scheduler = createScheduler(name, pipe.scheduler.toJSON())
    const result = await pipe.addNoise({ image, timesteps: [20, 500, 999], seed: 3, scheduler: name })
    assert.equal(result.latents.shape, [3, 4, 16, 16])
    assert.equal(result.noise.data, new Generator(3).randn([1, 4, 16, 16]).data)
    const { mean } = await pipe.vae.encode(tensorOf(image))
    const scaled = mean.data.map((v) => v * (pipe.vae.config['scalingFactor'] as number))
    assert.ok(relativeError(result.clean.data, scaled) < 1e-6)
    result.timesteps.forEach((t, k) => {
      const expected = scheduler.addNoise(result.clean.data, result.noise.data, t)
      const actual = result.latents.data.subarray(k * 1024, (k + 1) * 1024)
      assert.ok(relativeError(actual, expected) < 1e-6, `${name} ${t}`)
    })
  }
})

const tensorOf = ({ width, height, data }: DiffusionImage) => {
  const out = new Float32Array(data.length)
  for (let i = 0; i < width * height; i++)
    for (let c = 0; c < 3; c++) out[c * width * height + i] = (data[i * 3 + c]! / 255) * 2 - 1
  return { data: out, shape: [1, 3, height, width] }
}

test('the picture drowns step by step; sigma-based schedulers show the same pictures', async () => {
  const result = await pipe.addNoise({ image, steps: 5 })
  assert.equal(result.timesteps, [199, 399, 599, 799, 999])
  assert.ok(distance(result.original, image) < 12)
  const distances = result.images.map((i) => distance(i, result.original))
  for (let k = 1; k < 4; k++) assert.ok(distances[k]! > distances[k - 1]!, distances.join())
  result.levels.forEach(([alpha, sigma]) => assert.ok(Math.abs(alpha ** 2 + sigma ** 2 - 1) < 1e-6))
  const euler = await pipe.addNoise({ image, steps: 5, scheduler: 'Euler' })
  euler.images.forEach((i, k) => assert.ok(distance(i, result.images[k]!) < 1.5, String(k)))
  assert.ok(euler.levels.every(([alpha]) => alpha === 1))
})

test('sizes, and what is wrong', async () => {
  const result = await pipe.addNoise({ image, steps: 1, width: 72, height: 36 })
  assert.equal([result.original.width, result.original.height], [72, 36])
  assert.equal(result.latents.shape, [1, 4, 9, 18])
  const bad = 'ERR_ND_INVALID_ARGUMENT'
  await fails(() => pipe.addNoise({ image, timesteps: [1000] }), bad, /timesteps/)
  await fails(() => pipe.addNoise({ image, timesteps: [] }), bad, /timesteps/)
  await fails(() => pipe.addNoise({ image, steps: 0 }), bad, /steps/)
  await fails(() => pipe.addNoise({ image, width: 30 }), bad, /width/)
  await fails(() => pipe.addNoise({ image, stepz: 3 } as never), bad, /stepz/)
})

test('velocity is α·noise − σ·x wherever diffusers has get_velocity', () => {
  const [x, noise] = [new Generator(1).randn([50]).data, new Generator(2).randn([50]).data]
  for (const name of ['DDIMScheduler', 'DDPMScheduler', 'LCMScheduler', 'TCDScheduler', 'EulerDiscreteScheduler']) {
    const scheduler = createScheduler(name) as EulerDiscreteScheduler
    for (const t of [1, 300, 980]) {
      // ᾱ from the definition: β linear from 1e-4 to 0.02 (LCM and TCD: its root, from 0.00085 to 0.012)
      const root = /LCM|TCD/.test(name)
      let product = 1
      for (let i = 0; i <= t; i++) {
        const share = i / 999
        const beta = root
          ? (Math.sqrt(0.00085) + share * (Math.sqrt(0.012) - Math.sqrt(0.00085))) ** 2
          : 1e-4 + share * (0.02 - 1e-4)
        product *= 1 - beta
      }
      const expected = x.map((v, i) => Math.sqrt(product) * noise[i]! - Math.sqrt(1 - product) * v)
      const error = relativeError(scheduler.getVelocity(x, noise, t), expected)
      assert.ok(error < 1e-4, `${name} at ${t}: ${error}`)
    }
  }
  assert.throws(() => new EulerDiscreteScheduler().getVelocity(x, noise.subarray(1), 5), /noise/)
})

test('the command line writes a sheet', async () => {
  await image.save(join(scratch, 'a.png'))
  const cli = join(root, 'dist/cli/main.js')
  const run = (...args: string[]): string =>
    execFileSync(process.execPath, [cli, 'noise', ...args], { cwd: scratch, encoding: 'utf8', stdio: 'pipe' })
  assert.is(run('a.png', '--steps', '3', '--scheduler', 'Euler'), 'a-noise.png\n')
  const sheet = await loadImage(join(scratch, 'a-noise.png'))
  // the picture and three levels, two by two, with labels
  assert.equal([sheet.width, sheet.height], [4 + 2 * 68, 4 + 2 * (64 + 16 + 4)])
  assert.is(run('a.png', '--timesteps', '10,500', '-o', 'b.webp', '--seed', '4'), 'b.webp\n')
  assert.throws(() => run('a.png', '--timesteps', '10,x'), /number/)
})

test.run()
