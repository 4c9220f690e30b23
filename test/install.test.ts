/**
 * What users get: the package as npm packs it, installed into an empty folder without scripts, where there is no compiler, paints
 * as ES module, as CommonJS, in a worker thread and from the command line, and has types.
 */
import { execFileSync, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync
} from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { checkPackage, createPackageFromTarballData } from '@arethetypeswrong/core'
import { publint } from 'publint'
import { formatMessage } from 'publint/utils'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { root } from './support/paths.js'

const test = suite('install')
const folder = mkdtempSync(join(tmpdir(), 'nd-install-'))
const consumer = join(folder, 'consumer')
/** The largest tarball that may be published. */
const mebibytes = 24

interface Packed {
  filename: string
  size: number
  unpackedSize: number
  integrity: string
  files: { path: string; size: number }[]
}
let packed: Packed
let tarball: string

const npm = (cwd: string, ...args: string[]) =>
  spawnSync('npm', [...args, '--no-audit', '--no-fund', '--ignore-scripts'], {
    cwd,
    encoding: 'utf8',
    shell: process.platform === 'win32'
  })

/** A lock file for the packed package with the versions of this repository's, so that what npm has cached is enough. */
const writeLock = (): void => {
  const read = (name: string) => JSON.parse(readFileSync(join(root, name), 'utf8')) as Record<string, any>
  const { dependencies, engines, bin, version } = read('package.json')
  const { packages } = read('package-lock.json') as { packages: Record<string, { dev?: boolean }> }
  const used = Object.fromEntries(Object.entries(packages).filter(([path, entry]) => path !== '' && !entry.dev))
  const own = { name: 'consumer', version: '1.0.0', dependencies: { 'node-diffusion': `file:${packed.filename}` } }
  writeFileSync(join(consumer, 'package.json'), JSON.stringify({ ...own, private: true }))
  const installed = {
    version,
    resolved: `file:${packed.filename}`,
    integrity: packed.integrity,
    dependencies,
    bin,
    engines
  }
  writeFileSync(
    join(consumer, 'package-lock.json'),
    JSON.stringify({
      ...own,
      lockfileVersion: 3,
      packages: { '': own, 'node_modules/node-diffusion': installed, ...used }
    })
  )
}

test.before(() => {
  execFileSync(process.execPath, [join(root, 'tools', 'prebuild.mjs'), '--no-build'], { stdio: 'pipe' })
  mkdirSync(consumer)
  const { stdout, stderr, status } = npm(root, 'pack', '--json', '--pack-destination', consumer)
  assert.is(status, 0, stderr)
  packed = (JSON.parse(stdout) as Packed[])[0]!
  tarball = join(consumer, packed.filename)
  writeLock()
  const offline = npm(consumer, 'ci', '--offline')
  if (offline.status === 0) return
  const online = npm(consumer, 'ci')
  assert.is(online.status, 0, offline.stderr + online.stderr)
})
test.after(() => rmSync(folder, { recursive: true, force: true }))

/** Runs Node in the consumer's folder, with nothing but Node on the PATH. */
const node = (...args: string[]): string => {
  const bin = join(folder, 'bin')
  mkdirSync(bin, { recursive: true })
  rmSync(join(bin, 'node'), { force: true })
  symlinkSync(process.execPath, join(bin, 'node'))
  const { status, stdout, stderr, signal } = spawnSync(process.execPath, args, {
    cwd: consumer,
    encoding: 'utf8',
    timeout: 300_000,
    env: { PATH: bin, HOME: folder, SystemRoot: process.env.SystemRoot }
  })
  assert.is(status, 0, `${signal}\n${stdout}${stderr}`)
  return stdout
}

const write = (name: string, code: string): string => {
  writeFileSync(join(consumer, name), code)
  return name
}

const paint = `
  const pipe = await Pipeline.fromPretrained('postcard')
  const { images } = await pipe.txt2img({ prompt: 'a red house on a beach', steps: 4, seed: 7 })
  await pipe.dispose()`
const hash = `createHash('sha256').update(images[0].data).digest('hex')`

test('the tarball: what is needed, and a bounded size', () => {
  const mib = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(1)} MiB`
  console.log(
    `  ${packed.filename}: ${mib(packed.size)}, ${mib(packed.unpackedSize)} unpacked, ${packed.files.length} files`
  )
  assert.ok(packed.size < mebibytes * 2 ** 20, mib(packed.size))
  const paths = packed.files.map(({ path }) => path)
  for (const path of [
    'README.md',
    'LICENSE',
    'CHANGELOG.md',
    'dist/index.js',
    'dist/index.d.ts',
    'dist/cjs/index.js',
    'models/postcard/model_index.json',
    'CMakeLists.txt',
    'cmake/portable.cmake',
    'tools/build.mjs',
    'tools/process.mjs'
  ])
    assert.ok(paths.includes(path), path)
  assert.ok(paths.some((path) => path.startsWith(`prebuilds/${process.platform}-${process.arch}/node-diffusion`)))
  const strangers = paths.filter((path) => /^(test|bench|build|node_modules|\.ci|docs)\/|\.log$|\.tgz$/.test(path))
  assert.equal(strangers, [])
  const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { scripts: Record<string, string> }
  for (const script of ['preinstall', 'install', 'postinstall', 'prepare'])
    assert.is(manifest.scripts[script], undefined)
})

test('the prebuilt addon needs an old system only, and shows nothing but its entry', async () => {
  if (process.platform !== 'linux') return console.log('  skip: not on Linux')
  const { complaints, examine } = (await import(pathToFileURL(join(root, 'tools', 'prebuild.mjs')).href)) as {
    examine: (path: string) => { glibc: string; libraries: string[]; exported: string[] }
    complaints: (found: { glibc: string; libraries: string[]; exported: string[] }) => string[]
  }
  const place = join(consumer, 'node_modules', 'node-diffusion', 'prebuilds', `linux-${process.arch}`)
  const found = examine(join(place, 'node-diffusion.glibc.node'))
  assert.equal(complaints(found), [])
  assert.match(found.glibc, /^2\.\d+$/)
  assert.ok(found.exported.includes('napi_register_module_v1'))
  assert.is(complaints({ ...found, glibc: '2.29', libraries: ['libstdc++.so.6'], exported: ['malloc'] }).length, 3)
})

test('an ES module paints', () => {
  const file = write(
    'esm.mjs',
    `import { createHash } from 'node:crypto'
    import { Pipeline } from 'node-diffusion'
    import { createServer } from 'node-diffusion/server'
    ${paint}
    await images[0].save('esm.png')
    console.log(${hash}, typeof createServer)`
  )
  const [sum, server] = node(file).trim().split(' ')
  assert.is(server, 'function')
  assert.ok(statSync(join(consumer, 'esm.png')).size > 1000)
  const cjs = write(
    'cjs.cjs',
    `const { createHash } = require('node:crypto')
    const { Pipeline } = require('node-diffusion')
    const main = async () => {${paint}
      console.log(${hash})
    }
    main()`
  )
  assert.is(node(cjs).trim(), sum, 'and CommonJS the same picture')
  const worker = write(
    'worker.mjs',
    `import { Worker } from 'node:worker_threads'
    const workers = [1, 2].map(() => new Worker(new URL('./in-worker.mjs', import.meta.url)))
    const said = workers.map((worker) => new Promise((ok, no) => worker.once('message', ok).once('error', no)))
    console.log((await Promise.all(said)).join('\\n'))`
  )
  write(
    'in-worker.mjs',
    `import { createHash } from 'node:crypto'
    import { parentPort } from 'node:worker_threads'
    import { Pipeline } from 'node-diffusion'
    ${paint}
    parentPort.postMessage(${hash})`
  )
  assert.equal(node(worker).trim().split('\n'), [sum, sum], 'and two worker threads')
})

test('the command paints, and loads the prebuilt addon', () => {
  const command = join('node_modules', 'node-diffusion', 'dist', 'cli', 'main.js')
  node(command, 'a white sailboat', '-o', 'boat.png', '--steps', '2', '--seed', '1', '--quiet')
  assert.ok(statSync(join(consumer, 'boat.png')).size > 1000)
  const loaded = node(
    '--input-type=module',
    '-e',
    `import { inspect } from 'node-diffusion'
    inspect()
    console.log(process.report.getReport().sharedObjects.filter((path) => path.endsWith('.node')).join('\\n'))`
  )
  assert.match(loaded, /node-diffusion[\\/]prebuilds[\\/].*node-diffusion.*\.node/)
})

test('types, for both module systems', () => {
  const use = `
    const main = async (): Promise<number> => {
      const pipe: Pipeline = await Pipeline.fromPretrained('postcard', { device: 'cpu' })
      const { images, seeds } = await pipe.txt2img({ prompt: 'x', steps: 2, onStep: ({ step }) => void step })
      const seed: bigint | number | null | undefined = seeds[0]
      // @ts-expect-error a prompt is text
      await pipe.txt2img({ prompt: 1 })
      return images[0]!.width + (seed === null ? 1 : 0)
    }
    export const run = main`
  write('types.mts', `import { Pipeline } from 'node-diffusion'\n${use}`)
  write('types.cts', `import { Pipeline } from 'node-diffusion'\n${use}`)
  const compilerOptions = {
    module: 'nodenext',
    target: 'es2022',
    strict: true,
    noEmit: true,
    types: [],
    skipLibCheck: true
  }
  write('tsconfig.json', JSON.stringify({ compilerOptions, files: ['types.mts', 'types.cts'] }))
  const tsc = createRequire(join(root, 'package.json')).resolve('typescript/bin/tsc')
  node(tsc, '-p', '.')
})

test('attw: types resolve and are right in every way of importing', async () => {
  const { types, problems } = (await checkPackage(createPackageFromTarballData(readFileSync(tarball)))) as {
    types: unknown
    problems: { kind: string; resolutionKind?: string; entrypoint?: string }[]
  }
  assert.ok(types)
  // TypeScript's resolution of Node 10 knows no `exports`; this package needs Node 20.
  const real = problems.filter(({ resolutionKind }) => resolutionKind !== 'node10')
  assert.equal(real, [])
})

test('publint: the manifest is right', async () => {
  const data = readFileSync(tarball)
  const { messages, pkg } = await publint({
    pack: { tarball: data.buffer.slice(data.byteOffset, data.byteOffset + data.length) as ArrayBuffer },
    strict: true
  })
  assert.equal(
    messages.filter(({ type }) => type !== 'suggestion').map((message) => formatMessage(message, pkg)),
    []
  )
})

test('nothing was added while installing', () => {
  const place = join(consumer, 'node_modules', 'node-diffusion')
  assert.not.ok(readdirSync(place).includes('build'))
  const { integrity } = packed
  assert.is(`sha512-${createHash('sha512').update(readFileSync(tarball)).digest('base64')}`, integrity)
})

test.run()
