// npm run bench [-- --quick] [-- --json FILE]: seconds per stage, GFLOP/s and share of the measured peak per operation,
// memory, and the error against the reference outputs; for the bundled model and for a model of SD1.5's shapes.
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { inspect } from '../dist/index.js'
import { referenceErrors } from './errors.mjs'
import { randomSd15 } from './random-model.mjs'

const here = dirname(fileURLToPath(import.meta.url))
const root = join(here, '..')
const quick = process.argv.includes('--quick')
const jsonAt = process.argv.indexOf('--json')

const lines = (command, args) => {
  const out = spawnSync(command, args, { encoding: 'utf8', maxBuffer: 1 << 28, stdio: ['ignore', 'pipe', 'inherit'] })
  if (out.status !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${out.status ?? out.signal}`)
  return out.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
}
const model = (folder, steps) => lines(process.execPath, [join(here, 'model.mjs'), folder, String(steps)])[0]
const machine = () => lines(join(root, 'build', 'Release', 'nd_bench'), ['--json', 'no such problem'])[0]

const fixed = (n, digits = 2) => n.toFixed(digits)
const table = (head, rows) => {
  const all = [head, ...rows].map((row) => row.map(String))
  const widths = head.map((_, i) => Math.max(...all.map((row) => row[i].length)))
  const line = (row) =>
    '| ' + row.map((cell, i) => (i ? cell.padStart(widths[i]) : cell.padEnd(widths[i]))).join(' | ') + ' |'
  console.log([line(all[0]), line(widths.map((w) => '-'.repeat(w))), ...all.slice(1).map(line)].join('\n') + '\n')
}

const stageTable = (runs) =>
  table(
    ['seconds', 'size', 'load', 'first picture', 'text', 'one step', 'decode', 'weights MB', 'arena MB', 'peak MB'],
    runs.map(([name, r]) => [
      name,
      r.size,
      ...[r.seconds.load, r.seconds.firstPicture, r.seconds.text, r.seconds.step, r.seconds.decode].map((s) =>
        fixed(s, 3)
      ),
      ...[r.memory.weights, r.memory.activations, r.memory.peak].map((b) => Math.round(b / 1e6))
    ])
  )

/** The slowest operations, and a line for each kind. */
const operationTable = (name, run, peak) => {
  const total = run.operations.reduce((sum, o) => sum + o.seconds, 0)
  const row = (label, list) => {
    const seconds = list.reduce((s, o) => s + o.seconds, 0)
    const gflops = list.reduce((s, o) => s + o.flops, 0) / seconds / 1e9
    return [
      label,
      list.reduce((s, o) => s + o.calls, 0),
      fixed(seconds, 3),
      `${fixed((100 * seconds) / total, 1)}%`,
      fixed(gflops, 1),
      `${fixed((100 * gflops) / peak, 1)}%`
    ]
  }
  const kinds = [...new Set(run.operations.map((o) => o.operation.split(' ')[0]))]
  const byTime = (a, b) => b.seconds - a.seconds
  const sum = (kind) => run.operations.filter((o) => o.operation.split(' ')[0] === kind)
  const seconds = (list) => list.reduce((s, o) => s + o.seconds, 0)
  console.log(
    `${name}: operations of ${run.steps} steps with guidance, text and decoding; measured peak ${fixed(peak, 1)} GFLOP/s\n`
  )
  table(
    ['operation', 'calls', 'seconds', 'share', 'GFLOP/s', 'of peak'],
    [
      ...kinds.sort((a, b) => seconds(sum(b)) - seconds(sum(a))).map((kind) => row(`all ${kind}`, sum(kind))),
      ...run.operations
        .sort(byTime)
        .slice(0, 20)
        .map((o) => row(o.operation, [o]))
    ]
  )
}

const about = inspect()
console.log(
  `node-diffusion ${about.version} on ${cpus()[0]?.model} (${about.backend}), ${new Date().toISOString().slice(0, 10)}\n`
)
const peaks = machine()
console.log(
  `Measured fp32 peak ${fixed(peaks.peak, 1)} GFLOP/s on ${peaks.threads} threads; memory ${fixed(peaks.bandwidth, 1)} GB/s\n`
)

const runs = [['postcard', model('postcard', 20)]]
if (!quick) runs.push(['SD1.5 shapes', model(await randomSd15(), 2)])
stageTable(runs)
for (const [name, run] of runs) operationTable(name, run, peaks.peak)

const errors = await referenceErrors()
console.log('Error against diffusers (share of the largest value; pictures: mean difference in 1/255)\n')
table(
  ['family', 'cases', 'latents, worst', 'picture, worst'],
  errors.map((e) => [e.family, e.cases, e.latents.toExponential(1), fixed(e.picture, 3)])
)

if (jsonAt > 0)
  writeFileSync(
    process.argv[jsonAt + 1],
    JSON.stringify({ date: new Date().toISOString(), about, peaks, runs: Object.fromEntries(runs), errors }, null, 1)
  )
