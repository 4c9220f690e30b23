/** What the schedulers promise beyond diffusers' trajectories: checks, definitions, names, inheritance. */
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { runPlan } from '#lib/interpreter.js'
import {
  createScheduler,
  DDIMScheduler,
  DDPMScheduler,
  DPMSolverMultistepScheduler,
  EulerAncestralDiscreteScheduler,
  EulerDiscreteScheduler,
  FlowMatchEulerDiscreteScheduler,
  HeunDiscreteScheduler,
  LCMScheduler,
  LMSDiscreteScheduler,
  parseConfigJson,
  PNDMScheduler,
  samplerLabels,
  schedulerClasses,
  TCDScheduler,
  UnCLIPScheduler,
  UniPCMultistepScheduler,
  type PlanOptions,
  type Scheduler
} from '#lib/schedulers/index.js'
import { incompleteBeta, inverseIncompleteBeta } from '#lib/schedulers/beta-distribution.js'
import type { StepPlan } from '#lib/step-plan.js'
import { relativeError } from './support/compare.js'
import { standIn } from './support/scheduler-cases.js'
import { TorchRandom } from './support/torch-random.js'

const sd = { beta_start: 0.00085, beta_end: 0.012, beta_schedule: 'scaled_linear' }
const stable = {
  ...sd,
  _class_name: 'PNDMScheduler',
  steps_offset: 1,
  skip_prk_steps: true,
  set_alpha_to_one: false,
  clip_sample: false
}

const fails = (f: () => unknown, pattern: RegExp, code = 'ERR_ND_INVALID_ARGUMENT'): void => {
  try {
    f()
  } catch (error) {
    assert.is((error as { code: string }).code, code, String(error))
    assert.match((error as Error).message, pattern)
    return
  }
  assert.unreachable(`no error: ${f.toString()}`)
}
const run = (plan: StepPlan, seed = 1, model = standIn): Float64Array[] => {
  const random = new TorchRandom(seed)
  return runPlan(plan, { initial: random.randn(256), model, noise: () => random.randn(256) }).map((r) => r.x)
}
const last = <T>(values: readonly T[]): T => values[values.length - 1]!

test('constructors refuse unknown options and bad values', () => {
  fails(() => new DDIMScheduler({ betaStrat: 1 } as never), /betaStart.*betaStrat/s)
  fails(() => new DDIMScheduler({ beta_start: 1 } as never), /beta_start/)
  fails(() => new DDIMScheduler({ betaStart: NaN }), /betaStart.*NaN/s)
  fails(() => new DDIMScheduler({ betaStart: '1' as never }), /a finite number/)
  fails(() => new DDIMScheduler({ predictionType: 'noise' as never }), /'epsilon', 'sample', 'v_prediction'/)
  fails(() => new DDIMScheduler({ numTrainTimesteps: 0 }), /numTrainTimesteps/)
  fails(() => new DDIMScheduler({ trainedBetas: [0.1] }), /1000 values/)
  fails(() => new DDIMScheduler(3 as never), /an object/)
  fails(() => new DDIMScheduler(null as never), /an object/)
  fails(() => new EulerDiscreteScheduler({ useKarrasSigmas: true, useBetaSigmas: true }), /at most one/)
  fails(() => new DPMSolverMultistepScheduler({ algorithmType: 'dpmsolver' }), /'sigma_min'/)
  fails(() => new UniPCMultistepScheduler({ solverOrder: 8 }), /at most 7/, 'ERR_ND_UNSUPPORTED')
  fails(() => new UniPCMultistepScheduler({ shiftTerminal: 0.1 }), /useFlowSigmas/)
  assert.is(new DDIMScheduler({ betaStart: undefined }).config.betaStart, 0.0001)
})

test('every class refuses bad steps and bad plan options', () => {
  for (const Class of schedulerClasses.values()) {
    const scheduler = Class.fromConfig({})
    for (const steps of [0, -1, 2.5, NaN, Infinity, '4' as never, undefined as never])
      fails(() => scheduler.plan(steps), /steps/)
    fails(() => scheduler.plan(100_000), /steps/)
    for (const options of [
      { eta: NaN },
      { eta: -1 },
      { strength: 1.1 },
      { strength: NaN },
      { sChurn: -1 },
      { steps: 3 },
      { timesteps: [] }
    ])
      fails(() => scheduler.plan(4, options as PlanOptions), new RegExp(Object.keys(options)[0]!))
    fails(() => scheduler.plan(4, { strength: 0 }), /strength/)
  }
})

test('every class plans 1, 2, 5 and as many steps as it was trained on; plans are frozen and finite', () => {
  for (const Class of schedulerClasses.values()) {
    const scheduler = Class.fromConfig({})
    const train = scheduler.config.numTrainTimesteps
    for (const steps of [1, 2, 5, train]) {
      if (scheduler instanceof PNDMScheduler && steps < 4) continue // Runge-Kutta stages need four
      if (scheduler instanceof UnCLIPScheduler && steps < 2) continue
      if ((scheduler instanceof LCMScheduler || scheduler instanceof TCDScheduler) && steps > 50) continue
      const plan = scheduler.plan(steps)
      const name = `${Class.className}, ${steps} steps`
      // backwards, a timestep that rounding makes twice is visited once
      const inverse = Class.className === 'DPMSolverMultistepInverseScheduler' && steps === train
      assert.is(plan.rows.filter((r) => r.step).length, inverse ? 999 : steps, name)
      assert.is(plan.rows.length, scheduler.timesteps.length, name)
      assert.ok(Object.isFrozen(plan) && Object.isFrozen(plan.rows), name)
      for (const row of plan.rows) {
        assert.ok(Object.isFrozen(row) && Object.isFrozen(row.convert) && Object.isFrozen(row.writes), name)
        for (const write of row.writes) {
          assert.ok(Object.isFrozen(write) && Object.isFrozen(write.terms), name)
          for (const weight of Object.values(write.terms)) assert.ok(Number.isFinite(weight) && weight !== 0, name)
        }
      }
      if (steps <= 5)
        assert.ok(
          run(plan).every((x) => x.every(Number.isFinite)),
          name
        )
    }
  }
})

test('every class keeps its config and can be made again from its JSON', () => {
  for (const Class of schedulerClasses.values()) {
    const scheduler = Class.fromConfig({ num_train_timesteps: 60, another_key: 1 })
    const again = createScheduler(JSON.parse(JSON.stringify(scheduler)))
    assert.is(again.className, Class.className)
    assert.equal(again.config, scheduler.config)
    assert.is(again.toJSON()['another_key'], 1)
    assert.ok(Object.isFrozen(scheduler.config))
    assert.match(scheduler.warnings.join(), /another_key/)
  }
})

test('one DDIM step is equation 12', () => {
  const scheduler = new DDIMScheduler({ clipSample: false })
  const [row] = scheduler.plan(1).rows
  const alpha = scheduler.alphasCumprod[0]!
  assert.is(row!.timestep, 0)
  // to ᾱ = 1: x₀ itself
  const x = run(scheduler.plan(1))[0]!
  const n = new TorchRandom(1).randn(256)
  const expected = n.map((v, i) => (v - Math.sqrt(1 - alpha) * standIn(n, 0)[i]!) / Math.sqrt(alpha))
  assert.ok(relativeError(x, expected) < 1e-6)
})

test('a model that knows the noise is followed back to the original by every deterministic solver', () => {
  // with the true ε of a fixed x₀ the ODE has an exact solution that first-order steps of x₀-form solvers keep
  const original = new TorchRandom(9).randn(256)
  for (const className of [
    'DDIMScheduler',
    'DPMSolverMultistepScheduler',
    'UniPCMultistepScheduler',
    'EulerDiscreteScheduler',
    'HeunDiscreteScheduler',
    'LMSDiscreteScheduler',
    'DEISMultistepScheduler',
    'DPMSolverSinglestepScheduler',
    'SASolverScheduler'
  ]) {
    const options = { ...sd, prediction_type: 'sample', clip_sample: false }
    const plan = createScheduler({ _class_name: className, ...options }).plan(20)
    const x = last(run(plan, 4, () => original))
    assert.ok(relativeError(x, original) < 0.06, `${className}: ${relativeError(x, original)}`)
  }
})

test('addNoise: α·x + σ·noise of each class', () => {
  const x = new Float32Array([1, -2])
  const noise = new Float32Array([0.5, 3])
  const ddim = new DDIMScheduler()
  const alpha = ddim.alphasCumprod[500]!
  assert.equal(
    ddim.addNoise(x, noise, 500),
    Float32Array.from([0, 1], (i) => Math.sqrt(alpha) * x[i]! + Math.sqrt(1 - alpha) * noise[i]!)
  )
  assert.equal(
    ddim.getVelocity(x, noise, 500),
    Float32Array.from([0, 1], (i) => Math.sqrt(alpha) * noise[i]! - Math.sqrt(1 - alpha) * x[i]!)
  )
  assert.equal(new DDPMScheduler().addNoise(x, noise, 500), ddim.addNoise(x, noise, 500))
  // sigma-based: the timesteps of the plan; every training timestep before the first one
  const euler = new EulerDiscreteScheduler()
  const sigma = Math.fround(Math.sqrt((1 - alpha) / alpha))
  assert.ok(relativeError(euler.addNoise(x, noise, 500), [1 + 0.5 * sigma, -2 + 3 * sigma]) < 1e-6)
  euler.plan(5)
  assert.ok(
    relativeError(
      euler.addNoise(x, noise, euler.timesteps[2]!),
      x.map((v, i) => v + euler.sigmas![2]! * noise[i]!)
    ) < 1e-7
  )
  fails(() => euler.addNoise(x, noise, 500), /timestep/)
  const dpm = new DPMSolverMultistepScheduler()
  assert.ok(relativeError(dpm.addNoise(x, noise, 500), ddim.addNoise(x, noise, 500)) < 1e-6)
  const flow = new FlowMatchEulerDiscreteScheduler()
  assert.ok(relativeError(flow.addNoise(x, noise, 250), [0.75 + 0.125, -1.5 + 0.75]) < 1e-6)
  fails(() => ddim.addNoise(x, new Float32Array(3), 500), /noise/)
  fails(() => ddim.addNoise(x, noise, NaN), /timestep/)
  fails(() => ddim.addNoise(x, noise, 1000), /1000/, 'ERR_ND_UNSUPPORTED')
})

test('strength leaves out whole steps and says the noise level to start from', () => {
  const ddim = new DDIMScheduler({ stepsOffset: 1 })
  const plan = ddim.plan(50, { strength: 0.75 })
  assert.is(plan.rows.length, 37)
  assert.is(ddim.timesteps.length, 50)
  assert.is(plan.rows[0]!.timestep, ddim.timesteps[13])
  assert.equal(ddim.startLevel, ddim.noiseLevel(ddim.timesteps[13]!))
  const heun = new HeunDiscreteScheduler()
  assert.is(heun.plan(10, { strength: 0.5 }).rows.length, 9)
  assert.equal(heun.startLevel, [1, heun.sigmas![10]!])
  // solvers begin without history: the first row is of first order
  const dpm = new DPMSolverMultistepScheduler()
  assert.not.ok('r1' in dpm.plan(20, { strength: 0.5 }).rows[0]!.writes[1]!.terms)
})

test('denoisingEnd and denoisingStart share out one schedule', () => {
  for (const className of ['EulerDiscreteScheduler', 'DDIMScheduler', 'HeunDiscreteScheduler']) {
    const scheduler = createScheduler({ _class_name: className, ...sd })
    const base = scheduler.plan(10, { denoisingEnd: 0.8 }).rows.map((r) => r.timestep)
    const refiner = scheduler.plan(10, { denoisingStart: 0.8 }).rows.map((r) => r.timestep)
    assert.ok(Math.min(...base) >= 200 && Math.max(...refiner) <= 223, className)
    if (scheduler.order === 1) assert.equal([...base, ...refiner], scheduler.timesteps)
  }
  fails(() => new DDIMScheduler().plan(10, { denoisingStart: 1 }), /denoisingStart/)
})

test('options that a class does not take are ignored; custom timesteps where they are not taken are refused', () => {
  const euler = new EulerDiscreteScheduler()
  assert.equal(euler.plan(5, { eta: 1 }), euler.plan(5))
  assert.equal(new DDIMScheduler().plan(5, { sChurn: 3 }), new DDIMScheduler().plan(5))
  fails(() => new DDIMScheduler().plan(5, { timesteps: [900, 10] }), /timesteps/)
  fails(() => new LMSDiscreteScheduler().plan(5, { sigmas: [3, 0] }), /sigmas/)
  fails(() => new DDPMScheduler().plan(5, { timesteps: [10, 900] }), /falling/)
  assert.equal(
    new DDPMScheduler().plan(1, { timesteps: [900, 10] }).rows.map((r) => r.timestep),
    [900, 10]
  )
  assert.equal(euler.plan(1, { timesteps: [999, 499, 0] }), euler.plan(3, { timesteps: [999, 499, 0] }))
  euler.plan(1, { sigmas: [10, 1, 0] })
  assert.equal(euler.sigmas, [10, 1, 0])
})

test('zero terminal SNR: v-prediction works, epsilon has no step and says so', () => {
  const options = { rescaleBetasZeroSnr: true, timestepSpacing: 'trailing' } as const
  assert.ok(
    run(new DDIMScheduler({ ...options, predictionType: 'v_prediction' }).plan(5)).every((x) =>
      x.every(Number.isFinite)
    )
  )
  fails(() => new DDIMScheduler(options).plan(5), /zero terminal SNR/)
  assert.is(last(new EulerDiscreteScheduler(options).alphasCumprod), 2 ** -24)
})

test('timesteps outside the training range are refused', () => {
  fails(() => new DDIMScheduler({ stepsOffset: 1 }).plan(1000), /1000/, 'ERR_ND_UNSUPPORTED')
  // NumPy's range is one longer than asked for at 61 trailing steps
  const trailing = new DDIMScheduler({ timestepSpacing: 'trailing' })
  assert.is(trailing.plan(61).rows.length, 61)
  assert.is(last(trailing.timesteps), 0 + Math.round(1000 / 61) - 1)
})

test('blend puts the original back at the next row’s noise level', () => {
  const ddim = new DDIMScheduler()
  const plan = ddim.plan(4, { blend: true })
  assert.equal(
    plan.rows.map((r) => r.blend),
    [...ddim.timesteps.slice(1).map((t) => ddim.noiseLevel(t)), [1, 0]]
  )
  const orig = new TorchRandom(3).randn(256)
  const mask = new Float32Array(256).fill(1, 128)
  const random = new TorchRandom(1)
  const rows = runPlan(plan, { initial: random.randn(256), model: standIn, noise: () => random.randn(256), orig, mask })
  assert.equal(last(rows).x.slice(0, 128), Float64Array.from(orig.slice(0, 128)))
  const free = last(run(ddim.plan(4)))
  assert.ok(relativeError(last(rows).x.slice(128), free.slice(128)) < 1e-6)
})

test('learned variance scales the noise between its two bounds', () => {
  const learned = new DDPMScheduler({ varianceType: 'learned_range', clipSample: false })
  const [small, large] = [
    new DDPMScheduler({ clipSample: false }),
    new DDPMScheduler({ varianceType: 'fixed_large', clipSample: false })
  ]
  const twice = (v: number) => (input: ArrayLike<number>, t: number) =>
    Float32Array.from([...standIn(input, t), ...new Float32Array(256).fill(v)])
  assert.ok(relativeError(last(run(learned.plan(6), 2, twice(-1))), last(run(small.plan(6), 2))) < 1e-6)
  assert.ok(relativeError(last(run(learned.plan(6), 2, twice(1))), last(run(large.plan(6), 2))) < 1e-6)
  fails(() => run(learned.plan(6)), /512 values/)
  fails(() => new DDPMScheduler({ varianceType: 'learned' }).plan(3), /learned_range/, 'ERR_ND_UNSUPPORTED')
})

test('dynamic thresholding works image by image', () => {
  const scheduler = new DDIMScheduler({
    clipSample: false,
    thresholding: true,
    sampleMaxValue: 3,
    dynamicThresholdingRatio: 0.5
  })
  const initial = new Float32Array([1, 2, 3, 4, 10, 20, 30, 40])
  const [row] = runPlan(scheduler.plan(1), { initial, batch: 2, model: (x) => new Float64Array(x.length) })
  const alpha = Math.sqrt(scheduler.alphasCumprod[0]!)
  const s = 2.5 / alpha // the median of the first image; the second's is cut to 3
  const expected = [...[1, 2, 3, 4].map((v) => Math.min(v / alpha, s) / s), 1, 1, 1, 1]
  assert.ok(relativeError(row!.p, expected) < 1e-9)
})

test('the interpreter refuses what a plan lacks', () => {
  const plan = new EulerAncestralDiscreteScheduler().plan(2)
  fails(() => runPlan(plan, { initial: new Float32Array(16), model: standIn }), /noise/)
  fails(() => runPlan(plan, { initial: new Float32Array(16), model: () => new Float32Array(3) }), /16 values/)
})

test('createScheduler: class names, labels, configs, instances', () => {
  assert.instance(createScheduler('DDIMScheduler'), DDIMScheduler)
  assert.instance(createScheduler({ class: 'DDIMScheduler' }), DDIMScheduler)
  assert.is(createScheduler({ _class_name: 'DDIMScheduler', beta_start: 0.5 }).config['betaStart'], 0.5)
  const own = new LCMScheduler()
  assert.is(createScheduler(own), own)
  const karras = createScheduler('DPM++ 2M Karras')
  assert.instance(karras, DPMSolverMultistepScheduler)
  assert.is(karras.config['useKarrasSigmas'], true)
  assert.equal(karras.label, { sampler: 'DPM++ 2M', scheduleType: 'Karras' })
  assert.is(createScheduler('dpm++ 2m sde').config['algorithmType'], 'sde-dpmsolver++')
  assert.is(createScheduler('DPM++ 2M SDE Heun Exponential').config['solverType'], 'heun')
  assert.instance(createScheduler('Euler a'), EulerAncestralDiscreteScheduler)
  assert.is(createScheduler('Euler SGM Uniform').config['timestepSpacing'], 'trailing')
  assert.is(createScheduler('PLMS').config['skipPrkSteps'], true)
  for (const { label } of samplerLabels) assert.is(createScheduler(label).label.sampler, label)
  fails(() => createScheduler('Euler b'), /DDIMScheduler.*Euler a.*Euler b/s)
  fails(() => createScheduler('DDIM Karras'), /no option useKarrasSigmas/)
  fails(() => createScheduler('DPM++ SDE Karras'), /nearest/)
  fails(() => createScheduler('constructor'), /constructor/)
  fails(() => createScheduler({}), /_class_name/)
  fails(() => createScheduler([] as never), /a class name/)
})

test('createScheduler takes the model’s config over, as from_config does', () => {
  const ddim = createScheduler('DDIMScheduler', stable)
  assert.is(ddim.config['betaSchedule'], 'scaled_linear')
  assert.is(ddim.config['stepsOffset'], 1)
  assert.is(ddim.config['clipSample'], false) // hidden in PNDM's config, known to DDIM
  assert.is(ddim.config['timestepSpacing'], 'leading') // not given: DDIM's own default
  assert.equal(ddim.warnings, [])
  assert.is(createScheduler('Euler', stable).config['timestepSpacing'], 'linspace')
  // and back: nothing is lost on the way
  const back = createScheduler('PNDMScheduler', createScheduler('DPM++ 2M Karras', ddim.toJSON()).toJSON())
  assert.is(back.config['skipPrkSteps'], true)
  assert.is(back.config['setAlphaToOne'], false)
  // a label says which sigmas, whatever the model's config says
  assert.is(createScheduler('Euler', { ...stable, use_karras_sigmas: true }).config['useKarrasSigmas'], false)
  assert.is(
    createScheduler('EulerDiscreteScheduler', { ...stable, use_karras_sigmas: true }).config['useKarrasSigmas'],
    true
  )
  // words of other classes are translated
  const unipc: Record<string, unknown> = createScheduler({
    _class_name: 'UniPCMultistepScheduler',
    ...sd,
    solver_type: 'bh1'
  }).toJSON()
  assert.is(createScheduler('DPMSolverMultistepScheduler', unipc).config['solverType'], 'midpoint')
  const fixed = { ...sd, variance_type: 'fixed_small' } // DDPM's
  assert.is(createScheduler('DPM++ 2M SDE', fixed).config['varianceType'], 'fixed_small')
  assert.match(createScheduler('DDIMScheduler', { ...stable, odd_key: 1 }).warnings.join(), /odd_key/)
  fails(() => createScheduler({ _class_name: 'DDIMScheduler', beta_start: 'x' }), /betaStart/)
})

test('config files with Python’s Infinity', () => {
  const json = parseConfigJson(
    '{"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": -Infinity, "note": "Infinity, NaN", "trained_betas": null}'
  )
  assert.is(json['lambda_min_clipped'], -Infinity)
  assert.is(json['note'], 'Infinity, NaN')
  assert.is(createScheduler(json).config['lambdaMinClipped'], -Infinity)
  assert.throws(() => parseConfigJson('{broken'))
})

test('the inverse incomplete beta function inverts, and knows I_x(½, ½) = 2/π·asin √x', () => {
  for (const p of [1e-6, 0.01, 0.2, 0.5, 0.77, 0.999, 1 - 1e-6]) {
    assert.ok(Math.abs(incompleteBeta(inverseIncompleteBeta(p, 0.6, 0.6), 0.6, 0.6) - p) < 1e-12)
    assert.ok(Math.abs(inverseIncompleteBeta(p, 0.5, 0.5) - Math.sin((Math.PI / 2) * p) ** 2) < 1e-12)
  }
  assert.is(inverseIncompleteBeta(0, 0.6, 0.6), 0)
  assert.is(inverseIncompleteBeta(1, 0.6, 0.6), 1)
})

test('UniPC of higher orders comes nearer to the exact solution than order 1', () => {
  const end = (options: Record<string, unknown>, steps: number): Float64Array =>
    last(
      run(
        (
          createScheduler({
            _class_name: 'UniPCMultistepScheduler',
            ...sd,
            final_sigmas_type: 'sigma_min',
            ...options
          }) as Scheduler
        ).plan(steps),
        5
      )
    )
  const exact = end({ solver_order: 3 }, 400)
  const first = relativeError(end({ solver_order: 1 }, 40), exact)
  for (const solver_order of [2, 3, 4, 5])
    assert.ok(relativeError(end({ solver_order }, 40), exact) < first, `order ${solver_order}`)
})

test.run()
