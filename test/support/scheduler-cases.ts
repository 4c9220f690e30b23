/**
 * The reference trajectories of diffusers' schedulers, with a closed-form stand-in for the UNet, for any executor of
 * step plans: the interpreter, and the native loop.
 */
import { existsSync, readFileSync } from 'node:fs'
import { createScheduler, type PlanOptions, type Scheduler } from '#lib/schedulers/index.js'
import type { StepPlan } from '#lib/step-plan.js'
import { relativeError } from './compare.js'
import { reference } from './paths.js'
import { TestFile } from './safetensors.js'
import { TorchRandom } from './torch-random.js'

export interface SchedulerCase {
  readonly name: string
  readonly className: string
  readonly config: Record<string, unknown>
  readonly steps: number
  readonly seed: number
  /** Extra arguments of diffusers' step(), as plan options. */
  readonly call: PlanOptions
  readonly expected: {
    readonly timesteps: Float32Array
    readonly sigmas?: Float32Array
    readonly init: Float32Array
    /** One [1, 4, 8, 8] per row. */
    readonly x: Float32Array[]
  }
}

/** float32: 0.3·sin(2x) + 0.1x + 0.15·cos(0.01t). */
export const standIn = (input: ArrayLike<number>, timestep: number): Float32Array => {
  const shift = 0.15 * Math.cos(0.01 * timestep)
  return Float32Array.from(input, (v) => 0.3 * Math.sin(2 * v) + 0.1 * v + shift)
}

const callNames: Record<string, string> = {
  eta: 'eta',
  s_churn: 'sChurn',
  s_tmin: 'sTmin',
  s_tmax: 'sTmax',
  s_noise: 'sNoise'
}

export function* schedulerCases(className: string): Generator<SchedulerCase> {
  const path = reference('schedulers', className)
  if (!existsSync(`${path}.json`)) throw new Error(`no reference for ${className}`)
  const entries = JSON.parse(readFileSync(`${path}.json`, 'utf8')) as {
    config: Record<string, unknown>
    steps: number
    seed: number
    call: Record<string, number>
  }[]
  const file = new TestFile(`${path}.safetensors`)
  for (const [i, { config, steps, seed, call }] of entries.entries()) {
    const all = file.floats(`${i}.x`)
    yield {
      name: `${className} ${i}: ${JSON.stringify(config)}, ${steps} steps`,
      className,
      config,
      steps,
      seed,
      call: Object.fromEntries(Object.entries(call).map(([k, v]) => [callNames[k]!, v])),
      expected: {
        timesteps: file.floats(`${i}.timesteps`),
        ...(file.has(`${i}.sigmas`) && { sigmas: file.floats(`${i}.sigmas`) }),
        init: file.floats(`${i}.init`),
        x: Array.from({ length: all.length / 256 }, (_, k) => all.slice(256 * k, 256 * (k + 1)))
      }
    }
  }
}

/** Runs a plan from `initial` (n0, not scaled) with the stand-in and gives x after every row. */
export type Executor = (
  plan: StepPlan,
  inputs: { initial: Float32Array; model: typeof standIn; noise: () => Float32Array }
) => ArrayLike<number>[]

export interface CaseErrors {
  readonly scheduler: Scheduler
  /** Largest difference of a timestep, and of a sigma, as a share of the largest. */
  readonly timesteps: number
  readonly sigmas: number
  readonly init: number
  /** Of x over all rows, as a share of the largest value of its row. */
  readonly x: number
}

/** The errors of one case. Throws where the number of rows, timesteps or sigmas differs. */
export const check = (c: SchedulerCase, execute: Executor): CaseErrors => {
  const scheduler = createScheduler({ _class_name: c.className, ...c.config })
  const plan = scheduler.plan(c.steps, c.call)
  if (plan.rows.length !== c.expected.timesteps.length)
    throw new Error(`${c.name}: ${plan.rows.length} rows instead of ${c.expected.timesteps.length}`)
  const random = new TorchRandom(c.seed)
  const initial = random.randn(256)
  const rows = execute(plan, { initial, model: standIn, noise: () => random.randn(256) })
  return {
    scheduler,
    timesteps: relativeError(
      plan.rows.map((row) => Math.fround(row.timestep)),
      c.expected.timesteps
    ),
    sigmas: c.expected.sigmas && scheduler.sigmas ? relativeError(scheduler.sigmas, c.expected.sigmas) : 0,
    init: relativeError(
      initial.map((v) => v * plan.initNoiseSigma),
      c.expected.init
    ),
    x: Math.max(...rows.map((x, i) => relativeError(x, c.expected.x[i]!)))
  }
}
