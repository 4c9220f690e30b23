// Other programs on the same machine in the same run: oneDNN per operation, PyTorch on all products, convolutions and
// attentions of a step, stable-diffusion.cpp on whole steps. Who is missing is said to be missing; nothing is skipped
// silently. None of them is a part of this project or linked into it.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseOperation } from './operations.mjs'
import { randomSd15File } from './random-model.mjs'
import { fixed, table } from './tables.mjs'

const here = dirname(fileURLToPath(import.meta.url))
const gnuTime = '/usr/bin/time' // for the peak of another program's memory
const missing = (what, why) => console.log(`NOT MEASURED: ${what}: ${why}\n`)
const speed = (v) => (Number.isFinite(v) && v > 0.01 ? fixed(v, 1) : '–')

/** nd_bench beside Debian's libraries, at SD1.5's shapes: fp32 weights there, F16 here. */
export const againstOnednn = (run) => {
  const rows = run(['--json', '--peers', '--seconds', '0.2', ...shapesOfPeers]).filter((o) => 'onednn' in o)
  if (!rows.some((o) => o.onednn > 0.01))
    return missing('oneDNN', 'nd_bench was built without it (install libdnnl-dev)')
  console.log('Per operation, GFLOP/s, best of several in turns; oneDNN and OpenBLAS without bias and activation\n')
  table(
    ['shape', 'node-diffusion', 'OpenBLAS', 'oneDNN', 'of oneDNN'],
    rows.map((o) => [o.name, speed(o.gflops), speed(o.openblas), speed(o.onednn), `${fixed(o.gflops / o.onednn)}×`])
  )
  return rows
}
/** Parts of the names of nd_bench's problems: all products and convolutions. */
const shapesOfPeers = ['x', 'time embedding', 'context k']

/** Sums of a step and of decoding: seconds per call of PyTorch times our calls, beside what our calls took. */
export const againstTorch = (operations, threads) => {
  const ours = operations.flatMap((o) => {
    const shape = parseOperation(o.operation)
    return shape ? [{ ...o, shape }] : []
  })
  const input = JSON.stringify({ threads, operations: ours.map((o) => [o.operation, o.shape]) })
  let why = 'no python3 has torch (Debian: python3-torch)'
  for (const python of ['python3', '/usr/bin/python3']) {
    if (spawnSync(python, ['-c', 'import torch']).status !== 0) continue
    const out = spawnSync(python, [join(here, 'torch-ops.py')], { input, encoding: 'utf8', maxBuffer: 1 << 26 })
    if (out.status !== 0) {
      why = out.stderr.trim().split('\n').at(-1)
      continue
    }
    const { version, blas, seconds } = JSON.parse(out.stdout)
    console.log(`PyTorch ${version} (${blas.join(', ')}): seconds over all calls of the model's run above\n`)
    const sum = (list, value) => list.reduce((total, o) => total + value(o), 0)
    const rows = ['conv2d', 'linear', 'geglu', 'attention'].map((kind) => {
      const list = ours.filter((o) => o.shape.kind === kind)
      return { kind, own: sum(list, (o) => o.seconds), torch: sum(list, (o) => o.calls * seconds[o.operation]) }
    })
    rows.push({ kind: 'together', own: sum(rows, (r) => r.own), torch: sum(rows, (r) => r.torch) })
    table(
      ['operations', 'node-diffusion', 'PyTorch', 'faster'],
      rows.map((r) => [r.kind, fixed(r.own, 3), fixed(r.torch, 3), `${fixed(r.torch / r.own)}×`])
    )
    return { version, blas, rows, seconds }
  }
  return missing('PyTorch', why)
}

const taking = (text, what) => Number(new RegExp(`${what}[^\\n]*taking ([\\d.]+)s`).exec(text)?.[1])

/** Seconds of its step loop, without the weights that it reads while it is in it. */
const samplingSeconds = (text) => {
  const loop = text.split('get_learned_condition completed').at(-1).split('sampling completed')[0]
  const loads = [...loop.matchAll(/loading tensors completed, taking ([\d.]+)s/g)]
  return loads.reduce((left, load) => left - Number(load[1]), taking(text, 'sampling completed'))
}

/**
 * Whole steps with its fastest options of those tried, beside ours. Every round measures each once (ours with `again`, `own` is
 * the first round's): the least counts, as other work on the machine makes any of them slower for minutes.
 */
export const againstSdcpp = async (binary, own, again, { steps, threads, rounds }) => {
  if (!binary) return missing('stable-diffusion.cpp', 'no --sdcpp PATH of its sd-cli was given')
  const folder = mkdtempSync(join(tmpdir(), 'nd-sdcpp-'))
  const model = await randomSd15File()
  const variants = [
    ['flash attention, direct convolutions', ['--diffusion-fa', '--diffusion-conv-direct', '--vae-conv-direct']],
    ['flash attention', ['--diffusion-fa']]
  ]
  const first = { name: 'node-diffusion', step: Infinity, decode: Infinity, peak: own.memory.peak }
  const rows = variants.map(([name]) => ({ name, step: Infinity, decode: Infinity }))
  const keepLeast = (row, step, decode) => {
    row.step = Math.min(row.step, step)
    row.decode = Math.min(row.decode, decode)
  }
  const measure = ([name, options], row) => {
    const report = join(folder, 'time')
    const common = ['-m', model, '-p', 'a red house on a beach at sunset', '-W', 512, '-H', 512, '--steps', steps]
    const more = ['--cfg-scale', 5, '--seed', 1, '-t', threads, '--rng', 'cpu', '--sampling-method', 'dpm++2m', '-v']
    const args = [binary, ...common, ...more, ...options, '-o', join(folder, 'out.png')].map(String)
    const measured = existsSync(gnuTime) ? [gnuTime, '-f', '%M', '-o', report, ...args] : args
    const out = spawnSync(measured[0], measured.slice(1), { encoding: 'utf8', maxBuffer: 1 << 28 })
    const said = `${out.stdout}\n${out.stderr}`
    const sampling = samplingSeconds(said)
    if (out.status !== 0 || !sampling) {
      missing(`stable-diffusion.cpp with ${name}`, said.trim().split('\n').at(-1) ?? `status ${out.status}`)
      return
    }
    row.peak = existsSync(report) ? Number(readFileSync(report, 'utf8')) * 1024 : NaN
    keepLeast(row, sampling / steps, taking(said, 'decode_first_stage completed'))
  }
  for (let round = 0; round < rounds; round++) {
    const { seconds } = round > 0 ? again() : own
    keepLeast(first, seconds.step, seconds.decode)
    variants.forEach((variant, i) => measure(variant, rows[i]))
  }
  rmSync(folder, { recursive: true, force: true })
  const measured = rows.filter((row) => row.step < Infinity)
  if (!measured.length) return null
  console.log(
    `stable-diffusion.cpp (${binary}): 512 × 512 with guidance, ${steps} steps, ${threads} threads, best of ${rounds} in turns\n`
  )
  table(
    ['seconds', 'one step', 'decode', 'peak MB', 'step against ours'],
    [first, ...measured].map((r) => [
      r.name,
      fixed(r.step, 2),
      fixed(r.decode, 2),
      Number.isFinite(r.peak) ? Math.round(r.peak / 1e6) : '–',
      `${fixed(r.step / first.step)}×`
    ])
  )
  return [first, ...measured]
}
