/** Servers and workers around a real Redis. Skipped where there is none (Debian: apt install redis-server). */
import { spawn, type ChildProcess } from 'node:child_process'
import { join } from 'node:path'
import { Pipeline, readPngText } from 'node-diffusion'
import { createServer, createWorker, type DiffusionServer, type PaintWorker } from 'node-diffusion/server'
import sharp from 'sharp'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { root } from './support/paths.js'
import { hasRedis, RedisServer } from './support/redis.js'

const test = suite('scale-out')
const paint = { prompt: 'a red circle on a white background', steps: 3, seed: 1 }

let redis: RedisServer
let server: DiffusionServer
let url: string
const workers: (PaintWorker | ChildProcess)[] = []

const until = async (what: string, condition: () => boolean | Promise<boolean>): Promise<void> => {
  for (let i = 0; !(await condition()); i++) {
    if (i > 4500) throw new Error(`nothing happened in ninety seconds: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}
const post = (path: string, body: unknown, init: RequestInit = {}): Promise<Response> =>
  fetch(url + path, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
    ...init
  })
interface JobView {
  id: string
  state: string
  position: number
  step: number
  error?: string
  images: { url: string; parameters: string }[]
}
const job = async (options: object, rest: object = {}): Promise<JobView> => {
  const response = await post('/api/jobs', { task: 'txt2img', options: { ...paint, ...options }, ...rest })
  assert.is(response.status, 202)
  return (await response.json()) as JobView
}
const view = async (id: string, base = url): Promise<JobView> =>
  (await (await fetch(`${base}/api/jobs/${id}`)).json()) as JobView
const state = async (id: string, wanted: string): Promise<void> =>
  until(`${id} ${wanted}`, async () => (await view(id)).state === wanted)
const metric = async (name: string): Promise<number> =>
  Number(new RegExp(`^${name} (\\d+)$`, 'm').exec(await (await fetch(`${url}/metrics`)).text())![1])
const inProcess = async (): Promise<PaintWorker> => {
  const worker = await createWorker({ redis: redis.url, models: ['postcard'], lockSeconds: 2 })
  workers.push(worker)
  return worker
}
/** A worker as its own process, and what it said. */
const process_ = async (): Promise<{ child: ChildProcess; said: () => string; ended: Promise<number | null> }> => {
  const child = spawn(
    process.execPath,
    [join(root, 'dist', 'cli', 'main.js'), 'worker', '--lock-seconds', '2', '--threads', '1'],
    { stdio: ['ignore', 'pipe', 'inherit'], env: { ...process.env, NODE_DIFFUSION_REDIS: redis.url } }
  )
  workers.push(child)
  let text = ''
  child.stdout.on('data', (data: Buffer) => (text += data.toString()))
  const ended = new Promise<number | null>((resolve) => child.on('exit', resolve))
  await until('a worker', () => text.includes('waiting for jobs'))
  return { child, said: () => text, ended }
}

if (!hasRedis()) {
  console.log('skip scale-out: no redis-server here (Debian: apt install redis-server)')
  test.skip('servers and workers around a Redis', () => {})
} else {
  test.before(async () => {
    redis = await RedisServer.start()
    server = await createServer({ models: ['postcard', 'other=postcard'], redis: redis.url, maxQueued: 20 })
    url = await server.listen(0)
  })
  test.after.each(async () => {
    for (const worker of workers.splice(0))
      if ('close' in worker) await worker.close(true)
      else worker.kill('SIGKILL')
  })
  test.after(async () => {
    await server.close(true)
    await redis.remove()
  })

  test('the same picture as without a queue; steps, previews and pictures come and go through Redis', async () => {
    await inProcess()
    const made = (await (await post('/v1/images/generations', paint)).json()) as { data: { b64_json: string }[] }
    const pipe = await Pipeline.fromPretrained('postcard')
    const direct = await pipe.txt2img(paint)
    const png = Buffer.from(made.data[0]!.b64_json, 'base64')
    assert.equal([...(await sharp(png).raw().toBuffer())], [...direct.images[0]!.data])
    assert.is(readPngText(png).parameters, direct.images[0]!.parameters)

    const { id } = await job({ steps: 30, preview: true, count: 2, seed: [5, 2 ** 53 - 1] })
    const events = await (await fetch(`${url}/api/jobs/${id}/events`)).text()
    assert.match(events, /event: step\ndata: .*"preview":"data:image\/webp/)
    const end = JSON.parse(/event: end\ndata: (.*)/.exec(events)![1]!) as JobView & { seeds: string[] }
    assert.is(end.state, 'done')
    assert.equal(end.seeds, ['5', String(2 ** 53 - 1)])
    assert.is(end.images.length, 2)

    const blue = await sharp({ create: { width: 64, height: 64, channels: 3, background: '#0a14c8' } })
      .png()
      .toBuffer()
    const half = await sharp({ create: { width: 32, height: 64, channels: 3, background: 'white' } })
      .extend({ right: 32, background: 'black' })
      .png()
      .toBuffer()
    const inpainted = (await (
      await post('/sdapi/v1/img2img', {
        ...{ prompt: paint.prompt, width: 64, height: 64, steps: 4, seed: 3 },
        init_images: [blue.toString('base64')],
        mask: half.toString('base64')
      })
    ).json()) as { images: string[] }
    const corner = await sharp(Buffer.from(inpainted.images[0]!, 'base64'))
      .extract({ left: 60, top: 30, width: 1, height: 1 })
      .raw()
      .toBuffer()
    assert.equal([...corner], [0x0a, 0x14, 0xc8])
    await pipe.dispose()
  })

  test('failures come back with their code and words', async () => {
    await inProcess()
    const wrong = await post('/v1/images/generations', { ...paint, size: '60x60' })
    assert.is(wrong.status, 400)
    assert.match(await wrong.text(), /ERR_ND_INVALID_ARGUMENT/)
    const foreign = await job({}, { model: 'other' }) // this worker has no such model
    await state(foreign.id, 'failed')
    assert.match((await view(foreign.id)).error!, /model/)
    assert.is((await post('/api/jobs', { task: 'txt2img', options: { hires: { $bigint: 'x' } } })).status, 400)
  })

  test('priorities and the limit hold for all servers; another server knows the jobs', async () => {
    const second = await createServer({ models: ['postcard'], redis: redis.url, maxQueued: 4 })
    const other = await second.listen(0)
    try {
      const waiting = [await job({}), await job({}, { priority: 5 }), await job({}), await job({}, { priority: 10 })]
      const positions = await Promise.all(waiting.map(({ id }) => view(id, other)))
      assert.equal(
        positions.map((p) => p.position),
        [3, 2, 4, 1]
      )
      const refused = await fetch(`${other}/v1/images/generations`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(paint)
      })
      assert.is(refused.status, 429)
      assert.ok(refused.headers.get('retry-after'))
      // One is cancelled by the server that did not take it, before anybody works on it.
      assert.is((await fetch(`${other}/api/jobs/${waiting[0]!.id}`, { method: 'DELETE' })).status, 200)
      await state(waiting[0]!.id, 'cancelled')
      await inProcess()
      for (const { id } of waiting.slice(1)) await state(id, 'done')
      const starts = await Promise.all(
        waiting.slice(1).map(async ({ id }) => ((await view(id)) as unknown as { started: number }).started)
      )
      assert.ok(starts[2]! < starts[0]! && starts[0]! < starts[1]!, `by priority: ${starts.join(' ')}`)
      const late = await view(waiting[1]!.id, other)
      assert.is(late.state, 'done')
      const picture = await fetch(other + late.images[0]!.url)
      assert.is((await sharp(Buffer.from(await picture.arrayBuffer())).metadata()).width, 64)
    } finally {
      await second.close(true)
    }
  })

  test('a worker killed in the middle of a job: another one paints it; none lost, none twice', async () => {
    const first = await process_()
    const long = await job({ steps: 150, seed: 100 })
    await until('the first worker paints', async () => (await view(long.id)).step > 2)
    const seeds = Array.from({ length: 12 }, (_, i) => 200 + i)
    const jobs = await Promise.all(seeds.map((seed) => job({ seed })))
    first.child.kill('SIGKILL')
    await first.ended
    const second = await process_()
    for (const { id } of [long, ...jobs]) await state(id, 'done')
    const texts = await Promise.all(jobs.map(async ({ id }) => (await view(id)).images.map((i) => i.parameters)))
    assert.equal(
      texts.map((t) => t.map((text) => Number(/Seed: (\d+)/.exec(text)![1]))),
      seeds.map((seed) => [seed])
    )
    assert.match(second.said(), new RegExp(`${long.id}: txt2img with postcard, attempt 2`))
    for (const { id } of jobs) assert.is(second.said().split(`${id}: done`).length, 2, 'painted once')
  })

  test('cancelling reaches the worker, by request and when the client goes away', async () => {
    const worker = await inProcess()
    const long = await job({ steps: 900 })
    await until('it paints', () => worker.running === 1)
    await fetch(`${url}/api/jobs/${long.id}`, { method: 'DELETE' })
    assert.is((await view(long.id)).state, 'cancelled')
    await until('the worker is free', () => worker.running === 0)
    const stop = new AbortController()
    const leaving = post('/v1/images/generations', { ...paint, steps: 900 }, { signal: stop.signal }).catch(() => {})
    await until('it paints again', () => worker.running === 1)
    stop.abort()
    await leaving
    await until('the worker is free again', () => worker.running === 0)
    assert.is((await (await post('/v1/images/generations', paint)).json()).data.length, 1, 'it goes on')
  })

  test('a worker told to stop ends its job; told twice, it gives the job back', async () => {
    const first = await process_()
    const short = await job({ steps: 60 })
    await until('it paints', async () => (await view(short.id)).step > 2)
    first.child.kill('SIGTERM')
    assert.is(await first.ended, 0)
    await state(short.id, 'done')

    const second = await process_()
    const long = await job({ steps: 100 })
    const behind = await job({})
    await until('it paints', async () => (await view(long.id)).step > 2)
    second.child.kill('SIGTERM')
    await until('it says so', () => second.said().includes('once more'))
    second.child.kill('SIGTERM')
    assert.is(await second.ended, 0)
    assert.match(second.said(), /given back/)
    await state(long.id, 'queued')
    await until('it waits before the other one', async () => (await view(behind.id)).position === 2)
    assert.is((await view(long.id)).position, 1)
    await inProcess()
    await state(behind.id, 'done')
    assert.is((await view(long.id)).state, 'done')
    assert.is(await metric('node_diffusion_workers'), 1)
  })

  test('Redis goes away and comes back: requests are refused meanwhile, jobs are not lost', async () => {
    const kept = await job({ seed: 77 })
    await redis.stop()
    await until('it is noticed', async () => (await fetch(`${url}/ready`)).status === 503)
    assert.is((await post('/v1/images/generations', paint)).status, 503)
    await redis.startAgain()
    await until('it is there again', async () => (await fetch(`${url}/ready`)).status === 200)
    await inProcess()
    await state(kept.id, 'done')
    assert.match((await view(kept.id)).images[0]!.parameters, /Seed: 77/)
  })

  test('no Redis there: the error says so', async () => {
    for (const start of [
      createServer({ redis: 'redis://127.0.0.1:1' }),
      createWorker({ redis: 'redis://127.0.0.1:1' })
    ])
      try {
        await start
        assert.unreachable()
      } catch (error) {
        assert.is((error as { code: string }).code, 'ERR_ND_UNAVAILABLE')
        assert.match((error as Error).message, /ECONNREFUSED/)
      }
    try {
      await createWorker({ redis: 'localhost' })
      assert.unreachable()
    } catch (error) {
      assert.match((error as Error).message, /redis:\/\//)
    }
  })
}

test.run()
