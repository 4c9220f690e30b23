// npm run cuda-check [-- file…]: compiles every kernel with nvcc for sm_80 and sm_90a and prints registers and shared memory.
// Fails where a kernel spills registers, uses local memory (an array that is not in registers), or makes ptxas warn. Needs nvcc
// 12.8 or later, no GPU.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { root, run } from './process.mjs'

const targets = [
  ['sm_80', ['-gencode', 'arch=compute_80,code=sm_80']],
  ['sm_90a', ['-gencode', 'arch=compute_90a,code=sm_90a']]
]

if (spawnSync('nvcc', ['--version']).error) {
  console.error('Cannot find nvcc (CUDA 12.8 or later), which this check needs')
  process.exit(2)
}
const asked = process.argv.slice(2)
const files = readdirSync(join(root, 'cuda'), { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.cu') && (asked.length === 0 || asked.some((name) => file.includes(name))))
  .sort()
const folder = mkdtempSync(join(tmpdir(), 'cuda-check-'))

/** What ptxas -v says of each kernel. */
const kernels = (text) =>
  text
    .split(/Compiling entry function '/)
    .slice(1)
    .map((part) => {
      const number = (pattern) => Number(part.match(pattern)?.[1] ?? 0)
      return {
        mangled: part.slice(0, part.indexOf("'")),
        registers: number(/Used (\d+) registers/),
        stack: number(/(\d+) bytes stack frame/),
        spills: number(/(\d+) bytes spill stores/) + number(/(\d+) bytes spill loads/),
        shared: number(/(\d+) bytes smem/)
      }
    })

/** Names without types of parameters, where c++filt is there. */
const readable = (names) => {
  const { stdout, error } = spawnSync('c++filt', { input: names.join('\n'), encoding: 'utf8' })
  if (error) return names
  return stdout
    .trim()
    .split('\n')
    .map((name) =>
      name
        .replace(/^void /, '')
        .replace(/\(nd::cuda::[A-Z].*$/, '')
        .replaceAll(/nd::cuda::|\(anonymous namespace\)::/g, '')
    )
}

let failed = false
const queue = files.flatMap((file) => targets.map(([name, flags]) => ({ file, name, flags })))
const count = queue.length
const worker = async () => {
  for (let job = queue.shift(); job; job = queue.shift()) {
    const started = Date.now()
    const object = join(folder, `${job.file.replaceAll(/\W/g, '-')}-${job.name}.o`)
    const options = ['-std=c++20', '--expt-relaxed-constexpr', '-O3', '-I', root, ...job.flags, '-Xptxas', '-v']
    const { code, output } = await run('nvcc', [...options, '-c', join(root, 'cuda', job.file), '-o', object], {
      capture: true
    })
    const seconds = ((Date.now() - started) / 1000).toFixed(0)
    console.log(`${code === 0 ? 'ok  ' : 'FAIL'} cuda/${job.file} ${job.name} (${seconds} s)`)
    if (code !== 0) {
      failed = true
      console.log(output)
      continue
    }
    const all = kernels(output)
    const names = readable(all.map(({ mangled }) => mangled))
    for (const [i, { registers, stack, spills, shared }] of all.entries()) {
      const bad = stack > 0 || spills > 0
      failed ||= bad
      console.log(
        `${bad ? 'FAIL' : '    '}   ${String(registers).padStart(3)} registers  ${names[i]}` +
          (shared ? `, ${shared} bytes of static shared memory` : '') +
          (bad ? `: ${stack} bytes of local memory, ${spills} bytes spilled` : '')
      )
    }
    if (/warning/i.test(output))
      console.log(
        output
          .split('\n')
          .filter((line) => /warning/i.test(line))
          .join('\n')
      )
  }
}
const started = Date.now()
await Promise.all(Array.from({ length: Math.min(availableParallelism(), count) }, worker))
rmSync(folder, { recursive: true, force: true })
console.log(`${files.length} files, ${targets.length} targets, ${((Date.now() - started) / 1000).toFixed(0)} s`)
process.exitCode = failed ? 1 : 0
