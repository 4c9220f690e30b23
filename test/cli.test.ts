import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import sharp from 'sharp'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { loadImage } from '#lib/image.js'
import { parseParameters } from '#lib/infotext.js'
import { readPngText } from '#lib/png-metadata.js'
import { reference, root } from './support/paths.js'

const test = suite('cli')
const folder = mkdtempSync(join(tmpdir(), 'nd-cli-'))
test.after(() => rmSync(folder, { recursive: true, force: true }))

interface Outcome {
  status: number | null
  stdout: string
  stderr: string
}

const cli = (args: string[], afterStderr?: (text: string, kill: () => void) => void): Promise<Outcome> =>
  new Promise((resolve) => {
    const child = spawn(process.execPath, [join(root, 'dist/cli/main.js'), ...args], { cwd: folder })
    const outcome: Outcome = { status: null, stdout: '', stderr: '' }
    child.stdout.setEncoding('utf8').on('data', (text: string) => (outcome.stdout += text))
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      outcome.stderr += text
      afterStderr?.(outcome.stderr, () => child.kill('SIGINT'))
    })
    child.on('close', (status) => resolve({ ...outcome, status }))
  })

const paint = ['a red circle on a blue background', '--steps', '3', '--guidance', '5', '--scheduler', 'DPM++ 2M Karras']

test('a picture with its parameters', async () => {
  const { status, stdout, stderr } = await cli([...paint, '-o', 'a.png', '--seed', '7', '--negative', 'green'])
  assert.is(status, 0, stderr)
  assert.is(stdout, 'a.png\n')
  assert.match(stderr, /3\/3 steps/)
  const image = await loadImage(join(folder, 'a.png'))
  assert.equal([image.width, image.height], [64, 64])
  const parameters = parseParameters(readPngText(readFileSync(join(folder, 'a.png'))).parameters!)
  assert.is(parameters.prompt, paint[0])
  assert.is(parameters.negativePrompt, 'green')
  assert.equal([parameters.steps, parameters.seed, parameters.cfgScale], [3, 7, 5])
  assert.equal([parameters.sampler, parameters.scheduleType], ['DPM++ 2M', 'Karras'])
  assert.equal([parameters.width, parameters.height], [64, 64])
})

test('score: which of the texts a picture shows', async () => {
  const texts = ['a green tree in the snow', 'a red circle on a blue background']
  const { status, stdout, stderr } = await cli(['score', 'a.png', ...texts])
  assert.is(status, 0, stderr)
  assert.match(stdout, /^ +[\d.]+ +[\d.]+ % {2}a red circle on a blue background\n +-?[\d.]+ +[\d.]+ % {2}a green tree/)
  const json = JSON.parse((await cli(['score', 'a.png', ...texts, '--json'])).stdout) as Record<string, unknown>[]
  assert.is(json[0]!.text, texts[1])
  const none = await cli(['score', 'none.png', ...texts])
  assert.is(none.status, 1)
  assert.match(none.stderr, /ERR_ND_INVALID_ARGUMENT.*none\.png/)
})

test('--lora and --embedding', async () => {
  const model = ['a my-style house', '-m', reference('models', 'tiny-sd15'), '--steps', '2', '--seed', '1', '--quiet']
  const lora = reference('loras', 'kohya.safetensors')
  const embedding = reference('models', 'tiny-embedding.safetensors')
  const pictures: Buffer[] = []
  for (const [i, more] of [
    [],
    ['--lora', `${lora}:0.5`],
    ['--lora', `${lora}:0.5`, '--lora', reference('loras', 'lokr.safetensors'), '--embedding', `${embedding}:my-style`]
  ].entries()) {
    const { status, stderr } = await cli([...model, ...more, '--width', '64', '--height', '64', '-o', `l${i}.png`])
    assert.is(status, 0, stderr)
    pictures.push(Buffer.from((await loadImage(join(folder, `l${i}.png`))).data))
  }
  assert.not.ok(pictures[0]!.equals(pictures[1]!))
  assert.not.ok(pictures[1]!.equals(pictures[2]!))
  const text = readPngText(readFileSync(join(folder, 'l2.png'))).parameters!
  assert.match(text, /^a my-style house <lora:kohya:0\.5> <lora:lokr:1>\n/)
  const { status, stderr } = await cli([...model, '--lora', `${lora}:much`])
  assert.is(status, 1)
  assert.match(stderr, /--lora/)
})

test('--controlnet and --adapter: models and pictures in pairs', async () => {
  const model = ['-m', reference('models', 'tiny-sd15'), '--steps', '2', '--seed', '1', '--quiet']
  const net = ['--controlnet', reference('models', 'tiny-controlnet-sd15'), '--control-image', 'grey.png']
  const adapter = ['--adapter', reference('models', 'tiny-t2i-adapter'), '--adapter-image', 'grey.png']
  const grey = sharp({ create: { width: 64, height: 64, channels: 3, background: '#888' } })
  await grey.png().toFile(join(folder, 'grey.png'))
  const scale = ['--control-scale', '0.7', ...net, '--control-scale', '0.4']
  const { status, stderr } = await cli(['a house', ...model, ...net, ...scale, ...adapter, '-o', 'steered.png'])
  assert.is(status, 0, stderr)
  const { other } = parseParameters(readPngText(readFileSync(join(folder, 'steered.png'))).parameters!)
  assert.match(other!['ControlNet 1']!, /Model: tiny-controlnet-sd15, Weight: 0.4/)
  assert.match(other!['ControlNet 2']!, /Model: tiny-t2i-adapter, Weight: 1/)
  const wrong = await cli(['a house', ...model, ...net, '--control-image', 'grey.png', '-o', 'wrong.png'])
  assert.is(wrong.status, 1)
  assert.match(wrong.stderr, /as many as models \(1\) for --control-image but received 2/)
})

test('--image and --mask: from a picture, and only a part of it', async () => {
  const source = await cli([...paint, '-o', 'source.png', '--seed', '3', '--quiet'])
  assert.is(source.status, 0, source.stderr)
  const mask = sharp({ create: { width: 64, height: 64, channels: 3, background: 'black' } })
  await mask.png().toFile(join(folder, 'black.png'))
  const from = [
    'a green tree',
    '--steps',
    '4',
    '--seed',
    '1',
    '--scheduler',
    'DDIM',
    '--image',
    'source.png',
    '--quiet'
  ]
  const changed = await cli([...from, '--strength', '0.75', '-o', 'changed.png'])
  assert.is(changed.status, 0, changed.stderr)
  const kept = await cli([...from, '--strength', '0.75', '--mask', 'black.png', '-o', 'kept.png'])
  assert.is(kept.status, 0, kept.stderr)
  const [a, b, c] = await Promise.all(['source', 'changed', 'kept'].map((f) => loadImage(join(folder, `${f}.png`))))
  const distance = (x: Uint8Array): number => x.reduce((sum, v, i) => sum + Math.abs(v - a!.data[i]!), 0) / x.length
  assert.ok(distance(c!.data) < 12, `an empty mask keeps the picture: ${distance(c!.data)}/255`)
  assert.ok(distance(b!.data) > distance(c!.data) + 5, 'the whole is painted anew')
  assert.match(readPngText(readFileSync(join(folder, 'changed.png'))).parameters!, /Denoising strength: 0\.75/)
  const without = await cli(['a tree', '--strength', '0.5'])
  assert.is(without.status, 1)
  assert.match(without.stderr, /--image/)
})

test('--count paints seed, seed + 1, …, the same as each alone; --quiet says nothing', async () => {
  const several = await cli([...paint, '-o', 'b.png', '--seed', '7', '--count', '2', '--quiet'])
  assert.is(several.status, 0, several.stderr)
  assert.is(several.stdout, 'b-1.png\nb-2.png\n')
  assert.is(several.stderr, '')
  const alone = await cli([...paint, '-o', 'c.png', '--seed', '8', '--quiet'])
  assert.is(alone.status, 0)
  const [second, single, first] = await Promise.all(
    ['b-2.png', 'c.png', 'b-1.png'].map((f) => loadImage(join(folder, f)))
  )
  assert.equal(second!.data, single!.data)
  assert.not.equal(second!.data, first!.data)
})

test('--show-steps writes a sheet of every step beside the picture', async () => {
  const { status, stdout, stderr } = await cli([...paint, '-o', 'd.webp', '--seed', '1', '--show-steps', '-q'])
  assert.is(status, 0, stderr)
  assert.is(stdout, 'd.webp\nd-steps.webp\n')
  const sheet = await loadImage(join(folder, 'd-steps.webp'))
  assert.ok(sheet.width > 128 && sheet.height > 128)
})

test('--animate writes the steps and the picture as a moving one', async () => {
  const { status, stdout, stderr } = await cli([
    ...paint,
    '-o',
    'moving.png',
    '--seed',
    '1',
    '--animate',
    'moving.webp',
    '-q'
  ])
  assert.is(status, 0, stderr)
  assert.is(stdout, 'moving.png\nmoving.webp\n')
  const { pages } = await sharp(join(folder, 'moving.webp'), { animated: true }).metadata()
  assert.ok(pages! > 2, String(pages))
})

test('--weights reads weights: brackets change the picture, and are text without it', async () => {
  const prompt = (text: string, ...more: string[]): string[] => [text, ...paint.slice(1), '--seed', '3', '-q', ...more]
  const plain = await cli(prompt('a red circle on a blue background', '-o', 'w0.png', '--weights'))
  const weighted = await cli(prompt('a (red:1.6) circle on a blue background', '-o', 'w1.png', '--weights'))
  const broken = await cli(prompt('a (red:1.6.1) circle', '-o', 'w2.png', '--weights'))
  assert.equal([plain.status, weighted.status, broken.status], [0, 0, 1], plain.stderr + weighted.stderr)
  assert.not.equal((await loadImage(join(folder, 'w0.png'))).data, (await loadImage(join(folder, 'w1.png'))).data)
  assert.match(broken.stderr, /Expected a number for a prompt weight/)
})

test('mistakes are one clear line and status 1', async () => {
  const cases: [string[], RegExp][] = [
    [['x', '-o', 'x.bmp'], /ERR_ND_INVALID_ARGUMENT: Expected a file name ending in .png/],
    [['x', '-o', 'none/x.png'], /Expected a folder that can be written to for --output/],
    [['x', '--model', 'nowhere'], /ERR_ND_MODEL_NOT_FOUND: /],
    [['x', '--animate', 'x.png'], /ERR_ND_INVALID_ARGUMENT: Expected a file name ending in .webp or .gif/],
    [['x', '--width', '63'], /ERR_ND_INVALID_ARGUMENT: Expected .* for width/],
    [['x', '--steps', '0'], /ERR_ND_INVALID_ARGUMENT: Expected .* for steps/],
    [['x', '--scheduler', 'Nonsense'], /ERR_ND_[A-Z_]+: .*Nonsense/],
    [['x', '--device', 'cuda'], /ERR_ND_CUDA_UNAVAILABLE: /]
  ]
  for (const [args, pattern] of cases) {
    const { status, stdout, stderr } = await cli([...args, '-q'])
    assert.is(status, 1, args.join(' '))
    assert.is(stdout, '')
    assert.match(stderr, pattern)
    assert.is(stderr.split('\n').length, 2, `one line: ${stderr}`)
  }
})

test('options that do not parse', async () => {
  for (const args of [
    ['x', '--steps', 'NaN'],
    ['x', '--seed', '-1'],
    ['x', '--count', '0'],
    ['x', '--stepps', '3'],
    ['x', '--rng', 'gpu']
  ]) {
    const { status, stderr } = await cli(args)
    assert.is(status, 1, args.join(' '))
    assert.match(stderr, /^error: /)
  }
})

test('--dtype is handed on', async () => {
  const { status, stderr } = await cli([...paint, '-o', 'dtype.png', '--device', 'cpu', '--dtype', 'float16'])
  assert.is(status, 1)
  assert.match(stderr, /ERR_ND_UNSUPPORTED.*dtype 'float16' is not supported on the CPU/)
  assert.not(existsSync(join(folder, 'dtype.png')))
})

test('a model that paints from text asks for a prompt', async () => {
  const { status, stderr } = await cli([])
  assert.is(status, 1)
  assert.match(stderr, /ERR_ND_INVALID_ARGUMENT: Expected what to paint for prompt/)
})

test('Ctrl-C ends a picture at once and leaves no file', async () => {
  let interrupted = false // a second one would end the process itself
  const { status, stderr } = await cli(['a cat', '--steps', '500', '-o', 'e.png'], (text, interrupt) => {
    if (!interrupted && text.includes('steps')) interrupt()
    interrupted ||= text.includes('steps')
  })
  assert.is(status, 130, stderr)
  assert.match(stderr, /node-diffusion: interrupted/)
  assert.not(existsSync(join(folder, 'e.png')))
  assert.equal(
    readdirSync(folder).filter((file) => file.endsWith('.tmp')),
    []
  )
})

test('inspect, as text and as JSON', async () => {
  const text = await cli(['inspect'])
  assert.is(text.status, 0, text.stderr)
  assert.match(text.stdout, /^node-diffusion \d+\.\d+\.\d+, Node\.js v/)
  assert.match(text.stdout, /scalar .*: available/)
  const json = await cli(['inspect', '--json'])
  const inspection = JSON.parse(json.stdout) as { isas: { name: string; supported: boolean }[]; backend: string }
  assert.ok(inspection.isas.some((isa) => isa.name === 'scalar' && isa.supported))
  assert.ok(inspection.backend.length > 0)
})

test('--help and --version', async () => {
  const help = await cli(['--help'])
  assert.is(help.status, 0)
  assert.match(help.stdout, /inspect/)
  const version = await cli(['--version'])
  const { version: expected } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string }
  assert.is(version.stdout.trim(), expected)
})

test.run()
