// node tools/build.mjs [native] [lib] [test]: the addon and nd_test in build/Release, the library in dist/, the tests in
// build/test. In an installed package (`npx node-diffusion build`): the addon alone. Nothing is downloaded: the headers of Node-API come from the package node-api-headers (package.json's
// "binary" tells cmake-js that they are enough).
import { spawnSync } from 'node:child_process'
import { copyFileSync, cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { availableParallelism } from 'node:os'
import { dirname, isAbsolute, join, relative, sep } from 'node:path'
import { packageBin, root, runOrExit } from './process.mjs'

const targets = process.argv.slice(2)
const known = ['native', 'lib', 'test']
if (targets.length === 0 || targets.some((target) => !known.includes(target))) {
  console.error(`Expected targets out of ${known.join(', ')} but received ${targets.join(' ') || 'none'}`)
  process.exit(2)
}

/** An installed package has the native sources, and neither tests nor the tools of the repository. */
const installed = !existsSync(join(root, 'lib'))

/** Node-API's headers: of packages that are there, or brought by npm into build/headers. */
const headerFolders = async () => {
  const { devDependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
  const names = ['node-api-headers', 'node-addon-api']
  const find = () => {
    try {
      const from = createRequire(join(root, 'build', 'headers', 'index.js'))
      return names.map((name) => {
        const { include_dir: folder } = from(name)
        return isAbsolute(folder) ? folder : dirname(from.resolve(`${name}/package.json`))
      })
    } catch {
      return undefined
    }
  }
  const there = find()
  if (there) return there
  const folder = join(root, 'build', 'headers')
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, 'package.json'), '{ "private": true }\n')
  const packages = names.map((name) => `${name}@${devDependencies[name]}`)
  console.log(`bringing ${packages.join(' and ')} with npm`)
  const options = ['--no-audit', '--no-fund', '--ignore-scripts']
  await runOrExit('npm', ['install', ...options, ...packages], { cwd: folder })
  return find()
}

const buildInstalled = async (cuda, jobs) => {
  if (process.platform === 'win32') {
    console.error(
      'Expected the repository for a build on Windows but this is an installed package; clone it, then npm ci && npm run build'
    )
    process.exit(1)
  }
  const folder = join(root, 'build', 'Release')
  await runOrExit('cmake', [
    ...['-S', root, '-B', folder, '-DCMAKE_BUILD_TYPE=Release', `-DND_CUDA=${cuda}`],
    `-DCMAKE_JS_INC=${(await headerFolders()).join(';')}`,
    ...(process.platform === 'darwin' ? ['-DCMAKE_SHARED_LINKER_FLAGS=-undefined dynamic_lookup'] : [])
  ])
  await runOrExit('cmake', ['--build', folder, '--target', 'node_diffusion', '--parallel', jobs])
  console.log(`built ${join(folder, 'node_diffusion.node')}`)
}

const buildNative = async () => {
  const missing = ['cmake', process.env.CXX ?? 'c++'].filter((tool) => spawnSync(tool, ['--version']).error)
  if (missing.length) {
    console.error(`Cannot find ${missing.join(' and ')}, which building needs. On Debian: apt install g++ cmake make`)
    process.exit(1)
  }
  const jobs = process.env.ND_JOBS ?? String(availableParallelism())
  // ND_CUDA=OFF spares the minutes that nvcc takes; ON makes its absence an error.
  const cuda = process.env.ND_CUDA ?? 'AUTO'
  if (installed) return buildInstalled(cuda, jobs)
  const cmakeJs = (...args) =>
    runOrExit(process.execPath, [
      packageBin('cmake-js'),
      ...args,
      '--out',
      join('build', 'Release'),
      '--log-level',
      'warn'
    ])
  await cmakeJs(
    'configure',
    '--CDND_TESTS=ON',
    '--CDCMAKE_EXPORT_COMPILE_COMMANDS=ON',
    `--CDND_CUDA=${cuda}`,
    `--CDND_CUDA_STRICT=${process.env.ND_CUDA_STRICT ?? 'OFF'}`
  )
  await cmakeJs('build', '--parallel', jobs)
}

const filesBelow = (folder) =>
  readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(folder, join(entry.parentPath ?? entry.path, entry.name)))

/** What was compiled from files that are gone must not be tested or published. */
const removeStale = (output, sources) => {
  for (const file of existsSync(output) ? filesBelow(output) : []) {
    const source = file.replace(/^cjs[\\/]/, '').replace(/(\.d\.ts|\.js|\.js\.map)$/, '.ts')
    if (source.endsWith('.ts') && !existsSync(join(sources, source))) rmSync(join(output, file), { force: true })
  }
}

/** A second form of the library for require(), since Node 20 cannot require() ES modules. */
const buildCommonJs = async () => {
  const { default: ts } = await import('typescript')
  const lib = join(root, 'lib')
  const out = join(root, 'dist', 'cjs')
  for (const file of filesBelow(lib)) {
    if (!file.endsWith('.ts') || file.startsWith('cli' + sep)) continue
    const target = join(out, file.replace(/\.ts$/, '.js'))
    const twin = join(root, 'dist', file.replace(/\.ts$/, '.js'))
    // Both forms look for files (vocabulary, addon, bundled model) from the same place.
    const here = `__moduleUrl(${JSON.stringify(relative(dirname(target), twin).split(sep).join('/'))})`
    const source = readFileSync(join(lib, file), 'utf8').replaceAll('import.meta.url', here)
    if (source.includes('import.meta')) throw new Error(`lib/${file}: only import.meta.url has a CommonJS form`)
    const { outputText } = ts.transpileModule(source, {
      fileName: file,
      compilerOptions: {
        target: ts.ScriptTarget.ES2022,
        module: ts.ModuleKind.CommonJS,
        esModuleInterop: true
      }
    })
    const prelude = source.includes('__moduleUrl(')
      ? "const __moduleUrl = (path) => require('node:url').pathToFileURL(require('node:path').join(__dirname, path)).href;\n"
      : ''
    mkdirSync(dirname(target), { recursive: true })
    writeFileSync(target, outputText.replace(/^("use strict";\n)?/, `"use strict";\n${prelude}`))
    cpSync(twin.replace(/\.js$/, '.d.ts'), target.replace(/\.js$/, '.d.ts'))
  }
  writeFileSync(join(out, 'package.json'), '{ "type": "commonjs" }\n')
}

const buildLib = async () => {
  removeStale(join(root, 'dist'), join(root, 'lib'))
  await runOrExit(process.execPath, [packageBin('typescript', 'tsc'), '-p', 'tsconfig.json'])
  mkdirSync(join(root, 'dist', 'tokenizer'), { recursive: true })
  copyFileSync(join(root, 'lib/tokenizer/clip-merges.txt'), join(root, 'dist/tokenizer/clip-merges.txt'))
  cpSync(join(root, 'lib/server/page'), join(root, 'dist/server/page'), { recursive: true })
  await buildCommonJs()
}

const buildTest = async () => {
  removeStale(join(root, 'build', 'test'), join(root, 'test'))
  await runOrExit(process.execPath, [packageBin('typescript', 'tsc'), '-p', join('test', 'tsconfig.json')])
}

if (targets.includes('native')) await buildNative()
if (targets.includes('lib')) await buildLib()
if (targets.includes('test')) await buildTest()
