/** From a call's options to its step plan, and to what the loop starts with. */
import type { NativeGenerateJob } from './binding.js'
import { unsupported } from './errors.js'
import type { ResolvedPicture } from './img2img-options.js'
import { pagScaleAt } from './perturbed-attention.js'
import type { PlanOptions, Scheduler } from './schedulers/index.js'
import type { PlanRow, StepPlan } from './step-plan.js'
import type { ResolvedOptions } from './txt2img-options.js'

export interface CompiledCall {
  readonly plan: StepPlan
  /** 1 without guidance; else the unguided ones come first, those with the prompt last. */
  readonly branches: number
  /** How many have the prompt: 1, or 2 where the first of them has perturbed attention. */
  readonly prompted: number
  readonly picture: NativeGenerateJob['picture']
}

/** What compiling needs to know of the model. */
export interface PlanTraits {
  readonly timeCondWidth: number
  /** The UNet's input channels beyond the latents': it sees mask and picture, or the picture, itself. */
  readonly extraChannels: number
  /** A latent consistency model: img2img's strength shortens the schedule that its steps are chosen from, not the steps. */
  readonly consistency: boolean
  /** Guidance is off at a scale of 1 alone, not also below. */
  readonly guidedBelowOne: boolean
}

/** Weight of every branch beyond the first, in m = m₀ + Σ wᵢ (mᵢ − m₀). */
const guidanceWeights = (o: ResolvedOptions, picture: ResolvedPicture | undefined, traits: PlanTraits): number[] => {
  // Guidance is on where the scale exceeds 1 (or differs from it) and the model has not learnt it.
  const on = traits.guidedBelowOne ? o.guidanceScale !== 1 : o.guidanceScale > 1
  if (!on || traits.timeCondWidth > 0) return []
  if (picture?.task !== 'edit') return [o.guidanceScale]
  // Brooks et al. 2023, equation 3, over nothing, the picture, the picture and the text.
  return picture.imageGuidanceScale >= 1 ? [picture.imageGuidanceScale - o.guidanceScale, o.guidanceScale] : []
}

/**
 * Perturbed-attention guidance beside that of the prompt: m₀ + g (m − m₀) + s (m − m̃) with m̃ of the perturbed branch, which
 * comes before the last; m + s (m − m̃) = m̃ + (1 + s) (m − m̃) without the prompt's.
 */
const pagWeights = (weights: readonly number[], o: ResolvedOptions, { timestep }: PlanRow): readonly number[] => {
  if (!o.pag) return weights
  const scale = pagScaleAt(o.pag, timestep)
  return weights.length === 0 ? [1 + scale] : [-scale, weights[0]! + scale]
}

/** diffusers' LatentConsistencyModelImg2ImgPipeline hands strength to set_timesteps, where the class takes it. */
const strengthOption = (
  scheduler: Scheduler,
  picture: ResolvedPicture | undefined,
  traits: PlanTraits
): Pick<PlanOptions, 'strength' | 'scheduleStrength'> => {
  if (!picture) return {}
  const takes = ['LCMScheduler', 'TCDScheduler'].includes(scheduler.className)
  const { task, strength } = picture
  return traits.consistency && takes && task === 'img2img' ? { scheduleStrength: strength } : { strength }
}

/** The scheduler's plan for these options, with the guidance of every row. diffusers' pipelines always pass eta, 0 by default. */
export const compile = (
  o: ResolvedOptions,
  scheduler: Scheduler,
  picture: ResolvedPicture | undefined,
  traits: PlanTraits
): CompiledCall => {
  const weights = guidanceWeights(o, picture, traits)
  if (o.pag && picture?.task === 'edit') throw unsupported('pagScale is not for edit')
  const prompted = o.pag ? 2 : 1
  const branches = weights.length + prompted
  const nothing = picture?.task === 'img2img' && picture.strength === 0 && picture.denoisingStart === undefined
  const options: PlanOptions = {
    eta: o.eta ?? 0,
    timesteps: o.timesteps,
    sigmas: o.sigmas,
    denoisingEnd: o.denoisingEnd,
    ...strengthOption(scheduler, picture, traits),
    denoisingStart: picture?.denoisingStart,
    blend: picture?.task === 'inpaint' && traits.extraChannels === 0 ? true : undefined
  }
  const unguided = nothing ? { initNoiseSigma: 1, rows: [] } : scheduler.plan(o.steps, options)
  const plan =
    branches > 1
      ? { ...unguided, rows: unguided.rows.map((row) => ({ ...row, guidance: pagWeights(weights, o, row) })) }
      : unguided
  if (!picture) return { plan, branches, prompted, picture: undefined }

  const clean = nothing || picture.denoisingStart !== undefined
  const pure = picture.task === 'edit' || (picture.task === 'inpaint' && picture.strength === 1)
  const start = clean ? 'clean' : pure ? 'noise' : 'noised'
  const [alpha, sigma] = start === 'noised' ? scheduler.startLevel : [1, 0]
  const { task, pictures, masks, latents, resizeMode, repaint } = picture
  const input = { task, pictures, masks, latents: latents?.data, start, alpha, sigma, resizeMode, repaint } as const
  return { plan, branches, prompted, picture: input }
}
