// npm run bench [-- --quick] [--json FILE] [--roofline FILE.svg] [--against torch,onednn,sdcpp [--sdcpp PATH] [--rounds N]]: seconds
// per stage, GFLOP/s and share of the measured peak per operation, memory, and the error against the reference outputs;
// for the bundled model and for a model of SD1.5's shapes. --against: other programs in the same run (against.mjs);
// --sdcpp: the sd-cli of stable-diffusion.cpp, timed --rounds times in turns with ours. --no-errors leaves the references out.
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { inspect } from '../dist/index.js'
import { againstOnednn, againstSdcpp, againstTorch } from './against.mjs'
import { referenceErrors } from './errors.mjs'
import { randomSd15 } from './random-model.mjs'
import { roofline } from './roofline.mjs'
import { fixed, table } from './tables.mjs'

const here = dirname(fileURLToPath(import.meta.url))
const root = join(here, '..')
const { values: options } = parseArgs({
  options: {
    quick: { type: 'boolean' },
    'no-errors': { type: 'boolean' },
    json: { type: 'string' },
    roofline: { type: 'string' },
    against: { type: 'string', default: '' },
    sdcpp: { type: 'string' },
    rounds: { type: 'string', default: '1' },
    steps: { type: 'string', default: '2' }
  }
})
const peers = options.against.split(',').filter(Boolean)
for (const peer of peers)
  if (!['torch', 'onednn', 'sdcpp'].includes(peer))
    throw new Error(`Expected --against torch, onednn, sdcpp or several of them but received ${peer}`)
const [steps, rounds] = ['steps', 'rounds'].map((name) => {
  const count = Number(options[name])
  if (!(Number.isInteger(count) && count >= 1))
    throw new Error(`Expected --${name} 1 or more but received ${options[name]}`)
  return count
})
if (options.quick && (options.roofline || peers.length))
  throw new Error('Expected --roofline and --against without --quick: they need the large model')

const lines = (command, args) => {
  const out = spawnSync(command, args, { encoding: 'utf8', maxBuffer: 1 << 28, stdio: ['ignore', 'pipe', 'inherit'] })
  if (out.status !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${out.status ?? out.signal}`)
  return out.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
}
const model = (folder, steps) => lines(process.execPath, [join(here, 'model.mjs'), folder, String(steps)])[0]
const nativeBench = (args) => lines(join(root, 'build', 'Release', 'nd_bench'), args)
const machine = () => nativeBench(['--json', 'no such problem'])[0]

const stageTable = (runs) =>
  table(
    [
      'seconds',
      'size',
      'load',
      'first picture',
      'text',
      'one step',
      'decode',
      'second load',
      'weights MB',
      'arena MB',
      'peak MB',
      'second pipeline MB'
    ],
    runs.map(([name, r]) => [
      name,
      r.size,
      ...['load', 'firstPicture', 'text', 'step', 'decode', 'loadAgain'].map((name) => fixed(r.seconds[name], 3)),
      ...['weights', 'activations', 'peak', 'secondPipeline'].map((name) => Math.round(r.memory[name] / 1e6))
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
const largeModel = options.quick ? null : await randomSd15()
if (largeModel) runs.push(['SD1.5 shapes', model(largeModel, steps)])
stageTable(runs)
for (const [name, run] of runs) operationTable(name, run, peaks.peak)

const large = runs.at(-1)[1]
const date = new Date().toISOString().slice(0, 10)
if (options.roofline)
  writeFileSync(
    options.roofline,
    roofline({
      operations: large.operations,
      peak: peaks.peak,
      bandwidth: peaks.bandwidth,
      title: `Operations of SD 1.5's shapes, ${large.size}: area is time`,
      subtitle: `${cpus()[0]?.model}, ${peaks.isa}, ${peaks.threads} threads, float32, ${date}`
    })
  )

const against = {}
if (peers.includes('onednn')) against.onednn = againstOnednn(nativeBench)
if (peers.includes('torch')) against.torch = againstTorch(large.operations, peaks.threads)
if (peers.includes('sdcpp'))
  against.sdcpp = await againstSdcpp(options.sdcpp, large, () => model(largeModel, steps), {
    steps,
    threads: peaks.threads,
    rounds
  })

let errors = []
if (!options['no-errors']) {
  errors = await referenceErrors()
  console.log('Error against diffusers (share of the largest value; pictures: mean difference in 1/255)\n')
  table(
    ['family', 'cases', 'latents, worst', 'picture, worst'],
    errors.map((e) => [e.family, e.cases, e.latents.toExponential(1), fixed(e.picture, 3)])
  )
}

if (options.json)
  writeFileSync(
    options.json,
    JSON.stringify(
      { date: new Date().toISOString(), about, peaks, runs: Object.fromEntries(runs), against, errors },
      null,
      1
    )
  )
