/** Every reference trajectory of diffusers through the TypeScript interpreter. */
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { runPlan } from '#lib/interpreter.js'
import { schedulerClasses } from '#lib/schedulers/index.js'
import { relativeError } from './support/compare.js'
import { reference } from './support/paths.js'
import { TestFile } from './support/safetensors.js'
import { check, schedulerCases, type Executor } from './support/scheduler-cases.js'
import { TorchRandom } from './support/torch-random.js'

const interpreter: Executor = (plan, inputs) => runPlan(plan, inputs).map((row) => row.x)

test('the tests’ generator is torch’s', () => {
  const file = new TestFile(reference('rng.safetensors'))
  for (const name of file.names.filter((n) => n.startsWith('f32.'))) {
    const [, seed, count] = name.split('.')
    if (Number(count) < 16) continue
    assert.ok(relativeError(new TorchRandom(BigInt(seed!)).randn(Number(count)), file.floats(name)) < 1e-6, name)
  }
})

for (const className of schedulerClasses.keys()) {
  test(`${className}: every reference trajectory`, () => {
    let worst = 0
    let count = 0
    for (const c of schedulerCases(className)) {
      const errors = check(c, interpreter)
      // whole timesteps are equal; fractional ones come from float32 logarithms
      const whole = c.expected.timesteps.every(Number.isInteger)
      assert.ok(errors.timesteps <= (whole ? 0 : 1e-6), `${c.name}: timesteps off by ${errors.timesteps}`)
      assert.ok(errors.sigmas < 1e-6, `${c.name}: sigmas off by ${errors.sigmas}`)
      assert.ok(errors.init < 1e-6, `${c.name}: init off by ${errors.init}`)
      assert.ok(errors.x < 1e-4, `${c.name}: x off by ${errors.x}`)
      worst = Math.max(worst, errors.x)
      count++
    }
    console.log(`  ${className}: ${count} cases, worst error of x ${worst.toExponential(1)}`)
  })
}

test.run()
