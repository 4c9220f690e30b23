/** DPM2 with ancestral noise (k-diffusion's sample_dpm_2_ancestral). diffusers: KDPM2AncestralDiscreteScheduler. */
import { ancestral } from './euler-ancestral-discrete.js'
import { kDPM2DiscreteOptions, MidpointScheduler } from './k-dpm-2-discrete.js'
import type { ConfigOf } from './options.js'

export const kDPM2AncestralDiscreteOptions = kDPM2DiscreteOptions
export type KDPM2AncestralDiscreteConfig = ConfigOf<typeof kDPM2AncestralDiscreteOptions>

export class KDPM2AncestralDiscreteScheduler extends MidpointScheduler<typeof kDPM2AncestralDiscreteOptions> {
  static override readonly className = 'KDPM2AncestralDiscreteScheduler'
  static override readonly options = kDPM2AncestralDiscreteOptions
  protected readonly stochastic = true

  protected step(from: number, next: number): { from: number; middle: number; to: number; noise: number } {
    const { up, down } = ancestral(from, next)
    return { from, middle: Math.sqrt(from * down), to: down, noise: up }
  }
}
