/** Which training timesteps are visited (Lin et al. 2023, table 2): leading, trailing, linspace; falling order. */
import { arange, f32, linspace, roundHalfEven } from './numerics.js'
import { choice, integer } from './options.js'

export type TimestepSpacing = 'leading' | 'trailing' | 'linspace'
export const spacings: readonly TimestepSpacing[] = ['linspace', 'leading', 'trailing']

export const spacingOptions = <const T extends TimestepSpacing>(initial: T) => ({
  timestepSpacing: choice<TimestepSpacing>(initial, spacings),
  /** Added to every timestep of 'leading'. Stable Diffusion was trained with 1. */
  stepsOffset: integer(0)
})

export interface SpacingConfig {
  readonly numTrainTimesteps: number
  readonly timestepSpacing: TimestepSpacing
  readonly stepsOffset: number
}

/**
 * 'trailing': T, T − T/n, … rounded, less one. Rounding makes NumPy's range one longer at a few n (61, 103 …); the extra
 * timestep would be −1 and is left out.
 */
const trailing = (last: number, numTrain: number, steps: number): number[] =>
  arange(last, 0, -(numTrain / steps))
    .map((t) => roundHalfEven(t) - 1)
    .filter((t) => t >= 0)

/** The spacing of DDIM, DDPM and PNDM (whole timesteps) and, with `fractional`, of the sigma-based samplers. */
export const spacedTimesteps = (config: SpacingConfig, steps: number, fractional = false): number[] => {
  const { numTrainTimesteps: T, timestepSpacing, stepsOffset } = config
  switch (timestepSpacing) {
    case 'linspace':
      return linspace(0, T - 1, steps)
        .map(fractional ? f32 : roundHalfEven)
        .reverse()
    case 'leading': {
      const ratio = Math.floor(T / steps)
      return Array.from({ length: steps }, (_, i) => (steps - 1 - i) * ratio + stepsOffset)
    }
    case 'trailing':
      return trailing(T, T, steps)
  }
}

/** The spacing of the DPM-Solver family: steps + 1 points of which the cleanest is left out. `last` counts unclipped timesteps. */
export const solverTimesteps = (config: SpacingConfig, steps: number, last = config.numTrainTimesteps): number[] => {
  const { numTrainTimesteps: T, timestepSpacing, stepsOffset } = config
  switch (timestepSpacing) {
    case 'linspace':
      return linspace(0, last - 1, steps + 1)
        .map(roundHalfEven)
        .reverse()
        .slice(0, -1)
    case 'leading': {
      const ratio = Math.floor(last / (steps + 1))
      return Array.from({ length: steps }, (_, i) => (steps - i) * ratio + stepsOffset)
    }
    case 'trailing':
      return trailing(last, T, steps)
  }
}
