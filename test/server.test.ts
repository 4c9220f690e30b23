/** The HTTP server, by real clients: openai, node-sd-webui and fetch. */
import { spawn } from 'node:child_process'
import { createWriteStream, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { readPngText } from 'node-diffusion'
import { createServer, type DiffusionServer } from 'node-diffusion/server'
import sdWebUi from 'node-sd-webui'
import OpenAI, { toFile } from 'openai'
import sharp from 'sharp'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { root } from './support/paths.js'

const test = suite('server')
const key = 'a-key'
let folder: string
let server: DiffusionServer
let url: string
let openai: OpenAI
const paint = { prompt: 'a red circle on a white background', steps: 3, seed: 1 }

test.before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'nd-server-'))
  server = await createServer({
    models: ['postcard', 'second=postcard'],
    apiKeys: [key],
    maxQueued: 4,
    keepModels: 2,
    cors: ['http://example.com'],
    outputs: join(folder, 'outputs')
  })
  url = await server.listen(0)
  openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 })
})
test.after(async () => {
  await server.close(true)
  rmSync(folder, { recursive: true, force: true })
})

const ask = (path: string, init: RequestInit & { json?: unknown } = {}): Promise<Response> =>
  fetch(url + path, {
    ...(init.json === undefined ? {} : { method: 'POST', body: JSON.stringify(init.json) }),
    ...init,
    headers: {
      authorization: `Bearer ${key}`,
      ...(init.json === undefined ? {} : { 'content-type': 'application/json' })
    }
  })
const json = async <T = Record<string, unknown>>(
  path: string,
  init: RequestInit & { json?: unknown } = {}
): Promise<T> => (await ask(path, init)).json() as Promise<T>
const sizeOf = async (base64: string): Promise<string> => {
  const { width, height, format } = await sharp(Buffer.from(base64, 'base64')).metadata()
  return `${width}x${height} ${format}`
}
const until = async (condition: () => boolean): Promise<void> => {
  for (let i = 0; !condition(); i++) {
    if (i > 500) throw new Error('nothing happened in ten seconds')
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

test('openai: pictures as base64 and by address', async () => {
  const made = await openai.images.generate({ ...paint, model: 'postcard', n: 2, response_format: 'b64_json' } as never)
  assert.is((made as OpenAI.ImagesResponse).data!.length, 2)
  assert.is(await sizeOf((made as OpenAI.ImagesResponse).data![0]!.b64_json!), '64x64 png')
  const byUrl = (await openai.images.generate({
    ...paint,
    size: '48x64',
    response_format: 'url',
    output_format: 'webp'
  } as never)) as OpenAI.ImagesResponse
  const picture = await fetch(byUrl.data![0]!.url!, { headers: { authorization: `Bearer ${key}` } })
  assert.is(picture.headers.get('content-type'), 'image/webp')
  const { width, height } = await sharp(Buffer.from(await picture.arrayBuffer())).metadata()
  assert.equal([width, height], [48, 64])
  for (const name of ['../../package.json', '%2e%2e%2fpackage.json', 'x.png'])
    assert.is((await ask(`/outputs/${name}`)).status, 404, name)
})

test('openai: partial pictures, then the whole one', async () => {
  const events: { type: string; b64_json?: string; partial_image_index?: number }[] = []
  const stream = await openai.images.generate({ ...paint, stream: true, partial_images: 2, steps: 6 } as never)
  for await (const event of stream as unknown as AsyncIterable<(typeof events)[0]>) events.push(event)
  assert.equal(
    events.map((e) => `${e.type} ${e.partial_image_index ?? ''}`.trim()),
    ['image_generation.partial_image 0', 'image_generation.partial_image 1', 'image_generation.completed']
  )
  for (const event of events) assert.is(await sizeOf(event.b64_json!), '64x64 png')
})

test('openai: edits, variations, models, errors', async () => {
  const image = await sharp({
    create: { width: 64, height: 64, channels: 4, background: { r: 9, g: 9, b: 200, alpha: 1 } }
  })
    .png()
    .toBuffer()
  // The left half is transparent: it is painted anew.
  const hole = await sharp({
    create: { width: 32, height: 64, channels: 4, background: { r: 0, g: 0, b: 0, alpha: 1 } }
  })
    .png()
    .toBuffer()
  const mask = await sharp(image)
    .composite([{ input: hole, left: 0, top: 0, blend: 'dest-out' }])
    .png()
    .toBuffer()
  const edited = await openai.images.edit({
    image: await toFile(image, 'image.png', { type: 'image/png' }),
    mask: await toFile(mask, 'mask.png', { type: 'image/png' }),
    ...paint
  } as never)
  const data = Buffer.from((edited as OpenAI.ImagesResponse).data![0]!.b64_json!, 'base64')
  const right = await sharp(data).extract({ left: 40, top: 0, width: 24, height: 64 }).raw().toBuffer()
  const mean = (channel: number): number =>
    right.reduce((sum, v, i) => sum + (i % 3 === channel ? v : 0), 0) / (24 * 64)
  const [red, blue] = [mean(0), mean(2)]
  assert.ok(blue > red + 60, `the right half stays blue: ${red}, ${blue}`)

  const like = await openai.images.createVariation({
    image: await toFile(image, 'image.png', { type: 'image/png' }),
    n: 2
  })
  assert.is(like.data!.length, 2)

  const models = []
  for await (const model of openai.models.list()) models.push(model.id)
  assert.equal(models, ['postcard', 'second'])
  const failures: [Record<string, unknown>, number, RegExp][] = [
    [{ ...paint, model: 'none' }, 400, /model/],
    [{ ...paint, size: '60x60' }, 400, /width|multiple/],
    [{ ...paint, n: 11 }, 400, /<= 10/],
    [{ ...paint, scheduler: 'nonsense' }, 400, /scheduler/]
  ]
  for (const [body, status, words] of failures)
    try {
      await openai.images.generate(body as never)
      assert.unreachable()
    } catch (error) {
      assert.instance(error, OpenAI.APIError)
      assert.is((error as InstanceType<typeof OpenAI.APIError>).status, status)
      assert.match((error as Error).message, words)
    }
})

test('keys and origins', async () => {
  assert.is((await fetch(`${url}/v1/models`)).status, 401)
  assert.is((await fetch(`${url}/v1/models`, { headers: { authorization: 'Bearer wrong' } })).status, 401)
  const basic = { authorization: `Basic ${Buffer.from(`user:${key}`).toString('base64')}` }
  assert.is((await fetch(`${url}/sdapi/v1/samplers`, { headers: basic })).status, 200)
  assert.is((await fetch(`${url}/health`)).status, 200)
  const cors = async (origin: string): Promise<string | null> =>
    (await fetch(`${url}/health`, { headers: { origin } })).headers.get('access-control-allow-origin')
  assert.is(await cors('http://example.com'), 'http://example.com')
  assert.is(await cors('http://other.com'), null)
})

test('automatic1111: a client from npm paints, changes and reads pictures', async () => {
  // The client sends no key: a server without keys.
  const open = await createServer({ models: ['postcard'] })
  const client = sdWebUi({ apiUrl: await open.listen(0) })
  try {
    const { images, info, parameters } = await client.txt2img({
      prompt: '(a red circle:1.1) on a white background',
      negativePrompt: 'blue',
      samplingMethod: 'Euler a',
      width: 64,
      height: 64,
      steps: 4,
      cfgScale: 5,
      seed: 42,
      batchSize: 2
    })
    assert.is(images.length, 2)
    assert.ok(parameters)
    const text = readPngText(Buffer.from(images[1]!, 'base64')).parameters!
    assert.match(text, /Sampler: Euler a/)
    assert.match(text, /Seed: 43/)
    assert.equal((JSON.parse(info) as { all_seeds: number[] }).all_seeds, [42, 43])
    const again = await client.img2img({
      imageData: [images[0]!],
      prompt: 'a red circle',
      width: 64,
      height: 64,
      steps: 4,
      seed: 1,
      denoisingStrength: 0.5
    })
    assert.is(await sizeOf(again.images[0]!), '64x64 png')
    const read = await client.pngInfo({ imageData: `data:image/png;base64,${images[0]!}` })
    assert.equal([read.steps, read.seed], [4, 42])
  } finally {
    await open.close(true)
  }
})

test('automatic1111: lists, settings, progress, interruption, refusals', async () => {
  const names = (await json<{ name: string }[]>('/sdapi/v1/samplers')).map((s) => s.name)
  assert.ok(names.includes('DPM++ 2M') && names.includes('Euler a'))
  assert.ok((await json<{ label: string }[]>('/sdapi/v1/schedulers')).some((s) => s.label === 'Karras'))
  assert.equal(
    (await json<{ title: string }[]>('/sdapi/v1/sd-models')).map((m) => m.title),
    ['postcard', 'second']
  )
  await json('/sdapi/v1/options', { json: { sd_model_checkpoint: 'second [abcdef]' } })
  assert.is((await json('/sdapi/v1/options')).sd_model_checkpoint, 'second')
  assert.is((await ask('/sdapi/v1/options', { json: { sd_model_checkpoint: 'none' } })).status, 400)
  assert.is((await ask('/sdapi/v1/options', { json: { CLIP_stop_at_last_layers: 'x' } })).status, 400)
  await json('/sdapi/v1/options', { json: { sd_model_checkpoint: 'postcard' } })

  const long = json<{ images: string[]; info: string }>('/sdapi/v1/txt2img', {
    json: { prompt: 'a red circle', steps: 900, width: 64, height: 64, sampler_name: 'DPM++ 2M', scheduler: 'karras' }
  })
  await until(() => (server.painter.queue.running[0]?.last?.step ?? 0) > 11)
  const progress = await json<{ progress: number; state: { sampling_steps: number }; current_image: string }>(
    '/sdapi/v1/progress'
  )
  assert.is(await sizeOf(progress.current_image), '64x64 png')
  assert.ok(progress.progress > 0 && progress.progress < 1)
  assert.is(progress.state.sampling_steps, 900)
  assert.equal(await json('/sdapi/v1/interrupt', { json: {} }), {})
  const ended = await long
  assert.equal(ended.images, [])
  assert.is((JSON.parse(ended.info) as { interrupted: boolean }).interrupted, true)

  const size = { width: 64, height: 64, steps: 1, prompt: 'x' }
  for (const [body, words] of [
    [{ ...size, restore_faces: true }, /restore_faces/],
    [{ ...size, sampler_name: 'DPM adaptive' }, /DPM/],
    [{ ...size, seed: 1.5 }, /seed/]
  ] as const) {
    const refusal = await ask('/sdapi/v1/txt2img', { json: body })
    assert.is(refusal.status, 400)
    assert.match(await refusal.text(), words)
  }
  assert.is((await ask('/sdapi/v1/img2img', { json: { ...size, init_images: ['???'] } })).status, 400)
})

test('automatic1111: second pass, variations, masks', async () => {
  const base = { prompt: 'a red circle', width: 32, height: 32, steps: 3, seed: 5, sampler_name: 'Euler' }
  type Answer = { images: string[]; info: string; detail?: string }
  const paintWith = async (path: string, extra: object): Promise<{ size: string; text: string }> => {
    const answer = await json<Answer>(path, { json: { ...base, ...extra } })
    assert.ok(answer.images, answer.detail)
    const png = Buffer.from(answer.images[0]!, 'base64')
    return { size: await sizeOf(answer.images[0]!), text: readPngText(png).parameters! }
  }
  const large = await paintWith('/sdapi/v1/txt2img', {
    enable_hr: true,
    hr_scale: 2,
    hr_upscaler: 'Latent (bicubic)',
    hr_second_pass_steps: 2,
    denoising_strength: 0.6
  })
  assert.is(large.size, '64x64 png')
  for (const part of ['Denoising strength: 0.6', 'Hires upscaler: Latent (bicubic)', 'Hires steps: 2'])
    assert.ok(large.text.includes(part), `${part} in ${large.text}`)
  const varied = await paintWith('/sdapi/v1/txt2img', { subseed: 9, subseed_strength: 0.3, tiling: true })
  for (const part of ['Variation seed: 9', 'Variation seed strength: 0.3', 'Tiling: True'])
    assert.ok(varied.text.includes(part), `${part} in ${varied.text}`)
  const png = async (color: string, size: number): Promise<string> =>
    (
      await sharp({ create: { width: size, height: size, channels: 3, background: color } })
        .png()
        .toBuffer()
    ).toString('base64')
  const mask = await sharp({ create: { width: 96, height: 96, channels: 3, background: 'black' } })
    .composite([{ input: Buffer.from(await png('white', 24), 'base64'), left: 8, top: 8 }])
    .png()
    .toBuffer()
  const repaint = { init_images: [await png('#2f9e44', 96)], mask: mask.toString('base64'), inpaint_full_res: true }
  const inpainted = await json<Answer>('/sdapi/v1/img2img', {
    json: { ...base, ...repaint, mask_blur: 2, inpainting_fill: 1 }
  })
  assert.is(await sizeOf(inpainted.images[0]!), '96x96 png', 'the region is put back into the picture')
  const far = await sharp(Buffer.from(inpainted.images[0]!, 'base64'))
    .extract({ left: 70, top: 70, width: 20, height: 20 })
    .raw()
    .toBuffer()
  assert.equal([...far.subarray(0, 3)], [0x2f, 0x9e, 0x44], 'outside the mask the picture is what it was')
})

test('jobs: asked for, watched, fetched, cancelled', async () => {
  const job = await json<{ id: string; state: string }>('/api/jobs', {
    json: { task: 'txt2img', options: { ...paint, preview: true, count: 2 } }
  })
  const events = await (await ask(`/api/jobs/${job.id}/events`)).text()
  assert.ok(/event: step\ndata: .*"preview":"data:image\/webp/.test(events))
  const end = JSON.parse(/event: end\ndata: (.*)/.exec(events)![1]!) as {
    state: string
    images: { url: string; parameters: string }[]
  }
  assert.is(end.state, 'done')
  assert.match(end.images[0]!.parameters, /Steps: 3/)
  const picture = Buffer.from(await (await ask(end.images[1]!.url)).arrayBuffer())
  assert.is((await sharp(picture).metadata()).width, 64)
  const late = await (await ask(`/api/jobs/${job.id}/events`)).text()
  assert.match(late, /event: end/)

  const long = await json<{ id: string }>('/api/jobs', { json: { task: 'txt2img', options: { ...paint, steps: 900 } } })
  await ask(`/api/jobs/${long.id}`, { method: 'DELETE' })
  await until(() => server.painter.queue.running.length === 0)
  assert.is((await json(`/api/jobs/${long.id}`)).state, 'cancelled')

  assert.is((await ask('/api/jobs/none')).status, 404)
  for (const options of [{ onStep: 1 }, { loras: ['/etc/passwd'] }, { image: '/etc/passwd' }, { scheduler: {} }])
    assert.is((await ask('/api/jobs', { json: { task: 'img2img', options } })).status, 400, JSON.stringify(options))
})

test('a full queue refuses with 429; priorities go first; a client that goes away ends its job', async () => {
  const start = (priority: number, steps = 900): Promise<{ id: string }> =>
    json('/api/jobs', { json: { task: 'txt2img', priority, options: { ...paint, steps } } })
  const first = await start(0)
  const waiting = [await start(0), await start(5), await start(0), await start(10)]
  const positions = await Promise.all(waiting.map(({ id }) => json<{ position: number }>(`/api/jobs/${id}`)))
  assert.equal(
    positions.map((p) => p.position),
    [3, 2, 4, 1]
  )
  const refused = await ask('/v1/images/generations', { json: paint })
  assert.is(refused.status, 429)
  assert.ok(refused.headers.get('retry-after'))
  assert.match(await refused.text(), /rate_limit_error/)
  for (const { id } of [...waiting, first]) await ask(`/api/jobs/${id}`, { method: 'DELETE' })
  await until(() => server.painter.queue.running.length === 0)

  const stop = new AbortController()
  const leaving = ask('/v1/images/generations', { json: { ...paint, steps: 900 }, signal: stop.signal })
  await until(() => (server.painter.queue.running[0]?.last?.step ?? 0) > 1)
  const [job] = server.painter.queue.running
  stop.abort()
  await leaving.catch(() => {})
  await until(() => job!.state === 'cancelled')
})

test('two hundred requests: none lost, none twice', async () => {
  const crowd = await createServer({ models: ['postcard'], maxQueued: 200 })
  const base = await crowd.listen(0)
  try {
    const answers = await Promise.all(
      Array.from({ length: 200 }, async (_, seed) => {
        const response = await fetch(`${base}/v1/images/generations`, {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body: JSON.stringify({ ...paint, steps: 1, size: '16x16', seed })
        })
        assert.is(response.status, 200)
        const { data } = (await response.json()) as { data: { b64_json: string }[] }
        return readPngText(Buffer.from(data[0]!.b64_json, 'base64')).parameters!
      })
    )
    const seeds = answers.map((text) => Number(/Seed: (\d+)/.exec(text)![1]))
    assert.equal(
      seeds,
      Array.from({ length: 200 }, (_, i) => i)
    )
    const metrics = await (await fetch(`${base}/metrics`)).text()
    assert.match(metrics, /jobs_total\{task="txt2img",state="done"\} 200/)
    assert.match(metrics, /job_seconds_count\{task="txt2img"\} 200/)
  } finally {
    await crowd.close()
  }
})

test('the document lists the routes', async () => {
  const { paths } = await json<{ paths: Record<string, unknown> }>('/openapi.json')
  for (const path of ['/v1/images/generations', '/sdapi/v1/txt2img', '/api/jobs/{id}/events', '/metrics'])
    assert.ok(paths[path], path)
})

test('malformed requests are answered, not died of', async () => {
  for (const body of ['{', '[]', 'null', '"x"', '{"prompt":{}}', '\u0000', 'x'.repeat(10_000)])
    for (const path of ['/v1/images/generations', '/sdapi/v1/txt2img', '/api/jobs', '/sdapi/v1/png-info']) {
      const response = await fetch(url + path, {
        method: 'POST',
        headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
        body
      })
      assert.ok(response.status >= 400 && response.status < 500, `${path} ${body.slice(0, 20)}: ${response.status}`)
    }
  const form = await ask('/v1/images/edits', {
    method: 'POST',
    body: 'not a form',
    headers: { 'content-type': 'multipart/form-data; boundary=x' }
  })
  assert.ok(form.status >= 400 && form.status < 500, String(form.status))
})

test('the command serves, and ends its jobs when told to stop', async () => {
  const child = spawn(process.execPath, [join(root, 'dist', 'cli', 'main.js'), 'serve', '--port', '0'], {
    stdio: 'pipe'
  })
  let output = ''
  child.stdout.on('data', (data: Buffer) => (output += data.toString()))
  child.stderr.pipe(createWriteStream('/dev/null'))
  await until(() => /serves at (\S+)/.test(output))
  const address = /serves at (\S+)/.exec(output)![1]!
  const running = fetch(`${address}/v1/images/generations`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ ...paint, steps: 60 })
  })
  for (let i = 0; ; i++) {
    const metrics = await (await fetch(`${address}/metrics`)).text()
    if (/jobs_running 1/.test(metrics) || i > 200) break
  }
  child.kill('SIGTERM')
  assert.is((await running).status, 200)
  const code = await new Promise((resolve) => child.on('exit', resolve))
  assert.is(code, 0)
})

test.run()
