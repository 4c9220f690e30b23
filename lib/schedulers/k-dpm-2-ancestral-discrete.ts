/** DPM2 with ancestral noise (k-diffusion's sample_dpm_2_ancestral). diffusers: KDPM2AncestralDiscreteScheduler. */
import { ancestral } from './euler-ancestral-discrete.js'
import { kDPM2DiscreteOptions, MidpointScheduler } from './k-dpm-2-discrete.js'
import type { ConfigOf } from './options.js'

export const kDPM2AncestralDiscreteOptions = kDPM2DiscreteOptions
/** Options of KDPM2AncestralDiscreteScheduler, with diffusers' names and defaults. */
export type KDPM2AncestralDiscreteConfig = ConfigOf<typeof kDPM2AncestralDiscreteOptions>

/**
 * diffusers' KDPM2AncestralDiscreteScheduler as a step plan.
 * @throws DiffusionError ERR_ND_INVALID_ARGUMENT for options that are unknown or out of range
 */
export class KDPM2AncestralDiscreteScheduler extends MidpointScheduler<typeof kDPM2AncestralDiscreteOptions> {
  static override readonly className = 'KDPM2AncestralDiscreteScheduler'
  static override readonly options = kDPM2AncestralDiscreteOptions
  protected readonly stochastic = true

  protected step(from: number, next: number): { from: number; middle: number; to: number; noise: number } {
    const { up, down } = ancestral(from, next)
    return { from, middle: Math.sqrt(from * down), to: down, noise: up }
  }
}
