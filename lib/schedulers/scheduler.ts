/** The base of all schedulers: config, plan(), and the forward process. */
import { invalidArgument } from '../errors.js'
import type { StepPlan } from '../step-plan.js'
import { labelOf } from './labels.js'
import {
  camelCase,
  resolveOptions,
  snakeCase,
  type ConfigOf,
  type Field,
  type Schema,
  type ValuesOf
} from './options.js'
import { finishPlan, finishRow, type RowSpec } from './plan-rows.js'
import { checkPlanOptions, checkSteps, rowRange, type PlanOptions } from './plan-options.js'

/** What a class computes first: diffusers' `timesteps` and `sigmas` after set_timesteps. */
export interface Schedule {
  /** One per UNet evaluation. */
  readonly timesteps: readonly number[]
  /** Noise levels, where the class has them: one per row, then the final one. */
  readonly sigmas?: readonly number[]
  /** Standard deviation of the initial latents; 1 where left out. */
  readonly initNoiseSigma?: number
}

/** A scheduler class: its name in diffusers, and the options that it knows. */
export interface SchedulerClass<T = Scheduler> {
  new (config?: never): T
  readonly className: string
  readonly options: Schema
}

/** What is known of every class's options. */
export type CommonSchema = Schema & { readonly numTrainTimesteps: Field<number> }

/** A noise schedule and a solver, of which plan() makes rows for the step loop; configurations are diffusers'. */
export abstract class Scheduler<S extends Schema = CommonSchema, P extends Schedule = Schedule> {
  /** diffusers' class name. */
  static readonly className: string = 'Scheduler'
  static readonly options: Schema = {}

  /** Every option with its value, camelCase, frozen. */
  readonly config: ValuesOf<S>
  /** What `fromConfig` left unused. */
  readonly warnings: string[] = []
  /** Model evaluations per step (diffusers' `order`): img2img leaves out whole steps. */
  readonly order: 1 | 2 = 1

  private readonly explicit: Readonly<Record<string, unknown>>
  private source: Readonly<Record<string, unknown>> = {}
  private current: P | undefined
  private begin = 0

  /** Throws ERR_ND_INVALID_ARGUMENT for an unknown option (the known ones are listed) or a value out of range. */
  constructor(config: ConfigOf<S> = {}) {
    const { className, options } = new.target as unknown as SchedulerClass
    this.config = resolveOptions(className, options as S, config)
    this.explicit = Object.freeze({ ...config })
  }

  /** The class's name in diffusers. */
  get className(): string {
    return (this.constructor as unknown as SchedulerClass).className
  }

  /**
   * From a diffusers config (snake_case, as in scheduler_config.json). Keys that the class does not have are kept, not
   * used, and named in `warnings`; missing keys have the class's defaults. `overrides` (camelCase) win.
   */
  static fromConfig<T extends Scheduler>(
    this: SchedulerClass<T>,
    json: Readonly<Record<string, unknown>>,
    overrides: Readonly<Record<string, unknown>> = {}
  ): T {
    const config: Record<string, unknown> = {}
    const unused: string[] = []
    for (const [key, value] of Object.entries(json)) {
      if (key.startsWith('_') || key === 'class') continue
      const name = camelCase(key)
      // null is None: a default for options that cannot be none
      if (Object.hasOwn(this.options, name)) {
        if (value !== null || this.options[name]!.parse(null) === null) config[name] = value
      } else if (!(name in overrides)) unused.push(key)
    }
    const scheduler = new this({ ...config, ...overrides } as never)
    scheduler.source = Object.freeze({ ...json })
    if (unused.length)
      scheduler.warnings.push(
        `${this.className} does not use the config ${unused.length > 1 ? 'keys' : 'key'} ${unused.join(', ')}; kept for other scheduler classes`
      )
    return scheduler
  }

  /**
   * The config in diffusers' form: what was given, unused keys too (so that another class can take it over), without
   * defaults (which belong to this class).
   */
  toJSON(): Record<string, unknown> {
    const json: Record<string, unknown> = { ...this.source, _class_name: this.className }
    delete json['class']
    for (const [name, value] of Object.entries(this.explicit))
      if (value !== undefined && typeof value !== 'function') json[snakeCase(name)] = value
    return json
  }

  /** The AUTOMATIC1111 name ('DPM++ 2M', 'Karras') for picture metadata; the class name where there is none. */
  get label(): { readonly sampler: string; readonly scheduleType?: string } {
    return labelOf(this.className, this.config)
  }

  /** A key of the config that this instance was made from although the class has no such option (diffusers keeps them readable). */
  protected hidden(key: string): number | undefined {
    const value = this.source[key]
    return typeof value === 'number' ? value : undefined
  }

  /** The schedule of `steps` steps, of all rows. */
  protected abstract schedule(steps: number, options: PlanOptions): P
  /** The rows from `begin` on: solvers start there without history. */
  protected abstract rows(schedule: P, begin: number, options: PlanOptions): RowSpec[]
  /** [α, σ] with x_t = α·x₀ + σ·ε at row `index` of the schedule. */
  protected abstract levelAt(schedule: P, index: number): readonly [alpha: number, sigma: number]
  /** [α, σ] at a timestep. */
  protected abstract levelOf(schedule: P, timestep: number): readonly [alpha: number, sigma: number]
  /** Before the first plan: every training timestep. */
  protected abstract training(): P

  /**
   * Compiles the step plan.
   * @param steps denoising steps, 1 … numTrainTimesteps; ignored where `timesteps` or `sigmas` are given.
   * @returns a frozen plan: one row per UNet evaluation. `timesteps`, `sigmas` and `initNoiseSigma` are set, too.
   */
  plan(steps: number, options: PlanOptions = {}): StepPlan {
    checkPlanOptions(this.className, options)
    const custom = options.timesteps ?? options.sigmas
    if (!custom) checkSteps(steps, (this.config as { numTrainTimesteps?: number }).numTrainTimesteps)
    const schedule = this.schedule(custom ? custom.length : steps, options)
    const all = schedule.timesteps
    const train = (this.config as { numTrainTimesteps?: number }).numTrainTimesteps ?? 1000
    const [begin, end] = rowRange(all, custom ? all.length : steps, this.order, train, options)
    const specs = this.rows(schedule, begin, options).slice(0, end - begin)
    const rows = specs.map((bare, i) => {
      const spec = { level: this.levelAt(schedule, begin + i), ...bare }
      if (!options.blend) return finishRow(this.className, begin + i, spec)
      const blend = i === specs.length - 1 ? ([1, 0] as const) : this.levelAt(schedule, begin + i + 1)
      return finishRow(this.className, begin + i, { ...spec, blend })
    })
    this.current = schedule
    this.begin = begin
    return finishPlan(schedule.initNoiseSigma ?? 1, rows)
  }

  private get state(): P {
    return (this.current ??= this.training())
  }
  /** diffusers' `timesteps` after set_timesteps: all of the last plan's schedule, also where strength starts later. */
  get timesteps(): readonly number[] {
    return this.state.timesteps
  }
  /** Noise levels of the last plan, as diffusers has them after set_timesteps. */
  get sigmas(): readonly number[] | undefined {
    return this.state.sigmas
  }
  /** Standard deviation of the latents before the first row, where they are pure noise. */
  get initNoiseSigma(): number {
    return this.state.initNoiseSigma ?? 1
  }

  /** [α, σ] that img2img's clean latents are noised to before the first row of the last plan (strength, denoisingStart). */
  get startLevel(): readonly [alpha: number, sigma: number] {
    return this.levelAt(this.state, this.begin)
  }

  /** [α, σ] of the forward process at a timestep: x_t = α·x₀ + σ·ε. Sigma-based classes know the timesteps of the last plan only. */
  noiseLevel(timestep: number): readonly [alpha: number, sigma: number] {
    if (!Number.isFinite(timestep)) throw invalidArgument('timestep', 'a finite number', timestep)
    return this.levelOf(this.state, timestep)
  }

  /** The forward process: α·x + σ·noise at `timestep`. Both arrays of one length; a new array is returned. */
  addNoise(x: ArrayLike<number>, noise: ArrayLike<number>, timestep: number): Float32Array {
    if (x.length !== noise.length) throw invalidArgument('noise', `${x.length} values, as many as x`, Array.from(noise))
    const [alpha, sigma] = this.noiseLevel(timestep)
    return Float32Array.from({ length: x.length }, (_, i) => alpha * x[i]! + sigma * noise[i]!)
  }
}

/**
 * The row whose timestep this is, for the classes whose noise levels belong to rows: of several equal ones (the stages of
 * Heun) the second, as diffusers has it. Fractional timesteps may differ in the last float32 digits. −1 where there is none.
 */
export const rowOfTimestep = (timesteps: readonly number[], timestep: number): number => {
  const tolerance = 1e-6 * Math.max(...timesteps.map(Math.abs))
  const found = timesteps.flatMap((t, i) => (Math.abs(t - timestep) <= tolerance ? [i] : []))
  return found[1] ?? found[0] ?? -1
}

/** As rowOfTimestep; throws where there is none. */
export const requireRow = (timesteps: readonly number[], timestep: number): number => {
  const row = rowOfTimestep(timesteps, timestep)
  if (row < 0) throw invalidArgument('timestep', `one of the scheduler's ${timesteps.length} timesteps`, timestep)
  return row
}

/** α·noise − σ·x, the target of v-prediction, for the classes whose diffusers twin has get_velocity. */
export const velocity = (
  [alpha, sigma]: readonly [number, number],
  x: ArrayLike<number>,
  noise: ArrayLike<number>
): Float32Array => {
  if (x.length !== noise.length) throw invalidArgument('noise', `${x.length} values, as many as x`, Array.from(noise))
  return Float32Array.from({ length: x.length }, (_, i) => alpha * noise[i]! - sigma * x[i]!)
}
