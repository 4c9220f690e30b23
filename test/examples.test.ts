/** Every program of examples/ runs, with the bundled model. */
import { spawn, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import sharp from 'sharp'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { loadImage } from '#lib/image.js'
import { root } from './support/paths.js'

const test = suite('examples')
const folder = mkdtempSync(join(tmpdir(), 'nd-examples-'))
test.after(() => rmSync(folder, { recursive: true, force: true }))

const example = (name: string): string => join(root, 'examples', name)
const run = (name: string, ...args: string[]) =>
  spawnSync(process.execPath, [example(name), ...args], { cwd: folder, encoding: 'utf8', timeout: 300_000 })

test('each one is listed, and tested here', () => {
  const programs = readdirSync(join(root, 'examples')).filter((file) => file.endsWith('.mjs'))
  const list = readFileSync(example('README.md'), 'utf8')
  const here = readFileSync(join(root, 'test', 'examples.test.ts'), 'utf8')
  for (const program of programs) {
    assert.ok(list.includes(`(${program})`), program)
    assert.ok(here.includes(`'${program}'`), program)
  }
})

test('batch: rows of CSV and JSON, bad rows told, and no picture twice', async () => {
  writeFileSync(
    join(folder, 'prompts.csv'),
    'prompt,steps,seed,file\r\n"a red house, ""old"", on a beach",2,7,house.png\r\na blue boat,2,,\r\nbad row,none,1,bad.png\r\n'
  )
  const first = run('batch.mjs', 'prompts.csv', 'csv')
  assert.is(first.status, 1, first.stderr)
  assert.match(first.stderr, /row 3: Expected .* for steps/)
  assert.equal(readdirSync(join(folder, 'csv')).sort(), ['0002.png', 'house.png'])
  assert.match(first.stdout, /a red house, "old", on a beach/)
  assert.not.match(run('batch.mjs', 'prompts.csv', 'csv').stdout, /house\.png/)
  const rows = [{ prompt: 'a red house, "old", on a beach', steps: 2, seed: 7 }]
  writeFileSync(join(folder, 'prompts.json'), JSON.stringify(rows))
  const json = run('batch.mjs', 'prompts.json', 'json')
  assert.is(json.status, 0, json.stderr)
  const [a, b] = [await loadImage(join(folder, 'csv', 'house.png')), await loadImage(join(folder, 'json', '0001.png'))]
  assert.equal(a.data, b.data)
})

test('video: every frame, and an animation of them', async () => {
  mkdirSync(join(folder, 'frames'))
  for (const i of [1, 2])
    await sharp({ create: { width: 64, height: 64, channels: 3, background: { r: 100 * i, g: 90, b: 160 } } })
      .png()
      .toFile(join(folder, 'frames', `${i}.png`))
  const { status, stderr } = run('video-frames.mjs', 'frames', 'video', 'a lighthouse', '0.2')
  assert.is(status, 0, stderr)
  assert.equal(readdirSync(join(folder, 'video')).sort(), ['1.png', '2.png', 'animation.webp'])
  assert.is((await sharp(join(folder, 'video', 'animation.webp'), { animated: true }).metadata()).pages, 2)
})

test('pool: every prompt by some worker', () => {
  const { status, stdout, stderr } = run('worker-pool.mjs', '2', 'a red house', 'a blue boat', 'a green tree')
  assert.is(status, 0, stderr)
  assert.is(stdout.match(/^worker [12]: worker-pool-\d\.png in/gm)?.length, 3, stdout)
  for (const i of [1, 2, 3]) assert.ok(statSync(join(folder, `worker-pool-${i}.png`)).size > 1000)
})

test('route: a picture, a stream of steps, a refusal; and it ends when told to', async () => {
  const server = spawn(process.execPath, [example('http-route.mjs'), '0'], { stdio: ['ignore', 'pipe', 'inherit'] })
  try {
    const address = await new Promise<string>((resolve, reject) => {
      server.stdout.once('data', (text: Buffer) => resolve(text.toString().trim()))
      server.once('exit', (code) => reject(new Error(`ended with ${code}`)))
    })
    const url = address.replace(/\/\/[^:]+:/, '//localhost:')
    const picture = await fetch(`${url}/picture?prompt=a+red+house&steps=2&seed=7`)
    assert.is(picture.headers.get('content-type'), 'image/png')
    const image = await loadImage(new Uint8Array(await picture.arrayBuffer()))
    assert.is(image.width, 64)
    const text = await (await fetch(`${url}/stream?prompt=a+red+house&steps=10&seed=7`)).text()
    const events = [...text.matchAll(/^event: (\w+)\ndata: (.*)$/gm)].map(
      (m) => [m[1]!, JSON.parse(m[2]!) as { preview?: string; png?: string }] as const
    )
    const names = events.map(([name]) => name)
    assert.is(names.pop(), 'picture')
    assert.ok(names.length >= 10 && names.every((name) => name === 'step'), names.join())
    assert.ok(events.filter(([, data]) => data.preview).length >= 2)
    assert.is((await loadImage(Buffer.from(events.at(-1)![1].png!, 'base64'))).width, 64)
    assert.is((await fetch(`${url}/picture?steps=2`)).status, 400)
  } finally {
    const ended = new Promise((resolve) => server.once('exit', resolve))
    server.kill('SIGTERM')
    assert.is(await ended, 0)
  }
})

test.run()
