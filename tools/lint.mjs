// npm run lint [-- --fix]: formats and rules of both languages. clang-format and clang-tidy are skipped, loudly, where they
// are not installed; --strict (CI) makes that an error. clang-tidy reads build/Release/compile_commands.json.
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { availableParallelism } from 'node:os'
import { packageBin, root, run } from './process.mjs'

const fix = process.argv.includes('--fix')
const strict = process.argv.includes('--strict')
let failed = false

const step = async (name, command, args) => {
  const { code, output } = await run(command, args, { capture: true })
  console.log(`${code === 0 ? 'ok  ' : 'FAIL'} ${name}`)
  if (code !== 0) {
    failed = true
    console.log(output)
  }
}

const sources = (folders, pattern) =>
  folders
    .filter((folder) => existsSync(join(root, folder)))
    .flatMap((folder) => readdirSync(join(root, folder), { recursive: true }).map((file) => `${folder}/${file}`))
    .filter((file) => pattern.test(file))
    .sort()

const installed = (tool) => {
  if (!spawnSync(tool, ['--version']).error) return true
  console.log(`${strict ? 'FAIL' : 'skip'} ${tool}: not installed (on Debian: apt install ${tool})`)
  failed ||= strict
  return false
}

// The tests' types are those of dist/.
if (!existsSync(join(root, 'dist', 'index.d.ts'))) await step('build', process.execPath, ['tools/build.mjs', 'lib'])
await step('eslint', process.execPath, [packageBin('eslint'), '.', ...(fix ? ['--fix'] : [])])
await step('prettier', process.execPath, [
  packageBin('prettier'),
  fix ? '--write' : '--check',
  '.',
  '--log-level',
  'warn'
])
await step('docstrings', process.execPath, ['tools/docstrings.mjs'])

if (installed('clang-format')) {
  const files = sources(
    ['engine', 'cpu', 'binding', 'cuda', 'test/native', 'test/fuzz', 'bench/native'],
    /\.(h|cpp|cu|cuh)$/
  )
  if (files.length) await step('clang-format', 'clang-format', [...(fix ? ['-i'] : ['--dry-run', '-Werror']), ...files])
}

if (!fix && installed('clang-tidy')) {
  const database = join(root, 'build', 'Release')
  // Units of instruction sets that this machine's compiler was not asked for are not in the database.
  const files = sources(['engine', 'cpu', 'binding'], /\.cpp$/).filter((file) => !file.startsWith('cpu/arch/'))
  if (!existsSync(join(database, 'compile_commands.json'))) {
    console.log('FAIL clang-tidy: no compile_commands.json; run npm run build:native first')
    failed = true
  } else {
    const queue = [...files]
    const complaints = []
    const worker = async () => {
      for (let file = queue.shift(); file; file = queue.shift()) {
        const { code, output } = await run('clang-tidy', ['-p', database, '--quiet', file], { capture: true })
        if (code !== 0) complaints.push(output)
      }
    }
    await Promise.all(Array.from({ length: availableParallelism() }, worker))
    console.log(`${complaints.length ? 'FAIL' : 'ok  '} clang-tidy (${files.length} files)`)
    if (complaints.length) {
      failed = true
      console.log(complaints.join('\n'))
    }
  }
}
process.exitCode = failed ? 1 : 0
