/** Every scheduler case again, through the native loop and with the native noise; and the loop against its specification. */
import { runPlan, type StepPlan } from 'node-diffusion'
import { schedulerClasses } from '#lib/schedulers/index.js'
import { runPlan as interpret } from '#lib/interpreter.js'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { relativeError } from './support/compare.js'
import { check, schedulerCases, standIn } from './support/scheduler-cases.js'

const test = suite('schedulers, native loop')
const shape = [1, 4, 8, 8] as const

for (const className of schedulerClasses.keys()) {
  test(className, () => {
    let worst = 0
    let count = 0
    for (const c of schedulerCases(className)) {
      const { x } = check(c, (plan) => {
        const rows: Float32Array[] = []
        runPlan(plan, { shape, seed: c.seed, onRow: (latents) => rows.push(latents) }, standIn)
        return rows
      })
      worst = Math.max(worst, x)
      count++
      assert.ok(x < 1e-4, `${c.name}: error ${x}`)
    }
    assert.ok(count > 0)
    console.log(`  ${className}: ${count} cases, worst error of x ${worst.toExponential(1)}`)
  })
}

/** What no case of the references has: a predicted variance, a mask, all of the basis. */
const everything: StepPlan = {
  initNoiseSigma: 1.5,
  rows: [0, 1, 2, 3].map((i) => ({
    timestep: 900 - 200 * i,
    inputScale: 0.8,
    convert: {
      a: 1.1,
      b: -0.4,
      c: 0.2,
      d: 0.9,
      ...(i === 1 ? { clip: 0.7 } : {}),
      ...(i === 2 ? { threshold: { ratio: 0.9, maxValue: 1.5 } } : {})
    },
    writes: [
      { to: 'r1', terms: { r0: 1, m: 0.1 } },
      { to: 'r0', terms: { h: 1, nPrev: 0.1 } },
      { to: 'x', terms: { x: 0.7, h: 0.2, r1: 0.1, n: i === 1 ? 0 : 0.05, n0: 0.02, orig: 0.03 } }
    ],
    draws: [1, 0, 2, 1][i]!,
    blend: [0.8, 0.3],
    learnedRange: [-4, -1],
    step: true
  }))
}

test('the native loop does what the interpreter says, over all of the basis', () => {
  const values = (k: number): Float32Array => Float32Array.from({ length: 256 }, (_, i) => Math.sin(k * (i + 1)))
  const original = values(0.3)
  const mask = Float32Array.from({ length: 64 }, (_, i) => (i % 3 ? 1 : 0.25))
  const predict = (input: ArrayLike<number>, t: number): Float32Array => {
    const half = standIn(input, t)
    return Float32Array.from({ length: 512 }, (_, i) => (i < 256 ? half[i]! : Math.cos(half[i - 256]!)))
  }
  const noises: Float32Array[] = []
  const rows: { x: Float32Array; p: Float32Array }[] = []
  runPlan(
    everything,
    {
      shape,
      seed: 7,
      original: { data: original, shape },
      mask: { data: mask, shape: [1, 1, 8, 8] },
      onRow: (x, p) => rows.push({ x, p })
    },
    predict
  )
  // The same draws for the interpreter: the initial noise, then four.
  const draws: StepPlan = {
    initNoiseSigma: 1,
    rows: [0, 1, 2, 3].map(() => ({
      timestep: 1,
      inputScale: 1,
      convert: { a: 1, b: 0, c: 0, d: 1 },
      writes: [{ to: 'x', terms: { n: 1 } }],
      draws: 1,
      step: true
    }))
  }
  runPlan(draws, { shape, seed: 7, onRow: (x) => noises.push(x) }, standIn)
  const n0 = runPlan({ initNoiseSigma: 1, rows: [] }, { shape, seed: 7 }, standIn).data
  const expected = interpret(everything, {
    initial: n0,
    model: predict,
    noise: () => noises.shift()!,
    orig: original,
    mask: Float32Array.from({ length: 256 }, (_, i) => mask[i % 64]!)
  })
  assert.is(rows.length, expected.length)
  rows.forEach(({ x, p }, i) => {
    assert.ok(relativeError(x, expected[i]!.x) < 1e-6, `x after row ${i}`)
    assert.ok(relativeError(p, expected[i]!.p) < 1e-6, `p after row ${i}`)
  })
})

test.run()
