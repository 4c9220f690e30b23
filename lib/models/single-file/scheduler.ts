import { modelFormat, unsupported } from '../../errors.js'
import type { ConfigJson } from '../config-reader.js'
import type { Checkpoint } from './checkpoint.js'
import { type Family, unetPrefix } from './recognise.js'

export type PredictionType = 'epsilon' | 'v_prediction' | 'sample'

/** What the UNet predicts, and what the user should know about it. */
export interface Prediction {
  readonly type: PredictionType
  /** The betas were rescaled so that the last step is pure noise (Lin et al. 2023). */
  readonly zeroTerminalSnr: boolean
  readonly warnings: readonly string[]
}

/** modelspec.prediction_type as the Stability AI Model Metadata Standard and trainers write it. */
const fromMetadata = (checkpoint: Checkpoint): PredictionType | undefined => {
  const value = checkpoint.metadata['modelspec.prediction_type']
  if (value === undefined) return undefined
  const known: Record<string, PredictionType> = {
    epsilon: 'epsilon',
    eps: 'epsilon',
    v: 'v_prediction',
    v_prediction: 'v_prediction',
    'v-prediction': 'v_prediction'
  }
  const type = Object.hasOwn(known, value.toLowerCase()) ? known[value.toLowerCase()] : undefined
  if (type === undefined)
    throw modelFormat(
      `${checkpoint.path}: expected "epsilon" or "v" for modelspec.prediction_type in the metadata but received ${JSON.stringify(value.slice(0, 60))}; give predictionType`
    )
  return type
}

/**
 * What the UNet predicts: what the user says; a marker tensor `v_pred` (with `ztsnr` for zero terminal SNR) as trainers
 * leave it; the metadata; else epsilon, but v for SD2, whose files say nothing (diffusers takes 2.1's configuration, a
 * model of 768² that predicts v, for all of them, and the 512² base models need the option). SD2's inpainting and depth
 * models, which read more channels than the latents, were made from the 512² base.
 */
export const readPrediction = (
  checkpoint: Checkpoint,
  family: Family,
  given: PredictionType | undefined
): Prediction => {
  if (checkpoint.has('edm_mean') || checkpoint.has('edm_vpred.sigma_max'))
    throw unsupported(
      `${checkpoint.path}: the model was trained in the EDM formulation (tensor ${checkpoint.has('edm_mean') ? 'edm_mean' : 'edm_vpred.sigma_max'}), ` +
        "which a single file's defaults do not cover; give config, a diffusers folder of this model"
    )
  const zeroTerminalSnr = checkpoint.has('ztsnr')
  const warnings = zeroTerminalSnr
    ? [
        'The file is marked as trained for zero terminal SNR (ztsnr): betas are rescaled and timesteps are spaced "trailing".'
      ]
    : []
  if (given !== undefined) return { type: given, zeroTerminalSnr, warnings }
  if (checkpoint.has('v_pred')) return { type: 'v_prediction', zeroTerminalSnr, warnings }
  const told = fromMetadata(checkpoint)
  if (told !== undefined) return { type: told, zeroTerminalSnr, warnings }
  const latentsAlone = checkpoint.dimension(`${unetPrefix}input_blocks.0.0.weight`, 1) === 4
  if (family !== 'sd2' || !latentsAlone) return { type: 'epsilon', zeroTerminalSnr, warnings }
  return {
    type: 'v_prediction',
    zeroTerminalSnr,
    warnings: [
      ...warnings,
      'The file does not say what this Stable Diffusion 2 model predicts; v_prediction is assumed, as 2.0 and 2.1 for 768² do. ' +
        "For a model made from the 512² base, give predictionType: 'epsilon'."
    ]
  }
}

const betas = { beta_start: 0.00085, beta_end: 0.012, beta_schedule: 'scaled_linear', num_train_timesteps: 1000 }

/**
 * The scheduler of the repository that diffusers' from_single_file takes its configuration from: v1-5 (PNDM), 2-1 (DDIM),
 * xl-base-1.0 and xl-refiner-1.0 (Euler).
 */
const defaults: Record<Exclude<Family, 'refiner'>, { readonly className: string; readonly config: ConfigJson }> = {
  sd1: {
    className: 'PNDMScheduler',
    config: { ...betas, set_alpha_to_one: false, skip_prk_steps: true, steps_offset: 1, timestep_spacing: 'leading' }
  },
  sd2: {
    className: 'DDIMScheduler',
    config: { ...betas, clip_sample: false, set_alpha_to_one: false, steps_offset: 1, timestep_spacing: 'leading' }
  },
  sdxl: {
    className: 'EulerDiscreteScheduler',
    config: {
      ...betas,
      interpolation_type: 'linear',
      steps_offset: 1,
      timestep_spacing: 'leading',
      use_karras_sigmas: false
    }
  }
}

export const schedulerFor = (family: Family, prediction: Prediction): { className: string; config: ConfigJson } => {
  const { className, config } = defaults[family === 'refiner' ? 'sdxl' : family]
  const type = { prediction_type: prediction.type }
  if (!prediction.zeroTerminalSnr) return { className, config: { ...config, ...type } }
  const rescaled = { rescale_betas_zero_snr: true, timestep_spacing: 'trailing' }
  // PNDM cannot rescale its betas.
  if (family !== 'sd1') return { className, config: { ...config, ...type, ...rescaled } }
  return { className: defaults.sd2.className, config: { ...defaults.sd2.config, ...type, ...rescaled } }
}
