/** Models from a hub: files chosen, cache as Python's, broken connections, refusals. The server is test/support/mock-hub. */
import { cpSync, existsSync, lstatSync, mkdtempSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs'
import { createHash } from 'node:crypto'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Pipeline } from 'node-diffusion'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { componentFiles, neededFiles, parseRepo, parseRepoFolder, type RemoteFile } from '#lib/hub/select.js'
import { fails } from './support/fails.js'
import { commit, startHub, type MockHub } from './support/mock-hub.js'
import { reference } from './support/paths.js'
import { writeTinySingleFile } from './support/single-file.js'

const test = suite('hub')
const repo = 'tests/tiny-sd15'
const single = 'checkpoint.safetensors'
let folder: string
let hub: MockHub
const before = { ...process.env }

const fresh = (): string => mkdtempSync(join(folder, 'cache-'))
const load = (cacheDir: string, options: object = {}): Promise<Pipeline> =>
  Pipeline.fromPretrained(repo, { cacheDir, threads: 1, ...options })
const options = { prompt: 'a red house', steps: 2, seed: 1, width: 32, height: 32 }

test.before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'nd-hub-'))
  const model = join(folder, 'model')
  cpSync(reference('models', 'tiny-sd15'), model, { recursive: true })
  // What a download must leave alone.
  writeFileSync(join(model, 'unet', 'diffusion_pytorch_model.bin'), 'pickle')
  writeFileSync(join(model, 'unet', 'model.onnx'), 'graph')
  writeFileSync(join(model, 'README.md'), 'card')
  cpSync(reference('loras', 'kohya.safetensors'), join(model, 'loras', 'style.safetensors'))
  writeFileSync(join(model, single), readFileSync(join(model, 'vae', 'diffusion_pytorch_model.safetensors')))
  hub = await startHub(repo, model)
  process.env.HF_ENDPOINT = hub.url
  process.env.HF_HOME = join(folder, 'home')
  delete process.env.HF_TOKEN
  delete process.env.HF_HUB_OFFLINE
})
test.before.each(() => {
  Object.assign(hub, { breakAfter: undefined, failWith: undefined, corrupt: undefined, requiredToken: undefined })
  hub.requests.length = 0
})
test.after(async () => {
  await hub.close()
  process.env = before
  rmSync(folder, { recursive: true, force: true })
})

const asked = (): string[] => hub.requests.map(({ line }) => line)

test('a model is downloaded once, into Python’s layout, and paints as its folder does', async () => {
  const cache = fresh()
  const progress: { file?: string; loaded: number; total: number; component: string }[] = []
  const pipe = await load(cache, { onProgress: (event: (typeof progress)[0]) => progress.push(event) })
  const local = await Pipeline.fromPretrained(reference('models', 'tiny-sd15'), { threads: 1 })
  const [a, b] = [await pipe.txt2img(options), await local.txt2img(options)]
  assert.equal(a.images[0]!.data, b.images[0]!.data)
  await pipe.dispose()
  await local.dispose()

  const base = join(cache, 'models--tests--tiny-sd15')
  assert.is(readFileSync(join(base, 'refs', 'main'), 'utf8'), commit)
  const weights = join(base, 'snapshots', commit, 'unet', 'diffusion_pytorch_model.safetensors')
  assert.ok(lstatSync(weights).isSymbolicLink())
  const sha = createHash('sha256').update(readFileSync(weights)).digest('hex')
  assert.is(readlinkSync(weights), join('..', '..', '..', 'blobs', sha))
  for (const file of ['unet/diffusion_pytorch_model.bin', 'unet/model.onnx', 'README.md', single])
    assert.not.ok(existsSync(join(base, 'snapshots', commit, file)), file)

  const bytes = progress.filter((event) => event.component === 'download')
  assert.ok(
    bytes.every((event, i) => i === 0 || event.total !== bytes[i - 1]!.total || event.loaded >= bytes[i - 1]!.loaded)
  )
  assert.is(bytes.at(-1)!.loaded, bytes.at(-1)!.total)

  hub.requests.length = 0
  await (await load(cache)).dispose()
  assert.is(asked().filter((line) => line.includes('/resolve/')).length, 0, 'nothing is downloaded again')
})

test('a broken connection goes on where it ended', async () => {
  hub.breakAfter = { bytes: 100_000, times: 6 }
  await (await load(fresh())).dispose()
  const starts = hub.requests.map(({ range }) => Number(/^bytes=(\d+)-/.exec(range ?? '')?.[1] ?? 0))
  assert.ok(
    starts.some((start) => start >= 100_000),
    starts.join()
  )
  assert.is(hub.breakAfter.times, 0)
})

test('a download that was given up goes on in the next call', async () => {
  const cache = fresh()
  hub.breakAfter = { bytes: 50_000, times: 1 }
  const stop = new AbortController()
  const aborted = load(cache, {
    signal: stop.signal,
    onProgress: (e: { loaded: number }) => {
      if (e.loaded > 400_000) stop.abort(new Error('enough'))
    }
  })
  await aborted.then(
    () => assert.unreachable(),
    (error: Error) => assert.is(error.message, 'enough')
  )
  await (await load(cache)).dispose()
})

test('a file that is not what its hash says is refused', async () => {
  hub.corrupt = /^unet\/.*safetensors$/
  await fails(() => load(fresh()), 'ERR_ND_DOWNLOAD', /unet.*SHA-256.*twice/)
  hub.corrupt = /^scheduler\//
  await fails(() => load(fresh()), 'ERR_ND_DOWNLOAD', /scheduler.*git object id/)
})

test('offline, the cache is read; a hub that fails is replaced by the cache, with a warning', async () => {
  const cache = fresh()
  await fails(() => load(cache, { localFilesOnly: true }), 'ERR_ND_MODEL_NOT_FOUND', /cache/)
  await (await load(cache)).dispose()
  hub.requests.length = 0
  process.env.HF_HUB_OFFLINE = '1'
  await (await load(cache)).dispose()
  delete process.env.HF_HUB_OFFLINE
  assert.equal(hub.requests, [])
  hub.failWith = 503
  const pipe = await load(cache)
  assert.match(pipe.warnings[0]!, /503|cache/)
  await pipe.dispose()
  await fails(() => load(fresh()), 'ERR_ND_DOWNLOAD', /could not be asked/)
})

test('tokens: asked for, given, stored', async () => {
  hub.requiredToken = 'hf_secret'
  await fails(() => load(fresh()), 'ERR_ND_ACCESS', /HF_TOKEN/)
  await (await load(fresh(), { token: 'hf_secret' })).dispose()
  process.env.HF_TOKEN = 'hf_secret'
  await (await load(fresh())).dispose()
  await fails(() => load(fresh(), { token: false }), 'ERR_ND_ACCESS', /401/)
  delete process.env.HF_TOKEN
})

test('what is not there is said', async () => {
  await fails(
    () => Pipeline.fromPretrained('tests/other', { cacheDir: fresh() }),
    'ERR_ND_MODEL_NOT_FOUND',
    /tests\/other/
  )
  await fails(() => load(fresh(), { revision: 'v9' }), 'ERR_ND_MODEL_NOT_FOUND', /v9/)
  await fails(() => load(fresh(), { variant: 'fp8' }), 'ERR_ND_MODEL_NOT_FOUND', /fp8/)
  await fails(() => load(fresh(), { revision: '../x' }), 'ERR_ND_INVALID_ARGUMENT', /revision/)
  await fails(
    () => Pipeline.fromPretrained(`${repo}/no.safetensors`, { cacheDir: fresh() }),
    'ERR_ND_MODEL_NOT_FOUND',
    /no\.safetensors/
  )
})

test('single files: from a repository and from an address, with their hash', async () => {
  // The file is a VAE alone: that it is refused as one shows that it came.
  const cacheDir = fresh()
  const vae = /VAE/
  await fails(() => Pipeline.fromPretrained(`${repo}/${single}`, { cacheDir }), 'ERR_ND_UNSUPPORTED', vae)
  const url = `${hub.url}/files/${single}`
  hub.breakAfter = { bytes: 100_000, times: 3 }
  await fails(() => Pipeline.fromPretrained(url, { cacheDir }), 'ERR_ND_UNSUPPORTED', vae)
  hub.requests.length = 0
  await fails(() => Pipeline.fromPretrained(url, { cacheDir }), 'ERR_ND_UNSUPPORTED', vae)
  assert.equal(asked(), [])
  const sha256 = createHash('sha256')
    .update(readFileSync(reference('models', 'tiny-sd15', 'vae', 'diffusion_pytorch_model.safetensors')))
    .digest('hex')
  await fails(() => Pipeline.fromPretrained(url, { cacheDir, sha256 }), 'ERR_ND_UNSUPPORTED', vae)
  await fails(() => Pipeline.fromPretrained(url, { cacheDir, sha256: '0'.repeat(64) }), 'ERR_ND_DOWNLOAD', /SHA-256/)
  const missing = `${hub.url}/files/no.safetensors`
  await fails(() => Pipeline.fromPretrained(missing, { cacheDir }), 'ERR_ND_MODEL_NOT_FOUND', /404/)
  await fails(
    () => Pipeline.fromPretrained('http://example.com/a.safetensors', { cacheDir }),
    'ERR_ND_INVALID_ARGUMENT',
    /https/
  )
  await fails(
    () => Pipeline.fromPretrained(`${hub.url}/files/a.zip`, { cacheDir }),
    'ERR_ND_INVALID_ARGUMENT',
    /safetensors/
  )
})

test('two calls at once share one download', async () => {
  const cache = fresh()
  const pipes = await Promise.all([load(cache), load(cache)])
  for (const pipe of pipes) await pipe.dispose()
  const unet = hub.requests.filter(({ line, range }) => /unet.*safetensors/.test(line) && range !== 'bytes=0-0')
  assert.is(unet.length, 1)
})

test('vae: a component of a repository, alone or in a model; a file of it; an address', async () => {
  const model = reference('models', 'tiny-sd15')
  const folder = await Pipeline.fromPretrained(model, { threads: 1 })
  const { images } = await folder.txt2img(options)
  await folder.dispose()
  for (const [vae, downloaded] of [
    [repo, ['vae/config.json', 'vae/diffusion_pytorch_model.safetensors']],
    [`${repo}/vae`, ['vae/config.json', 'vae/diffusion_pytorch_model.safetensors']]
  ] as const) {
    hub.requests.length = 0
    const cacheDir = fresh()
    const progress: string[] = []
    const pipe = await Pipeline.fromPretrained(model, {
      vae,
      cacheDir,
      threads: 1,
      onProgress: ({ file }) => file !== undefined && progress.push(file)
    })
    assert.equal((await pipe.txt2img(options)).images[0]!.data, images[0]!.data, vae)
    await pipe.dispose()
    assert.equal([...new Set(progress)].sort(), [...downloaded], vae)
    // The cache is enough afterwards; the revision is the model's own and not the VAE's.
    hub.requests.length = 0
    const again = await Pipeline.fromPretrained(model, { vae, cacheDir, localFilesOnly: true, revision: 'v9' })
    await again.dispose()
    assert.equal(asked(), [])
  }
  // A file in the diffusers layout by itself lacks its config: that it is refused as one shows that it came.
  for (const vae of [`${repo}/${single}`, `${hub.url}/files/${single}`])
    await fails(() => Pipeline.fromPretrained(model, { vae, cacheDir: fresh() }), 'ERR_ND_UNSUPPORTED', /config\.json/)
  const cacheDir = fresh()
  const load = (vae: string, more: object = {}): Promise<Pipeline> =>
    Pipeline.fromPretrained(model, { vae, cacheDir, ...more })
  await fails(() => load(`${repo}/other`), 'ERR_ND_MODEL_NOT_FOUND', /other\/config\.json/)
  await fails(() => load(`${repo}/unet`), 'ERR_ND_UNSUPPORTED', /UNet2DConditionModel/)
  await fails(() => load('tests/none'), 'ERR_ND_MODEL_NOT_FOUND', /tests\/none/)
  await fails(() => load(repo, { localFilesOnly: true, cacheDir: fresh() }), 'ERR_ND_MODEL_NOT_FOUND', /cache/)
  await fails(() => load('vae.ckpt'), 'ERR_ND_UNSUPPORTED', /pickled/)
})

test('a folder of a whole model stands for its autoencoder, previews have one from the hub', async () => {
  const model = reference('models', 'tiny-sd15')
  const pipe = await Pipeline.fromPretrained(model, { vae: model, previewVae: repo, cacheDir: fresh(), threads: 1 })
  const previews: number[] = []
  await pipe.txt2img({
    ...options,
    preview: { every: 1 },
    onStep: ({ image }) => image && void previews.push(image.width)
  })
  assert.equal(previews, [32, 32])
  await pipe.dispose()
})

test('config: settings and tokenizers of a repository for a single file, without its weights', async () => {
  const file = join(folder, 'whole.safetensors')
  writeTinySingleFile('sd15', file)
  const bySetting = await Pipeline.fromPretrained(file, { config: reference('models', 'tiny-sd15'), threads: 1 })
  const expected = (await bySetting.txt2img(options)).images[0]!
  await bySetting.dispose()
  hub.requests.length = 0
  const pipe = await Pipeline.fromPretrained(file, { config: repo, cacheDir: fresh(), threads: 1 })
  assert.equal((await pipe.txt2img(options)).images[0]!.data, expected.data)
  await pipe.dispose()
  assert.equal(
    asked().filter((line) => line.includes('.safetensors')),
    []
  )
  assert.ok(asked().some((line) => line.includes('tokenizer/vocab.json')))
  await fails(
    () => Pipeline.fromPretrained(file, { config: 'tests/none', cacheDir: fresh() }),
    'ERR_ND_MODEL_NOT_FOUND',
    /tests\/none/
  )
})

test('a LoRA from a repository or an address', async () => {
  const pipe = await Pipeline.fromPretrained(reference('models', 'tiny-sd15'), { threads: 1 })
  const paint = async (): Promise<Uint8Array> => (await pipe.txt2img(options)).images[0]!.data
  await pipe.loadLora(reference('loras', 'kohya.safetensors'))
  const expected = await paint()
  await pipe.unloadLora()
  for (const source of [`${repo}/loras/style.safetensors`, `${hub.url}/files/loras/style.safetensors`]) {
    await pipe.loadLora(source)
    assert.is(pipe.loras[0]!.name, 'style')
    assert.equal(await paint(), expected, source)
    await pipe.unloadLora()
  }
  await fails(() => pipe.loadLora(`${repo}/loras/none.safetensors`), 'ERR_ND_MODEL_NOT_FOUND', /none/)
  await pipe.dispose()
})

test('weights of one component: the plain ones, else in half precision, or the variant that is asked for', () => {
  const plain = 'diffusion_pytorch_model.safetensors'
  const half = 'diffusion_pytorch_model.fp16.safetensors'
  const chosen = (variant: string | undefined, ...names: string[]): string[] =>
    componentFiles('r', remote('v/config.json', ...names.map((n) => `v/${n}`), 'v/x/y.json'), 'v/', variant)
      .map((file) => file.path.slice(2))
      .slice(1)
  assert.equal(chosen(undefined, half, plain), [plain])
  assert.equal(chosen(undefined, half), [half])
  assert.equal(chosen('fp16', half, plain), [half])
  assert.throws(() => chosen('fp16', plain), /fp16/)
  assert.throws(() => chosen(undefined, 'diffusion_pytorch_model.bin'), /pickled/)
  assert.throws(() => chosen(undefined), /safetensors/)
})

const remote = (...paths: string[]): RemoteFile[] =>
  paths.map((path) => ({ path, size: 1, etag: '0'.repeat(40), hash: 'git' }))
const index = {
  _class_name: 'X',
  unet: ['diffusers', 'UNet2DConditionModel'],
  safety_checker: ['a', 'b'],
  old: [null, null]
}

test('weights: fp16 where there is such a variant, shards with their index, never pickles', () => {
  const chosen = (variant: string | undefined, ...paths: string[]): string[] =>
    neededFiles(
      'r',
      remote('model_index.json', 'unet/config.json', 'safety_checker/model.safetensors', ...paths),
      index,
      variant
    )
      .map((file) => file.path)
      .filter((path) => !path.endsWith('config.json') && path !== 'model_index.json')
      .sort()
  const plain = 'unet/diffusion_pytorch_model.safetensors'
  const half = 'unet/diffusion_pytorch_model.fp16.safetensors'
  assert.equal(chosen(undefined, plain, half, 'unet/diffusion_pytorch_model.bin'), [half])
  assert.equal(chosen('fp16', plain, half), [half])
  assert.equal(chosen(undefined, plain, 'unet/diffusion_pytorch_model.non_ema.safetensors'), [plain])
  assert.equal(chosen('non_ema', plain, 'unet/diffusion_pytorch_model.non_ema.safetensors'), [
    'unet/diffusion_pytorch_model.non_ema.safetensors'
  ])
  const shards = [1, 2].map((i) => `unet/diffusion_pytorch_model-0000${i}-of-00002.safetensors`)
  const list = 'unet/diffusion_pytorch_model.safetensors.index.json'
  assert.equal(chosen(undefined, ...shards, list), [...shards, list].sort())
  const halves = [1, 2].map((i) => `unet/diffusion_pytorch_model.fp16-0000${i}-of-00002.safetensors`)
  const halfList = 'unet/diffusion_pytorch_model.fp16.safetensors.index.json'
  assert.equal(chosen(undefined, ...shards, list, ...halves, halfList), [...halves, halfList].sort())
  assert.throws(() => chosen(undefined, 'unet/diffusion_pytorch_model.bin'), /pickled/)
  assert.throws(() => chosen('fp16', plain), /fp16/)
})

test('what is a repository and what is a path', () => {
  assert.equal(parseRepo('org/name'), { repo: 'org/name', file: undefined })
  assert.equal(parseRepo('org/name/a/b.safetensors'), { repo: 'org/name', file: 'a/b.safetensors' })
  for (const path of ['name', './org/name', '../a/b', '/a/b', 'a/b.safetensors', 'a/b/c', 'a/../b/c.safetensors'])
    assert.is(parseRepo(path), undefined, path)
  assert.equal(parseRepoFolder('org/name'), { repo: 'org/name', folder: '' })
  assert.equal(parseRepoFolder('org/name/a/vae'), { repo: 'org/name', folder: 'a/vae/' })
  for (const path of ['name', './org/name', '/a/b', 'a/../b', 'a/b.safetensors', 'a/b/c.safetensors'])
    assert.is(parseRepoFolder(path), undefined, path)
})

test.run()
