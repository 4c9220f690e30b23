/** Noise schedules of the forward process: β and ᾱ = Π(1 − β), as diffusers computes them (float32 tables). */
import { invalidArgument, unsupported } from '../errors.js'
import { f32, linspaceF32 } from './numerics.js'
import { choice, integer, maybe, number, numbers, type Field } from './options.js'

export type BetaSchedule = 'linear' | 'scaled_linear' | 'squaredcos_cap_v2' | 'sigmoid' | 'laplace' | 'exp'

/** The options that every class with a β schedule has. Defaults are DDPM's; latent diffusion uses 0.00085, 0.012, scaled_linear. */
export const betaOptions = {
  /** Steps of the forward process that the model was trained on. */
  numTrainTimesteps: integer(1000, 1),
  betaStart: number(0.0001),
  betaEnd: number(0.02),
  betaSchedule: choice('linear', ['linear', 'scaled_linear', 'squaredcos_cap_v2']) as Field<BetaSchedule>,
  /** The β themselves, one per training timestep; the three options above are then not used. */
  trainedBetas: maybe(numbers)
}

export interface BetaConfig {
  readonly numTrainTimesteps: number
  readonly betaStart: number
  readonly betaEnd: number
  readonly betaSchedule: BetaSchedule
  readonly trainedBetas: readonly number[] | null
}

/** ᾱ(t) of the continuous schedules: cosine (Nichol and Dhariwal 2021), Laplace, exponential. */
const alphaBar: Record<'squaredcos_cap_v2' | 'laplace' | 'exp', (t: number) => number> = {
  squaredcos_cap_v2: (t) => Math.cos((((t + 0.008) / 1.008) * Math.PI) / 2) ** 2,
  laplace: (t) => {
    const lambda = -0.5 * (t > 0.5 ? -1 : 1) * Math.log(1 - 2 * Math.abs(0.5 - t) + 1e-6)
    const snr = Math.exp(lambda)
    return Math.sqrt(snr / (1 + snr))
  },
  exp: (t) => Math.exp(-12 * t)
}

/** β₀ … β_{T−1}, float32 values. */
export const makeBetas = (config: BetaConfig): number[] => {
  const { numTrainTimesteps: T, betaStart, betaEnd, betaSchedule, trainedBetas } = config
  if (trainedBetas) {
    if (trainedBetas.length !== T)
      throw invalidArgument('trainedBetas', `${T} values (numTrainTimesteps)`, trainedBetas)
    return trainedBetas.map(f32)
  }
  switch (betaSchedule) {
    case 'linear':
      return linspaceF32(betaStart, betaEnd, T)
    case 'scaled_linear':
      return linspaceF32(Math.sqrt(betaStart), Math.sqrt(betaEnd), T).map((b) => f32(b * b))
    case 'sigmoid': // GeoDiff
      return linspaceF32(-6, 6, T).map((v) => f32(f32(f32(1 / (1 + Math.exp(-v))) * (betaEnd - betaStart)) + betaStart))
    default: {
      const bar = alphaBar[betaSchedule]
      return Array.from({ length: T }, (_, i) => f32(Math.min(1 - bar((i + 1) / T) / bar(i / T), 0.999)))
    }
  }
}

/** ᾱ: torch.cumprod adds up in double and stores float32. */
export const cumulativeAlphas = (betas: readonly number[]): number[] => {
  let product = 1
  return betas.map((beta) => f32((product *= f32(1 - beta))))
}

/** β rescaled so that the last timestep holds no signal (Lin et al. 2023, "Common Diffusion Noise Schedules…", algorithm 1). */
export const zeroTerminalSnr = (betas: readonly number[]): number[] => {
  const root = cumulativeAlphas(betas).map((a) => f32(Math.sqrt(a)))
  const first = root[0]!
  const last = root[root.length - 1]!
  const scale = f32(first / f32(first - last))
  const bar = root.map((r) => f32(f32(r - last) * scale) ** 2).map(f32)
  return bar.map((a, i) => f32(1 - (i === 0 ? a : f32(a / bar[i - 1]!))))
}

/**
 * ᾱ of a config. With `rescaleBetasZeroSnr` the last is 0, or 2⁻²⁴ where a class needs a finite sigma (`finite`), as in
 * diffusers.
 */
export const makeAlphasCumprod = (
  config: BetaConfig & { readonly rescaleBetasZeroSnr?: boolean },
  finite = false
): number[] => {
  const betas = makeBetas(config)
  const alphas = cumulativeAlphas(config.rescaleBetasZeroSnr ? zeroTerminalSnr(betas) : betas)
  if (config.rescaleBetasZeroSnr && finite) alphas[alphas.length - 1] = 2 ** -24
  return alphas
}

/** ᾱ at a timestep of the schedule; throws where the schedule runs past the training range (diffusers: IndexError). */
export const alphaAt = (alphasCumprod: readonly number[], timestep: number): number => {
  const alpha = alphasCumprod[timestep]
  if (alpha === undefined)
    throw unsupported(
      `Timestep ${timestep} lies outside the ${alphasCumprod.length} training timesteps: take fewer steps, a smaller stepsOffset, or another timestepSpacing`
    )
  return alpha
}
