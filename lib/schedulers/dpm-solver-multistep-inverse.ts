/** DPM-Solver multistep backwards, from a picture to its noise. diffusers: DPMSolverMultistepInverseScheduler. */
import { checkFlow, DPMSolverBase, dpmSolverOptions } from './dpm-solver-multistep.js'
import { arange, f32, interpolate, linspace, roundHalfEven } from './numerics.js'
import type { ConfigOf } from './options.js'
import { refuseCustom, type PlanOptions } from './plan-options.js'
import { flowSigmas, scheduledSigmas, sigmaToTimestep } from './sigmas.js'
import type { SolverSchedule } from './variance-preserving.js'

export const dpmSolverMultistepInverseOptions = dpmSolverOptions
/** Options of DPMSolverMultistepInverseScheduler, with diffusers' names and defaults. */
export type DPMSolverMultistepInverseConfig = ConfigOf<typeof dpmSolverMultistepInverseOptions>

/**
 * diffusers' DPMSolverMultistepInverseScheduler as a step plan.
 * @throws DiffusionError ERR_ND_INVALID_ARGUMENT for options that are unknown or out of range
 */
export class DPMSolverMultistepInverseScheduler extends DPMSolverBase<typeof dpmSolverMultistepInverseOptions> {
  static override readonly className = 'DPMSolverMultistepInverseScheduler'
  static override readonly options = dpmSolverMultistepInverseOptions

  constructor(config: DPMSolverMultistepInverseConfig = {}) {
    super(config)
    checkFlow(this.config)
  }

  /** Timesteps and sigmas rise (flow sigmas excepted, as in diffusers); a timestep that comes twice is visited once. */
  protected schedule(steps: number, options: PlanOptions): SolverSchedule {
    refuseCustom(this.className, options, 'timesteps', 'sigmas')
    const { config, trained } = this
    const unclipped = this.unclipped()
    const cleanest = trained[0]!
    const noisiest = trained[trained.length - 1]!
    const rescheduled = scheduledSigmas(
      config,
      this.sigmaBound('sigmaMin') ?? noisiest,
      this.sigmaBound('sigmaMax') ?? cleanest,
      steps
    )
    let timesteps: number[]
    let sigmas: number[]
    if (rescheduled) {
      timesteps = rescheduled
        .map((s) => sigmaToTimestep(s, this.logs))
        .map(config.useKarrasSigmas ? roundHalfEven : Math.trunc)
      sigmas = [...rescheduled, rescheduled[steps - 1]!]
    } else if (config.useFlowSigmas) {
      const flow = flowSigmas(config.numTrainTimesteps, config.flowShift, steps)
      timesteps = flow.map((s) => Math.trunc(s * config.numTrainTimesteps))
      sigmas = [...flow, flow[steps - 1]!]
    } else {
      timesteps = this.rising(steps, unclipped)
      sigmas = [...timesteps.map((t) => interpolate(t, trained)), trained[unclipped - 1]!]
    }
    return { timesteps: [...new Set(timesteps)], sigmas: sigmas.map(f32) }
  }

  private rising(steps: number, unclipped: number): number[] {
    const { numTrainTimesteps: T, timestepSpacing, stepsOffset } = this.config
    switch (timestepSpacing) {
      case 'linspace':
        return linspace(0, unclipped - 1, steps + 1)
          .map(roundHalfEven)
          .slice(0, -1)
      case 'leading': {
        const ratio = Math.floor(unclipped / (steps + 1))
        return Array.from({ length: steps }, (_, i) => i * ratio + stepsOffset)
      }
      case 'trailing':
        return arange(unclipped, 0, -(T / steps))
          .map((t) => roundHalfEven(t) - 1)
          .filter((t) => t >= 0)
          .reverse()
    }
  }
}
