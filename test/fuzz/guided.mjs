// node test/fuzz/guided.mjs TARGET SECONDS SEED CORPUS FINDINGS [keep]: coverage-guided fuzzing of TypeScript. Inputs are mutated from a
// corpus; those that make V8 count blocks which no input before them reached join it. A thread runs them, so that an input that never
// ends is found as well. tools/fuzz.mjs is the way in.
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { Session } from 'node:inspector'
import { join } from 'node:path'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { Mutator } from './mutate.mjs'
import { targets } from './targets.mjs'

const batch = 64
const largest = 1 << 16
const slowSeconds = 2 // of processor time
const hungSeconds = 60

/** Blocks of dist/ that have been executed since the last call, as strings. */
class Coverage {
  session = new Session()
  seen = new Set()

  constructor() {
    this.session.connect()
    this.session.post('Profiler.enable')
    this.session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: true })
  }
  /** How many blocks are new. */
  take() {
    let found = 0
    this.session.post('Profiler.takePreciseCoverage', (error, { result }) => {
      if (error) throw error
      for (const { url, functions } of result) {
        if (!url.includes('/dist/')) continue
        for (const { ranges } of functions)
          for (const { startOffset, endOffset, count } of ranges) {
            const key = `${url}:${startOffset}-${endOffset}`
            if (count > 0 && !this.seen.has(key)) found = this.seen.add(key) && found + 1
          }
      }
    })
    return found
  }
}

const fuzz = async ({ name, seconds, seed, corpusFolder, keep, shared }) => {
  const coverage = new Coverage() // before the code is compiled: functions that are there already are counted as a whole
  const target = await targets[name]()
  const [counter, bytes] = [new Int32Array(shared, 0, 2), new Uint8Array(shared, 8)]
  const mutator = new Mutator(seed, target)
  const corpus = [
    ...target.seeds(),
    ...readdirSync(corpusFolder)
      .sort()
      .map((file) => readFileSync(join(corpusFolder, file)))
  ]
  const fail = (input, error) => {
    parentPort.postMessage({ input, message: error.stack })
    throw error
  }
  let inputs = 0
  let refused = 0
  const run = (input) => {
    bytes.set(input)
    counter[1] = input.length
    Atomics.add(counter, 0, 1)
    inputs++
    const start = process.cpuUsage()
    try {
      target.run(Buffer.from(input))
    } catch (error) {
      if (error.constructor.name !== 'DiffusionError' || error.code === 'ERR_ND_INTERNAL') fail(input, error)
      refused++
    }
    const { user } = process.cpuUsage(start)
    if (user > slowSeconds * 1e6) fail(input, new Error(`slow: ${(user / 1e6).toFixed(1)} s`))
  }
  for (const input of corpus) run(input)
  coverage.take()
  const end = performance.now() + seconds * 1000
  let added = 0
  let kept = corpus.length - target.seeds().length
  while (performance.now() < end) {
    const tried = Array.from({ length: batch }, () => mutator.mutate(corpus).subarray(0, largest))
    tried.forEach(run)
    if (coverage.take() === 0) continue
    // One of them reached something. Its blocks are known now: the shortest that makes the batch's inputs differ is not worth finding, a
    // few of them are enough to go on from.
    const fresh = tried.filter((input) => input.length < 4096).sort((a, b) => a.length - b.length)
    const chosen = fresh.filter((_, i) => i % 16 === 0)
    corpus.push(...chosen)
    added += chosen.length
    if (keep && chosen[0] && chosen[0].length <= 1024 && kept++ < 40)
      writeFileSync(join(corpusFolder, createHash('sha1').update(chosen[0]).digest('hex').slice(0, 16)), chosen[0])
  }
  parentPort.postMessage({
    done: `${inputs} inputs (${refused} refused), ${coverage.seen.size} blocks, ${added} inputs that led on`
  })
}

if (isMainThread) {
  const [name, seconds, seed, corpusFolder, findings, keep] = process.argv.slice(2)
  const shared = new SharedArrayBuffer(8 + largest)
  const counter = new Int32Array(shared, 0, 2)
  const worker = new Worker(new URL(import.meta.url), {
    workerData: { name, seconds: Number(seconds), seed: Number(seed), corpusFolder, keep: keep === 'keep', shared }
  })
  const finding = (input, message) => {
    const path = join(findings, `${name}-${createHash('sha1').update(input).digest('hex').slice(0, 16)}`)
    writeFileSync(path, input)
    console.error(`${message}\nthe input is ${path}`)
    process.exit(1)
  }
  let [last, since] = [-1, performance.now()]
  setInterval(() => {
    if (counter[0] !== last) [last, since] = [counter[0], performance.now()]
    else if (performance.now() - since > hungSeconds * 1000)
      finding(Buffer.from(new Uint8Array(shared, 8, counter[1])), `no end after ${hungSeconds} s`)
  }, 1000).unref()
  worker.on('message', ({ done, input, message }) => {
    if (input) finding(Buffer.from(input), message)
    console.log(done)
  })
  worker.on('error', (error) => {
    console.error(error)
    process.exit(1)
  })
} else await fuzz(workerData)
