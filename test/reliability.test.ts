/** Storms, malice and shortage: aborts at any moment, broken HTTP, no memory, no disk. Counts are printed; docs/reliability.md has a run's. */
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { DiffusionImage, Pipeline } from 'node-diffusion'
import { createServer, type DiffusionServer } from 'node-diffusion/server'
import sharp from 'sharp'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { structureOf } from '#lib/server/json-body.js'
import { root } from './support/paths.js'

const test = suite('reliability')
const scratch = mkdtempSync(join(tmpdir(), 'nd-reliability-'))
const disk = join(scratch, 'disk')
mkdirSync(disk)
const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=128k', 'tmpfs', disk]).status === 0
test.after(() => {
  if (mounted) spawnSync('umount', [disk])
  rmSync(scratch, { recursive: true, force: true })
})
const entry = join(root, 'dist', 'index.js')

test('abort storm: calls of three threads, aborted at random, all settle; what is not aborted is right', async () => {
  const calls = 40
  const source = `
    const { parentPort, workerData } = require('node:worker_threads')
    import(workerData.entry).then(async ({ Pipeline }) => {
      let state = workerData.seed
      const random = () => (state = (state * 48271) % 2147483647) / 2147483647
      const pipe = await Pipeline.fromPretrained('postcard', { threads: 1 })
      const counts = { done: 0, aborted: 0 }
      const sums = new Set()
      const call = async () => {
        const stop = new AbortController()
        const when = random()
        if (when < 0.1) stop.abort(new Error('stop'))
        else if (when < 0.8) setTimeout(() => stop.abort(new Error('stop')), random() * 400)
        try {
          const { images } = await pipe.txt2img({
            prompt: 'a red circle', steps: 2, seed: 1, width: 32, height: 32, signal: stop.signal,
            ...(random() < 0.5 ? { onStep: () => { if (random() < 0.2) stop.abort(new Error('stop')) }, preview: true } : {})
          })
          counts.done++
          sums.add(Buffer.from(images[0].data).toString('base64'))
        } catch (error) {
          if (error !== stop.signal.reason) throw error
          counts.aborted++
        }
      }
      const waiting = []
      for (let i = 0; i < workerData.calls; i++) {
        waiting.push(call())
        if (random() < 0.5) await new Promise((resolve) => setTimeout(resolve, random() * 30))
        if (random() < 0.3) await waiting[Math.floor(random() * waiting.length)]
      }
      await Promise.all(waiting)
      const last = await pipe.txt2img({ prompt: 'a red circle', steps: 2, seed: 1, width: 32, height: 32 })
      sums.add(Buffer.from(last.images[0].data).toString('base64'))
      await pipe.dispose()
      parentPort.postMessage({ ...counts, sums: [...sums] })
    })`
  const results = await Promise.all(
    [11, 22, 33].map(
      (seed) =>
        new Promise<{ done: number; aborted: number; sums: string[] }>((resolve, reject) => {
          const worker = new Worker(source, { eval: true, workerData: { entry, seed, calls } })
          worker.on('message', resolve)
          worker.on('error', reject)
        })
    )
  )
  const pipe = await Pipeline.fromPretrained('postcard')
  const right = await pipe.txt2img({ prompt: 'a red circle', steps: 2, seed: 1, width: 32, height: 32 })
  await pipe.dispose()
  for (const { done, aborted, sums } of results) {
    assert.is(done + aborted, calls)
    assert.equal(sums, [Buffer.from(right.images[0]!.data).toString('base64')])
  }
  const sum = (of: 'done' | 'aborted'): number => results.reduce((all, r) => all + r[of], 0)
  assert.ok(sum('aborted') > 20, `${sum('aborted')} aborted`)
  console.log(`  ${3 * calls} calls: ${sum('aborted')} aborted, ${sum('done')} done, all of them right`)
})

/** What is sent, and the answer's first line; '' for a connection that was closed without one. */
const raw = (port: number, parts: readonly (string | Buffer | number)[]): Promise<string> =>
  new Promise((resolve) => {
    let answer = ''
    const socket = connect(port, '127.0.0.1', () => {
      const send = async (): Promise<void> => {
        for (const part of parts)
          if (typeof part === 'number') await new Promise((done) => setTimeout(done, part))
          else if (!socket.destroyed) socket.write(part)
      }
      void send()
    })
    socket.on('data', (data) => (answer += data.toString('latin1')))
    socket.on('error', () => {})
    socket.on('close', () => resolve(answer.split('\r\n')[0]!))
    setTimeout(() => socket.destroy(), 15_000).unref()
  })

test('malformed HTTP over raw sockets: each is refused or dropped, and the server goes on', async () => {
  const server = await createServer({ models: ['postcard'], requestTimeout: 2, bodyLimit: 1 << 20 })
  const { port } = new URL(await server.listen(0))
  const head = (length: number | string, type = 'application/json', path = '/v1/images/generations'): string =>
    `POST ${path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: ${type}\r\ncontent-length: ${length}\r\n\r\n`
  const drip = Array.from({ length: 40 }, () => ['a', 100] as const).flat()
  const part = (name: string, more = ''): string =>
    `--b\r\ncontent-disposition: form-data; name="${name}"${more}\r\n\r\n`
  const edits = '/v1/images/edits'
  const cases: [what: string, parts: (string | Buffer | number)[], answer: RegExp][] = [
    ['no HTTP', ['\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03'], /400|^$/],
    ['random bytes', [Buffer.from(Array.from({ length: 4096 }, (_, i) => (i * 7919) % 256))], /400|^$/],
    ['a body cut short', [head(1000), '{"prompt":'], /408|400|^$/],
    ['bad JSON', [head(9), '{"prompt"'], /400/],
    ['a length that is none', [head('-5'), 'x'], /400|^$/],
    ['two lengths', [head(5).replace('\r\n\r\n', '\r\ncontent-length: 6\r\n\r\n'), 'hello'], /400|^$/],
    [
      'smuggling: length and chunks',
      [head(5).replace('\r\n\r\n', '\r\ntransfer-encoding: chunked\r\n\r\n'), '0\r\n\r\nGET'],
      /400|^$/
    ],
    ['bad chunks', [head(5).replace('content-length: 5', 'transfer-encoding: chunked'), 'zz\r\nabc'], /400|408|^$/],
    ['huge headers', [`GET / HTTP/1.1\r\nx: ${'a'.repeat(100_000)}\r\n\r\n`], /431/],
    ['many headers', [`GET /health HTTP/1.1\r\n${'a: b\r\n'.repeat(5000)}\r\n`], /431|400|200|^$/],
    ['a body over the limit', [head(2 << 20), 'x'], /413/],
    ['slow headers', ['GET / HTTP/1.1\r\nx: ', ...drip], /408|^$/],
    ['a slow body', [head(1000), ...drip], /408|^$/],
    ['nothing at all', [6000], /^$|408/],
    ['deep JSON', [head(600_000), '['.repeat(600_000)], /413/],
    ['a form without its end', [head(2000, 'multipart/form-data; boundary=b', edits), part('prompt'), 'x'], /4\d\d|^$/],
    ['a form without boundary', [head(5, 'multipart/form-data', edits), 'hello'], /4\d\d/],
    [
      'a form with a hundred fields',
      [
        head(100 * (part('p').length + 3) + 5, 'multipart/form-data; boundary=b', edits),
        `${part('p')}x\r\n`.repeat(100),
        '--b--'
      ],
      /4\d\d/
    ],
    ['an unknown type', [head(5, 'text/weird'), 'hello'], /415/],
    ['an unknown method', ['BREW /coffee HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n'], /4\d\d|^$/],
    [
      'a path out of the folder',
      ['GET /outputs/..%2f..%2fetc%2fpasswd HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n'],
      /404/
    ],
    ['a broken escape', ['GET /api/jobs/%zz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n'], /400|404/]
  ]
  try {
    const answers = await Promise.all(cases.map(([, parts]) => raw(Number(port), parts)))
    cases.forEach(([what, , wanted], i) => assert.match(answers[i]!, wanted, what))
    assert.is((await fetch(`http://127.0.0.1:${port}/health`)).status, 200)
    assert.equal(await server.painter.queue.counts(), { queued: 0, running: 0 })
    console.log(`  ${cases.length} kinds of broken requests`)
  } finally {
    await server.close(true)
  }
})

test('requests with mutated bodies: never an internal error', async () => {
  const { Mutator } = (await import(join(root, 'test', 'fuzz', 'mutate.mjs'))) as {
    Mutator: new (seed: number, target: object) => { mutate(corpus: Buffer[]): Buffer }
  }
  const server = await createServer({ models: ['postcard'] })
  await server.painter.queue.close(true) // what is a good request is refused with 503
  const png = (
    await sharp({ create: { width: 8, height: 8, channels: 3, background: 'red' } })
      .png()
      .toBuffer()
  ).toString('base64')
  const size = { width: 64, height: 64, steps: 1, prompt: 'x' }
  const seeds: [string, object][] = [
    ['/v1/images/generations', { prompt: 'x', n: 1, size: '64x64', seed: 1, stream: false, steps: 1, priority: 2 }],
    ['/sdapi/v1/txt2img', { ...size, seed: 1, sampler_name: 'Euler', scheduler: 'Karras', subseed_strength: 0.5 }],
    ['/sdapi/v1/txt2img', { ...size, enable_hr: true, hr_scale: 2, override_settings: { sd_model_checkpoint: 'x' } }],
    ['/sdapi/v1/img2img', { ...size, init_images: [png], mask: png, mask_blur: 4, inpainting_fill: 1 }],
    ['/sdapi/v1/options', { sd_model_checkpoint: 'postcard', CLIP_stop_at_last_layers: 1, randn_source: 'GPU' }],
    ['/sdapi/v1/png-info', { image: png }],
    [
      '/api/jobs',
      { task: 'img2img', model: 'postcard', priority: 1, options: { ...size, image: png, hires: { scale: 2 } } }
    ]
  ]
  const mutator = new Mutator(7, { json: true })
  const statuses = new Map<number, number>()
  for (let i = 0; i < 1400; i++) {
    const [url, body] = seeds[i % seeds.length]!
    const payload = mutator.mutate([Buffer.from(JSON.stringify(body))])
    const { statusCode, body: answer } = await server.app.inject({
      method: 'POST',
      url,
      headers: { 'content-type': 'application/json' },
      payload
    })
    statuses.set(statusCode, (statuses.get(statusCode) ?? 0) + 1)
    assert.ok(
      [200, 400, 404, 413, 503].includes(statusCode),
      `${statusCode} for ${url} ${payload.toString()}: ${answer}`
    )
  }
  await server.close(true)
  console.log(`  1400 requests: ${[...statuses].map(([status, count]) => `${count} × ${status}`).join(', ')}`)
})

test('limits: what would take too much is refused before it waits', async () => {
  const server = await createServer({ models: ['postcard'], limits: { inputPixels: 10_000 } })
  const large = (
    await sharp({ create: { width: 200, height: 100, channels: 3, background: 'red' } })
      .png()
      .toBuffer()
  ).toString('base64')
  const size = { width: 64, height: 64, steps: 1, prompt: 'x' }
  const tries: [string, object, RegExp][] = [
    ['/v1/images/generations', { prompt: 'x', size: '9992x9992' }, /pixels/],
    ['/sdapi/v1/txt2img', { ...size, n_iter: 65 }, /pictures/],
    ['/sdapi/v1/txt2img', { ...size, steps: 5000 }, /steps/],
    ['/sdapi/v1/txt2img', { ...size, prompt: 'x '.repeat(20_000) }, /characters/],
    ['/sdapi/v1/txt2img', { ...size, enable_hr: true, hr_scale: 100 }, /pixels/],
    ['/sdapi/v1/img2img', { ...size, init_images: [large] }, /20000|200x100|pixels/],
    ['/sdapi/v1/img2img', { ...size, init_images: [Buffer.from('no picture').toString('base64')] }, /picture/]
  ]
  for (const [url, payload, words] of tries) {
    const answer = await server.app.inject({ method: 'POST', url, payload })
    assert.is(answer.statusCode, 400, answer.body)
    assert.match(answer.body, words)
  }
  await server.close(true)
  for (const [text, outside] of [
    ['{"a":"b\\"c"}', 7],
    ['["\\\\"]', 4],
    ['[[[[', 4],
    ['"', 2]
  ] as const)
    assert.is(structureOf(Buffer.from(text), 1000), outside, text)
})

/** Runs a program in a process of its own, after `before` has been told its id. */
const program = (source: string, args: readonly string[] = [], wrap: readonly string[] = []): string => {
  const file = join(scratch, 'program.mjs')
  writeFileSync(file, source)
  const [command, ...rest] = [...wrap, process.execPath, file, entry, ...args]
  const { stdout, stderr, status, signal } = spawnSync(command!, rest, { encoding: 'utf8', timeout: 300_000 })
  if (status !== 0) throw new Error(`status ${status} ${signal}: ${stdout}\n${stderr}`)
  return stdout.trim()
}
const hasPrlimit = !spawnSync('prlimit', ['--version']).error
if (!hasPrlimit) console.log('skip: no prlimit here (util-linux)')
const limited = (name: string, body: () => void): void => (hasPrlimit ? test : test.skip.bind(test))(name, body)

limited('out of memory is an error, and the next call works', () => {
  const output = program(`
    import { spawnSync } from 'node:child_process'
    import { readFileSync } from 'node:fs'
    const { Pipeline } = await import(process.argv[2])
    const pipe = await Pipeline.fromPretrained('postcard', { threads: 1 })
    const small = () => pipe.txt2img({ prompt: 'a red circle', steps: 1, seed: 1, width: 32, height: 32 })
    const used = Number(/VmSize:\\s+(\\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1]) * 1024
    spawnSync('prlimit', ['--pid', String(process.pid), '--as=' + (used + (96 << 20))])
    const before = (await small()).images[0].data
    const codes = []
    for (let i = 0; i < 5; i++) {
      await pipe.txt2img({ prompt: 'a red circle', steps: 1, seed: 1, width: 2048, height: 2048, vaeTiling: false }).then(
        () => codes.push('none'),
        (error) => codes.push(error.code)
      )
      const after = (await small()).images[0].data
      if (Buffer.compare(before, after)) codes.push('another picture')
    }
    console.log(codes.join(' '))
    process.exit(0)`)
  assert.is(output, Array(5).fill('ERR_ND_OUT_OF_MEMORY').join(' '))
})

const saving = `
  import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
  import { join } from 'node:path'
  const { DiffusionImage } = await import(process.argv[2])
  const folder = process.argv[3]
  const image = (side) => {
    const data = new Uint8Array(side * side * 3)
    for (let i = 0, x = 1; i < data.length; i++) data[i] = (x = (x * 48271) % 2147483647)
    return new DiffusionImage({ data, width: side, height: side })
  }
  const path = join(folder, 'a.png')
  await image(16).save(path)
  const first = readFileSync(path)
  const codes = []
  for (let i = 0; i < 20; i++)
    await image(400).save(path).then(() => codes.push('none'), (error) => codes.push(error.cause.code))
  if (Buffer.compare(first, readFileSync(path))) codes.push('the old picture is gone')
  if (readdirSync(folder).length !== 1) codes.push('left: ' + readdirSync(folder))
  await image(16).save(path) // there is room for a small one
  console.log([...new Set(codes)].join(' '))`

limited('a picture that does not fit on the disk: an error, the old one stays, nothing is left behind', () => {
  const folder = join(scratch, 'limited')
  mkdirSync(folder)
  assert.is(program(saving, [folder], ['prlimit', '--fsize=100000']), 'EFBIG')
})

if (!mounted) console.log('skip: no small disk can be mounted here (it takes root)')
const onDisk = (name: string, body: () => void | Promise<void>): void =>
  (mounted ? test : test.skip.bind(test))(name, body)

onDisk('a full disk: pictures', () => {
  assert.is(program(saving, [disk]), 'ENOSPC')
})

onDisk('a full disk: pictures by address are refused with 507, and come when there is room', async () => {
  const server: DiffusionServer = await createServer({ models: ['postcard'], outputs: disk })
  const paint = { prompt: 'a red circle', steps: 1, seed: 1, size: '64x64', response_format: 'url' }
  const filler = join(disk, 'filler')
  try {
    writeFileSync(filler, Buffer.alloc((128 << 10) - 4096))
    const ask = (): Promise<{ statusCode: number }> =>
      server.app.inject({ method: 'POST', url: '/v1/images/generations', payload: paint })
    assert.is((await ask()).statusCode, 507)
    assert.equal(
      readdirSync(disk).filter((name) => name.endsWith('.tmp')),
      []
    )
    rmSync(filler)
    assert.is((await ask()).statusCode, 200)
  } finally {
    await server.close(true)
    for (const name of readdirSync(disk)) rmSync(join(disk, name))
  }
})

test('a picture is replaced at once: readers see the old or the new one', async () => {
  const path = join(scratch, 'replaced.png')
  const images = [10, 200].map(
    (value) => new DiffusionImage({ data: new Uint8Array(3 * 64 * 64).fill(value), width: 64, height: 64 })
  )
  await images[0]!.save(path)
  const whole = new Set(
    await Promise.all(images.map(async (image) => (await image.toBuffer('png')).toString('base64')))
  )
  let stop = false
  const writing = (async () => {
    for (let i = 0; !stop; i++) await images[i % 2]!.save(path)
  })()
  for (let i = 0; i < 300; i++) {
    assert.ok(whole.has(readFileSync(path).toString('base64')))
    await new Promise((resolve) => setImmediate(resolve))
  }
  stop = true
  await writing
})

test.run()
