/** The base of the classes that work on ᾱ directly: x_t = √ᾱ·x₀ + √(1 − ᾱ)·ε. */
import { alphaAt, makeAlphasCumprod, type BetaConfig } from './betas.js'
import type { ConfigOf, Schema } from './options.js'
import { Scheduler, type Schedule } from './scheduler.js'

export abstract class AlphaScheduler<S extends Schema, P extends Schedule = Schedule> extends Scheduler<S, P> {
  /** ᾱ of every training timestep. */
  readonly alphasCumprod: readonly number[]

  constructor(config: ConfigOf<S> = {}) {
    super(config)
    this.alphasCumprod = Object.freeze(makeAlphasCumprod(this.config as unknown as BetaConfig))
  }
  /** ᾱ after step t where t may lie before the first timestep: `final` there. */
  protected alpha(timestep: number, final?: number): number {
    return timestep < 0 && final !== undefined ? final : alphaAt(this.alphasCumprod, timestep)
  }
  protected levelOf(_: P, timestep: number): readonly [number, number] {
    const alpha = this.alpha(timestep)
    return [Math.sqrt(alpha), Math.sqrt(1 - alpha)]
  }
  protected levelAt(schedule: P, index: number): readonly [number, number] {
    return this.levelOf(schedule, schedule.timesteps[index]!)
  }
  protected training(): P {
    return { timesteps: this.alphasCumprod.map((_, i, all) => all.length - 1 - i) } as unknown as P
  }
}
