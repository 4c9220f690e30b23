/** Building rows: sums over the plan's basis, history registers, and the check and freeze of the finished plan. */
import { DiffusionError } from '../errors.js'
import type { Basis, PlanRow, PlanWrite, Register, StepPlan } from '../step-plan.js'

/** Σ coefficient · basis. */
export type Terms = Readonly<Partial<Record<Basis, number>>>

/** Σ kᵢ · termsᵢ. */
export const combine = (...parts: readonly (readonly [k: number, terms: Terms])[]): Terms => {
  const sum: Partial<Record<Basis, number>> = {}
  for (const [k, terms] of parts)
    for (const [basis, weight] of Object.entries(terms) as [Basis, number][])
      sum[basis] = (sum[basis] ?? 0) + k * weight
  return sum
}

export const scale = (k: number, terms: Terms): Terms => combine([k, terms])

export const write = (to: 'x' | Register, terms: Terms): PlanWrite => ({ to, terms })

/**
 * The last outputs of the model in a ring of registers: pushing overwrites the oldest, nothing is moved. The compiler
 * knows which register holds what; the executor does not.
 */
export class History {
  private pushed = 0

  constructor(private readonly slots: readonly Register[]) {}

  /** How many outputs are held. */
  get length(): number {
    return Math.min(this.pushed, this.slots.length)
  }
  push(terms: Terms): PlanWrite {
    return write(this.slots[this.pushed++ % this.slots.length]!, terms)
  }
  /** The output pushed `back` pushes before the newest (0 is the newest). */
  ago(back: number): Terms {
    if (back >= this.length)
      throw new DiffusionError('ERR_ND_INTERNAL', `history holds ${this.length} outputs, not ${back + 1}`)
    return { [this.slots[(this.pushed - 1 - back) % this.slots.length]!]: 1 }
  }
}

export const registers = (first: number, count: number): Register[] =>
  Array.from({ length: count }, (_, i) => `r${first + i}` as Register)

/** A row as the classes write it; what is left out has its usual value. */
export interface RowSpec {
  readonly timestep: number
  readonly inputScale?: number
  readonly convert: PlanRow['convert']
  readonly writes: readonly PlanWrite[]
  readonly draws?: number
  readonly learnedRange?: readonly [number, number] | undefined
  readonly blend?: readonly [number, number] | undefined
  /** [α, σ] of x in this row; default: the schedule's (Scheduler.levelAt). */
  readonly level?: readonly [alpha: number, sigma: number] | undefined
  readonly step?: boolean
}

/**
 * ε over {x, m}, where x = α·x₀ + σ·ε and x₀ = a·x + b·m: the model's output itself where it is ε (so that nothing is lost
 * to rounding, and also where a scheduler converts it with the level that churning leads to).
 */
const noiseOf = ({ a, b }: PlanRow['convert'], level: RowSpec['level']): readonly [number, number] | undefined => {
  if (!level) return undefined
  const [alpha, sigma] = level
  if (!(sigma > 0)) return undefined
  if (Math.abs(1 - alpha * a) < 1e-9 && b !== 0) return [0, 1]
  return [(1 - alpha * a) / sigma, (-alpha * b) / sigma]
}

/** Deeply frozen, without zero terms. A coefficient that is not finite is an error: the schedule has no such step. */
export const finishRow = (className: string, index: number, spec: RowSpec): PlanRow => {
  const check = (value: number, what: string): number => {
    if (Number.isFinite(value)) return value
    throw new DiffusionError(
      'ERR_ND_INVALID_ARGUMENT',
      `Expected a schedule with finite coefficients for ${className} but received ${value} as ${what} in row ${index} (timestep ${spec.timestep}): ` +
        'a noise level of 0 or infinity (zero terminal SNR with epsilon, a final sigma of zero with this solver, eta above 1); choose another predictionType, finalSigmasType or eta'
    )
  }
  const { convert } = spec
  const noise = noiseOf(convert, spec.level)
  for (const key of ['a', 'b', 'c', 'd'] as const) check(convert[key], `convert.${key}`)
  const writes = spec.writes.map(({ to, terms }) => {
    const kept: Partial<Record<Basis, number>> = {}
    for (const [basis, weight] of Object.entries(terms) as [Basis, number][])
      if (check(weight, `the weight of ${basis} in ${to}`) !== 0) kept[basis] = weight
    return Object.freeze({ to, terms: Object.freeze(kept) })
  })
  return Object.freeze({
    timestep: check(spec.timestep, 'timestep'),
    inputScale: check(spec.inputScale ?? 1, 'inputScale'),
    convert: Object.freeze({ ...convert, ...(convert.threshold && { threshold: Object.freeze(convert.threshold) }) }),
    writes: Object.freeze(writes),
    draws: spec.draws ?? 0,
    ...(spec.learnedRange && { learnedRange: Object.freeze([...spec.learnedRange] as [number, number]) }),
    ...(spec.blend && { blend: Object.freeze([...spec.blend] as [number, number]) }),
    ...(noise && { noise: Object.freeze(noise) }),
    step: spec.step ?? true
  })
}

export const finishPlan = (initNoiseSigma: number, rows: readonly PlanRow[]): StepPlan =>
  Object.freeze({ initNoiseSigma, rows: Object.freeze(rows.slice()) })
