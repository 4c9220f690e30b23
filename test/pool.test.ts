/** One model on several devices: calls go to the one that is free. */
import { Pipeline, PipelinePool, type PoolOptions } from 'node-diffusion'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { fails } from './support/fails.js'
import { reference } from './support/paths.js'

const test = suite('pool')
const folder = reference('models', 'tiny-sd15')
const options = { prompt: 'a cat', steps: 2, width: 32, height: 32, guidanceScale: 1 }
const load = (devices: PoolOptions['devices'], more: object = {}): Promise<PipelinePool> =>
  PipelinePool.fromPretrained(folder, { devices, threads: 1, ...more })

/** Both, one after the other. */
const chain = (a: () => void, b: () => void) => (): void => {
  a()
  b()
}
const rejects = (promise: Promise<unknown>, message: string): Promise<void> =>
  promise.then(
    () => assert.unreachable(),
    (error: Error) => assert.is(error.message, message)
  )

let pool: PipelinePool
test('loads on every device', async () => {
  const told: string[] = []
  pool = await load(['cpu', 'cpu'], { onProgress: (e: { component: string }) => told.push(e.component) })
  assert.equal(pool.devices, ['cpu', 'cpu'])
  assert.is(pool.pipelines.length, 2)
  assert.is.not(pool.pipelines[0], pool.pipelines[1])
  assert.ok(pool.tasks.includes('txt2img'))
  assert.equal(told, ['textEncoder', 'unet', 'vae'], 'of the first device alone')
})

test('the same pictures as a pipeline, wherever they are painted', async () => {
  const pipe = await Pipeline.fromPretrained(folder, { device: 'cpu', threads: 1 })
  const seeds = [1, 2, 3, 4, 5]
  const expected = []
  for (const seed of seeds) expected.push((await pipe.txt2img({ ...options, seed })).images[0]!.data)
  const actual = await Promise.all(seeds.map((seed) => pool.txt2img({ ...options, seed })))
  for (const [i, out] of actual.entries()) assert.equal(out.images[0]!.data, expected[i])
  await pipe.dispose()
})

test('a call starts when a device is free, in the order of the calls', async () => {
  const [first, second] = pool.pipelines
  const started: [string, Pipeline][] = []
  const ends: (() => void)[] = []
  const work = (name: string) => (pipe: Pipeline) => {
    started.push([name, pipe])
    return new Promise<void>((resolve) => ends.push(resolve))
  }
  const calls = ['a', 'b', 'c', 'd'].map((name) => pool.run(work(name)))
  await new Promise(setImmediate)
  assert.equal(
    started.map(([name]) => name),
    ['a', 'b']
  )
  assert.is.not(started[0]![1], started[1]![1])
  ends[1]!()
  await calls[1]
  await new Promise(setImmediate)
  assert.equal(
    started.map(([name]) => name),
    ['a', 'b', 'c']
  )
  assert.is(started[2]![1], started[1]![1], 'on the device that became free')
  ends[0]!()
  await new Promise(setImmediate)
  assert.is(started[3]![1], started[0]![1])
  ends[2]!()
  ends[3]!()
  await Promise.all(calls)
  assert.ok([first, second].every((pipe) => started.some(([, p]) => p === pipe)))
})

test('a failed or aborted call leaves its device free', async () => {
  for (let i = 0; i < 3; i++)
    await fails(() => pool.txt2img({ ...options, steps: 0 }), 'ERR_ND_INVALID_ARGUMENT', /steps/)
  let end = (): void => {}
  const busy = [1, 2].map(() => pool.run(() => new Promise<void>((resolve) => (end = chain(end, resolve)))))
  await new Promise(setImmediate)
  const controller = new AbortController()
  const waiting = pool.txt2img({ ...options, signal: controller.signal })
  const after = pool.txt2img({ ...options, seed: 7 })
  controller.abort(new Error('enough'))
  await waiting.then(
    () => assert.unreachable(),
    (error: Error) => assert.is(error.message, 'enough')
  )
  end()
  await Promise.all(busy)
  assert.is((await after).images.length, 1)
  await rejects(pool.txt2img({ ...options, signal: AbortSignal.abort(new Error('before')) }), 'before')
})

test('streams, and work for every pipeline', async () => {
  const types: string[] = []
  for await (const event of pool.stream('txt2img', options)) types.push(event.type)
  assert.is(types.pop(), 'result')
  assert.ok(types.length >= 2 && types.every((type) => type === 'step'))
  for await (const event of pool.stream('txt2img', options)) {
    assert.is(event.type, 'step')
    break // gives the device back
  }
  assert.equal(await pool.each((pipe) => Promise.resolve(pipe.device)), ['cpu', 'cpu'])
  await Promise.all([pool.txt2img(options), pool.txt2img(options)])
})

test('refuses what it cannot take', async () => {
  await fails(() => load([]), 'ERR_ND_INVALID_ARGUMENT', /devices/)
  await fails(() => load('cpu' as never), 'ERR_ND_INVALID_ARGUMENT', /'all' or a list/)
  await fails(() => load(['cpu', 'gpu']), 'ERR_ND_INVALID_ARGUMENT', /device/)
  await fails(() => load(['cpu', 'cuda:99']), 'ERR_ND_CUDA_UNAVAILABLE', /cuda:99/)
  await fails(() => load(['cpu'], { device: 'cpu' }), 'ERR_ND_INVALID_ARGUMENT', /next to devices/)
  await fails(() => load(['cpu'], { colour: 'red' }), 'ERR_ND_INVALID_ARGUMENT', /colour/)
  await fails(() => Pipeline.fromPretrained(folder, { devices: 'all' } as never), 'ERR_ND_INVALID_ARGUMENT', /devices/)
})

test('disposed, it ends what waits', async () => {
  let end = (): void => {}
  const busy = [1, 2].map(() => pool.run(() => new Promise<void>((resolve) => (end = chain(end, resolve)))))
  const waiting = pool.txt2img(options)
  const disposed = pool.dispose()
  await fails(() => waiting, 'ERR_ND_DISPOSED', /disposed/)
  end()
  await Promise.all([...busy, disposed])
  await fails(() => pool.txt2img(options), 'ERR_ND_DISPOSED', /disposed/)
  assert.is(pool.dispose(), pool.dispose())
})

test.run()
