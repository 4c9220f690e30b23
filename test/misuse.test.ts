/** Bad input and awkward moments: a clear error or a right result, and the process lives on. */
import { cpSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { createScheduler, Pipeline, type Txt2ImgOptions } from 'node-diffusion'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { fails } from './support/fails.js'
import { postcard, reference, root } from './support/paths.js'

const test = suite('misuse')
const scratch = mkdtempSync(join(tmpdir(), 'nd-misuse-'))
let pipe: Pipeline
test.before(async () => {
  pipe = await Pipeline.fromPretrained('postcard')
})
test.after(async () => {
  await pipe.dispose()
  rmSync(scratch, { recursive: true, force: true })
})

const paint = (options: Partial<Txt2ImgOptions> = {}): ReturnType<Pipeline['txt2img']> =>
  pipe.txt2img({ prompt: 'a red circle on a blue background', steps: 3, seed: 1, ...options })

/** The message that a call rejects with. */
const reasonOf = (run: Promise<unknown>): Promise<string> =>
  run.then(
    () => 'it succeeded',
    (error: Error) => error.message
  )

/** A copy of the smallest model, to break. */
const copy = (name: string): string => {
  const folder = join(scratch, name)
  cpSync(reference('models', 'tiny-sd15'), folder, { recursive: true })
  return folder
}
const editJson = (path: string, change: (json: Record<string, unknown>) => void): void => {
  const json = JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>
  change(json)
  writeFileSync(path, JSON.stringify(json))
}
const unetFile = 'unet/diffusion_pytorch_model.safetensors'

test('a missing folder, a missing file, a broken file', async () => {
  await fails(() => Pipeline.fromPretrained('/no/such/model'), 'ERR_ND_MODEL_NOT_FOUND', /no\/such\/model/)
  const missing = copy('missing')
  rmSync(join(missing, unetFile))
  await fails(() => Pipeline.fromPretrained(missing), 'ERR_ND_MODEL_NOT_FOUND', /diffusion_pytorch_model\.safetensors/)
  const cut = copy('cut')
  truncateSync(join(cut, unetFile), 100_000)
  await fails(() => Pipeline.fromPretrained(cut), 'ERR_ND_MODEL_FORMAT', /diffusion_pytorch_model\.safetensors/)
})

test('a config that does not fit the weights names the tensor and both shapes', async () => {
  const folder = copy('shape')
  editJson(join(folder, 'unet/config.json'), (c) => (c.block_out_channels = [16, 32, 32, 64]))
  await fails(() => Pipeline.fromPretrained(folder), 'ERR_ND_MODEL_FORMAT', /shape \[64.*down_blocks\.3/)
})

test('an unknown class, an unsupported field, a field of the wrong type', async () => {
  const unknown = copy('class')
  editJson(join(unknown, 'model_index.json'), (c) => (c._class_name = 'FluxPipeline'))
  await fails(() => Pipeline.fromPretrained(unknown), 'ERR_ND_UNSUPPORTED', /FluxPipeline/)
  const field = copy('field')
  editJson(join(field, 'unet/config.json'), (c) => (c.class_embed_type = 'timestep'))
  await fails(() => Pipeline.fromPretrained(field), 'ERR_ND_UNSUPPORTED', /class_embed_type/)
  const type = copy('type')
  editJson(join(type, 'vae/config.json'), (c) => (c.latent_channels = 'four'))
  await fails(() => Pipeline.fromPretrained(type), 'ERR_ND_MODEL_FORMAT', /latent_channels/)
})

test('what cannot be loaded yet is refused with the remedy', async () => {
  await fails(() => Pipeline.fromPretrained('model.ckpt'), 'ERR_ND_UNSUPPORTED', /save_pretrained/)
  await fails(
    () => Pipeline.fromPretrained('no-such/hub-model', { localFilesOnly: true }),
    'ERR_ND_MODEL_NOT_FOUND',
    /cache/
  )
  await fails(() => Pipeline.fromPretrained(postcard, { device: 'cuda' }), 'ERR_ND_CUDA_UNAVAILABLE', /device/)
  await fails(() => Pipeline.fromPretrained(postcard, { device: 'tpu' }), 'ERR_ND_INVALID_ARGUMENT', /device/)
  await fails(() => Pipeline.fromPretrained(postcard, { threads: 0 }), 'ERR_ND_INVALID_ARGUMENT', /threads/)
})

const bad: [name: string, options: object, words: RegExp][] = [
  ['no prompt', { prompt: undefined }, /prompt/],
  ['a prompt that is no text', { prompt: 7 }, /prompt/],
  ['a width that is no multiple of 8', { width: 60 }, /multiple of 8 for width/],
  ['a height of 0', { height: 0 }, /height/],
  ['0 steps', { steps: 0 }, /steps/],
  ['half a step', { steps: 2.5 }, /steps/],
  ['NaN guidance', { guidanceScale: NaN }, /guidanceScale/],
  ['NaN eta', { eta: NaN }, /eta/],
  ['NaN width', { width: NaN }, /width/],
  ['guidanceRescale beyond 1', { guidanceRescale: 1.5 }, /guidanceRescale/],
  ['a negative seed', { seed: -1 }, /seed/],
  ['a seed of 2^64', { seed: 1n << 64n }, /seed/],
  ['fewer seeds than images', { seed: [1, 2], count: 3 }, /seed/],
  ['a count of 0', { count: 0 }, /count/],
  ['more negative prompts than prompts', { negativePrompt: ['a', 'b', 'c'] }, /negativePrompt/],
  ['latents of another shape', { latents: { data: new Float32Array(64), shape: [1, 4, 4, 4] } }, /latents/],
  ['a shape that its data do not fill', { latents: { data: new Float32Array(3), shape: [1, 4, 16, 16] } }, /latents/],
  ['an unknown scheduler', { scheduler: 'Magic' }, /Magic/],
  ['a scheduler that is none', { scheduler: {} }, /scheduler/],
  ['clipSkip beyond the layers', { clipSkip: 9 }, /clipSkip/],
  ['an unknown option', { guidance: 3 }, /guidance/],
  ['an option of SDXL', { prompt2: 'x' }, /prompt2/],
  ['a signal that is none', { signal: {} }, /signal/],
  ['a preview of every 0 steps', { preview: { every: 0 } }, /preview/]
]
for (const [name, options, words] of bad)
  test(`refused: ${name}`, () =>
    fails(() => paint(options as Partial<Txt2ImgOptions>), 'ERR_ND_INVALID_ARGUMENT', words))

test('modules refuse wrong shapes', async () => {
  const t = (...shape: number[]) => ({ data: new Float32Array(shape.reduce((a, b) => a * b)), shape })
  const request = { sample: t(1, 4, 8, 8), timestep: 1, context: t(1, 77, 128) }
  await fails(() => pipe.unet.predict({ ...request, sample: t(1, 3, 8, 8) }), 'ERR_ND_INVALID_ARGUMENT', /sample/)
  await fails(() => pipe.unet.predict({ ...request, context: t(1, 77, 64) }), 'ERR_ND_INVALID_ARGUMENT', /context/)
  await fails(() => pipe.unet.predict({ ...request, timestep: [1, 2] }), 'ERR_ND_INVALID_ARGUMENT', /timestep/)
  await fails(() => pipe.vae.decode(t(1, 3, 8, 8)), 'ERR_ND_INVALID_ARGUMENT', /latents/)
  await fails(() => pipe.textEncoder.encode([847]), 'ERR_ND_INVALID_ARGUMENT', /vocabulary/)
  await fails(() => pipe.textEncoder.encode(Array<number>(78).fill(0)), 'ERR_ND_INVALID_ARGUMENT', /77/)
})

test('an aborted signal: before the call, and in the middle of it', async () => {
  const before = AbortSignal.abort(new Error('not today'))
  assert.is(await reasonOf(paint({ signal: before })), 'not today')
  const controller = new AbortController()
  let steps = 0
  const run = paint({
    steps: 500,
    signal: controller.signal,
    onStep: () => {
      if (++steps === 2) controller.abort(new Error('enough'))
    }
  })
  assert.is(await reasonOf(run), 'enough')
  assert.ok(steps < 5, `${steps} steps ran`)
  assert.is((await paint()).images.length, 1, 'and the next call works')
})

test("a listener's error ends the call with that error", async () => {
  const run = paint({
    steps: 500,
    onStep: () => {
      throw new Error('from the listener')
    }
  })
  assert.is(await reasonOf(run), 'from the listener')
})

test('leaving a stream early ends its call', async () => {
  for await (const e of pipe.stream('txt2img', { prompt: 'a red circle', steps: 500, seed: 1 }))
    if (e.type === 'step' && e.step === 2) break
  const types: string[] = []
  for await (const e of pipe.stream('txt2img', { prompt: 'a red circle', steps: 2, seed: 1, scheduler: 'Euler' }))
    types.push(e.type)
  assert.equal(types, ['step', 'step', 'result'])
})

test('two calls at once on one pipeline run one after the other, both right', async () => {
  const alone = [await paint({ seed: 5 }), await paint({ seed: 6, prompt: 'a green star' })]
  const together = await Promise.all([paint({ seed: 5 }), paint({ seed: 6, prompt: 'a green star' })])
  for (const i of [0, 1]) assert.equal(together[i]!.images[0]!.data, alone[i]!.images[0]!.data)
})

test('two pipelines at once', async () => {
  const other = await Pipeline.fromPretrained(postcard, { threads: 1 })
  const options = { prompt: 'a red circle', steps: 3, seed: 9 }
  const [a, b] = await Promise.all([pipe.txt2img(options), other.txt2img(options)])
  assert.equal(a.images[0]!.data, b.images[0]!.data, 'the same picture from any number of threads')
  await other.dispose()
})

test('a disposed pipeline refuses calls; calls before it finish', async () => {
  const p = await Pipeline.fromPretrained(reference('models', 'tiny-sd15'))
  const running = p.txt2img({ prompt: 'x', steps: 2, width: 64, height: 64 })
  await p.dispose()
  await p.dispose()
  assert.is((await running).images.length, 1)
  await fails(() => p.txt2img({ prompt: 'x' }), 'ERR_ND_DISPOSED', /disposed/)
  await fails(() => p.vae.decode({ data: new Float32Array(256), shape: [1, 4, 8, 8] }), 'ERR_ND_DISPOSED', /disposed/)
})

test('many pipelines loaded and disposed do not pile up memory', async () => {
  const cycle = async (): Promise<void> => {
    const p = await Pipeline.fromPretrained(reference('models', 'tiny-sd15'))
    await p.txt2img({ prompt: 'x', steps: 1, width: 64, height: 64 })
    await p.dispose()
  }
  for (let i = 0; i < 3; i++) await cycle()
  const before = process.memoryUsage().rss
  for (let i = 0; i < 12; i++) await cycle()
  const grown = (process.memoryUsage().rss - before) / 2 ** 20
  assert.ok(grown < 60, `grew by ${grown.toFixed(0)} MiB over 12 cycles`)
})

test("JavaScript's thread stays free during a call", async () => {
  let longest = 0
  let last = performance.now()
  const timer = setInterval(() => {
    const now = performance.now()
    longest = Math.max(longest, now - last)
    last = now
  }, 1)
  await paint({ steps: 20, scheduler: createScheduler('DPM++ 2M Karras') })
  clearInterval(timer)
  // A busy machine takes the processor away now and then; a blocked thread would be away for the whole call.
  assert.ok(longest < 100, `blocked for ${longest.toFixed(0)} ms`)
})

test('a worker thread that ends in the middle of a run', async () => {
  const code = `
    import { Pipeline } from '${new URL('../../dist/index.js', import.meta.url).href}'
    import { parentPort } from 'node:worker_threads'
    const pipe = await Pipeline.fromPretrained(${JSON.stringify(postcard)})
    await pipe.txt2img({ prompt: 'x', steps: 500, onStep: (e) => e.step === 2 && parentPort.postMessage('running') })`
  for (let i = 0; i < 3; i++) {
    const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(code)}`))
    await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject))
    await worker.terminate()
  }
  assert.is((await paint()).images.length, 1, 'and this thread goes on')
})

test('process.exit in the middle of a run ends the process at once and cleanly', async () => {
  const { spawnSync } = await import('node:child_process')
  const code = `
    import { Pipeline } from 'node-diffusion'
    const pipe = await Pipeline.fromPretrained('postcard')
    await pipe.txt2img({ prompt: 'x', steps: 500, onStep: (e) => e.step === 2 && process.exit(7) })`
  const run = spawnSync(process.execPath, ['--input-type=module', '-e', code], {
    cwd: root,
    timeout: 60_000,
    encoding: 'utf8'
  })
  assert.is(run.status, 7, `signal ${run.signal}: ${run.stderr}`)
})

test.run()
