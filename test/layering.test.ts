/** Includes and imports point one way: lib → binding → engine → backend interface ← cpu, cuda. */
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { root } from './support/paths.js'

const test = suite('layering')

interface Source {
  /** From the root, with slashes. */
  path: string
  text: string
}

const sources = (folder: string, pattern: RegExp): Source[] => {
  let entries: string[]
  try {
    entries = readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
  } catch {
    return [] // cuda/ may have nothing yet
  }
  return entries
    .filter((entry) => pattern.test(entry))
    .map((entry) => ({ path: join(folder, entry), text: readFileSync(join(root, folder, entry), 'utf8') }))
}

const native = (folder: string): Source[] => sources(folder, /\.(h|cpp|cu|cuh)$/)
const includes = ({ text }: Source): string[] =>
  [...text.matchAll(/^\s*#\s*include\s*[<"]([^>"]+)[>"]/gm)].map((m) => m[1]!)
const imports = ({ text }: Source): string[] =>
  [...text.matchAll(/(?:\bfrom\s*|\bimport\s*\(?\s*|\brequire\s*\(\s*)['"]([^'"]+)['"]/g)].map((m) => m[1]!)

const own = /^(engine|cpu|cuda|binding|lib|test)\//
const javaScript = /^(node_api|js_native_api|napi|uv|v8|node)\b/
const intrinsics = /^(immintrin|x86intrin|arm_neon|arm_sve|[a-z]mmintrin|avx\w*intrin|cuda\w*|mma)\.h$/

const expectNone = (violations: string[]): void => assert.equal(violations, [], violations.join('\n'))

/** `path includes what` for every include that is not allowed. */
const forbidden = (files: Source[], allowed: (include: string) => boolean): string[] =>
  files.flatMap((file) =>
    includes(file)
      .filter((i) => !allowed(i))
      .map((i) => `${file.path} includes ${i}`)
  )

test('the folders hold sources', () => {
  for (const folder of ['engine', 'cpu', 'binding']) assert.ok(native(folder).length > 3, folder)
  assert.ok(sources('lib', /\.ts$/).length > 10)
})

test('engine includes engine alone: no JavaScript, no intrinsics, no CUDA', () => {
  expectNone(
    forbidden(native('engine'), (i) =>
      own.test(i) ? i.startsWith('engine/') : !javaScript.test(i) && !intrinsics.test(i)
    )
  )
})

test('cpu includes cpu and engine', () => {
  expectNone(forbidden(native('cpu'), (i) => (own.test(i) ? /^(cpu|engine)\//.test(i) : !javaScript.test(i))))
})

test('cuda includes cuda and engine', () => {
  expectNone(forbidden(native('cuda'), (i) => (own.test(i) ? /^(cuda|engine)\//.test(i) : !javaScript.test(i))))
})

test('binding includes binding and engine, no intrinsics', () => {
  expectNone(forbidden(native('binding'), (i) => (own.test(i) ? /^(binding|engine)\//.test(i) : !intrinsics.test(i))))
})

test('the reference operations are plain C++', () => {
  expectNone(forbidden(native('cpu/reference'), (i) => !intrinsics.test(i) && !/^cpu\/(?!reference\/)/.test(i)))
})

test('native code never prints, exits or aborts', () => {
  const calls =
    /\b(std::cout|std::cerr|std::clog|printf\s*\(|fprintf\s*\(|puts\s*\(|abort\s*\(|(?<![\w.:>])exit\s*\(|std::terminate)/
  expectNone(
    ['engine', 'cpu', 'binding', 'cuda'].flatMap(native).flatMap(({ path, text }) =>
      text
        .split('\n')
        .map((line, i) => ({ line: line.replace(/\/\/.*/, ''), at: `${path}:${i + 1}` }))
        .filter(({ line }) => calls.test(line.replace(/\bv?snprintf\s*\(/g, '').replace(/format\(printf/, '')))
        .map(({ line, at }) => `${at}: ${line.trim()}`)
    )
  )
})

test('lib reaches the addon through binding.ts alone', () => {
  const violations = sources('lib', /\.ts$/)
    .filter(({ path }) => path !== join('lib', 'binding.ts'))
    .flatMap((file) =>
      imports(file)
        .filter((name) => name.endsWith('.node') || /\baddon\.js$/.test(name))
        .map((name) => `${file.path} imports ${name}`)
    )
  expectNone(violations)
})

test('schedulers, the tokenizer and prompts need no addon, directly or through others', () => {
  const files = new Map(sources('lib', /\.ts$/).map((file) => [file.path, file]))
  const reaches = (path: string, seen: Set<string>): string[] | null => {
    if (seen.has(path)) return null
    seen.add(path)
    if (path === join('lib', 'binding.ts')) return [path]
    const file = files.get(path)
    if (!file) return null
    // A type leaves nothing in the JavaScript.
    const text = file.text.replace(/^(import|export) type [^'"]*['"][^'"]+['"]/gm, '')
    for (const name of imports({ path, text })) {
      if (!name.startsWith('.')) continue
      const chain = reaches(normalize(join(dirname(path), name.replace(/\.js$/, '.ts'))), seen)
      if (chain) return [path, ...chain]
    }
    return null
  }
  const pure = [...files.keys()].filter((path) =>
    /^lib[\\/](schedulers|tokenizer|prompt\.ts|errors\.ts|step-plan\.ts)/.test(path)
  )
  assert.ok(pure.length > 5)
  expectNone(pure.flatMap((path) => reaches(path, new Set())?.join(' → ') ?? []))
})

test('lib’s command line uses the public entry, and nothing below uses the command line', () => {
  const violations = sources('lib', /\.ts$/).flatMap((file) =>
    imports(file)
      .filter((name) => !file.path.startsWith(join('lib', 'cli')) && /(^|\/)cli\//.test(name))
      .map((name) => `${file.path} imports ${name}`)
  )
  expectNone(violations)
})

test('files are short', () => {
  const all = [...['engine', 'cpu', 'binding', 'cuda', 'test/native', 'bench'].flatMap(native)]
    .concat(
      sources('lib', /\.ts$/),
      sources('test', /\.ts$/),
      sources('bench', /\.(mjs|ts)$/),
      sources('tools', /\.mjs$/)
    )
    .map(({ path, text }) => ({ path, lines: text.split('\n').length }))
  for (const { path, lines } of all) if (lines > 450 && lines <= 500) console.log(`long: ${path} has ${lines} lines`)
  expectNone(
    all.filter(({ lines }) => lines > 500).map(({ path, lines }) => `${path} has ${lines} lines, more than 500`)
  )
})

test.run()
