// npm run fuzz [-- TARGET…] [-- --seconds N] [-- --seed N] [-- --keep]: fuzzing of everything that reads files from elsewhere, N
// seconds in all (60). Native readers by libFuzzer with AddressSanitizer and UBSan (Debian: apt install clang), TypeScript's by
// test/fuzz/guided.mjs, which follows V8's coverage. Corpora are in test/fuzz/corpus; --keep adds what reached new code.
// What failed is left in build/fuzz/findings. The last line is `N passed, N failed` over the targets.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { root, run } from './process.mjs'

const native = {
  json: ['engine/json.cpp'],
  safetensors: [
    'engine/json.cpp',
    'engine/safetensors.cpp',
    'engine/mapped-file.cpp',
    'engine/error.cpp',
    'engine/tensor.cpp'
  ]
}
const guided = ['png', 'infotext', 'config', 'scheduler', 'tokenizer', 'prompt']

const { values, positionals } = parseArgs({
  options: {
    seconds: { type: 'string', default: '60' },
    seed: { type: 'string', default: '1' },
    keep: { type: 'boolean', default: false }
  },
  allowPositionals: true
})
const all = [...Object.keys(native), ...guided]
const unknown = positionals.find((name) => !all.includes(name))
const seconds = Number(values.seconds)
if (unknown || !(seconds > 0)) {
  console.error(`Expected targets out of ${all.join(', ')} and a number of seconds`)
  process.exit(2)
}
const targets = positionals.length ? positionals : all
const findings = join(root, 'build', 'fuzz', 'findings')
mkdirSync(findings, { recursive: true })
const corpusOf = (target) => {
  const folder = join(root, 'test', 'fuzz', 'corpus', target)
  mkdirSync(folder, { recursive: true })
  return folder
}

const build = (target) => {
  const program = join(root, 'build', 'fuzz', target)
  const flags = ['-std=c++20', '-O1', '-g1', '-fsanitize=fuzzer,address,undefined', '-fno-sanitize-recover=all', '-I.']
  return run('clang++', [...flags, `test/fuzz/${target}.cpp`, ...native[target], '-o', program, '-pthread'])
}

const fuzzNative = async (target, limit) => {
  if ((await build(target)).code !== 0) return { ok: false, summary: 'does not build' }
  const program = join(root, 'build', 'fuzz', target)
  const corpus = corpusOf(target)
  const found = join(root, 'build', 'fuzz', `${target}-found`) // libFuzzer writes what it finds into its first folder
  rmSync(found, { recursive: true, force: true })
  mkdirSync(found)
  const bounds = ['-max_len=1024', '-timeout=10', '-rss_limit_mb=2048']
  const { code, output } = await run(
    program,
    [
      ...[found, corpus, ...bounds, `-max_total_time=${Math.ceil(limit)}`, `-seed=${values.seed}`],
      ...[`-artifact_prefix=${findings}/${target}-`, '-print_final_stats=1', '-use_value_profile=1']
    ],
    { capture: true }
  )
  if (values.keep && code === 0) await run(program, ['-merge=1', corpus, found, ...bounds], { capture: true })
  const stat = (name) => Number(new RegExp(`stat::${name}:\\s+(\\d+)`).exec(output)?.[1] ?? NaN)
  const inputs = stat('number_of_executed_units')
  const covered = /cov: (\d+)(?![^]*cov: )/.exec(output)?.[1]
  if (code !== 0) console.log(output.split('\n').slice(-40).join('\n'))
  return { ok: code === 0 && inputs > 0, summary: `${inputs} inputs, ${covered} edges` }
}

const fuzzGuided = async (target, limit) => {
  const { code, output } = await run(
    process.execPath,
    [
      join('test', 'fuzz', 'guided.mjs'),
      ...[target, String(limit), values.seed, corpusOf(target), findings, values.keep ? 'keep' : '']
    ],
    { capture: true, timeoutSeconds: limit + 60 }
  )
  if (code !== 0) console.log(output)
  return { ok: code === 0, summary: output.trim().split('\n').at(-1) }
}

if (!existsSync(join(root, 'dist', 'index.js'))) {
  console.error('The library is not built: npm run build')
  process.exit(2)
}
const hasClang = !spawnSync('clang++', ['--version']).error
let passed = 0
let failed = 0
for (const target of targets) {
  if (target in native && !hasClang) {
    console.log(`skip ${target}: no clang++ here (Debian: apt install clang)`)
    continue
  }
  const fuzz = target in native ? fuzzNative : fuzzGuided
  const { ok, summary } = await fuzz(target, seconds / targets.length)
  console.log(`${ok ? 'ok  ' : 'FAIL'} ${target}: ${summary}; corpus of ${readdirSync(corpusOf(target)).length}`)
  if (ok) passed++
  else failed++
}
console.log(`${passed} passed, ${failed} failed`)
process.exitCode = failed || passed === 0 ? 1 : 0
