/** What each of diffusers' pipelines is made of: a new family is a row of this table. */
import type { Task } from '../tasks.js'
import type { TextEncoderKind } from './text-encoder.js'

/** One text encoder and its tokenizer: names in model_index.json, and the classes that are known for them. */
export interface TextPart {
  readonly encoder: string
  readonly tokenizer: string
  readonly kind: TextEncoderKind
  readonly classes: readonly string[]
  readonly tokenizers: readonly string[]
  /** Whether a model may do without. */
  readonly optional?: boolean
}

export interface PipelineParts {
  readonly unet: readonly string[]
  /** null: the model paints pixels. */
  readonly autoencoder: { readonly name: string; readonly classes: readonly string[] } | null
  readonly texts: readonly TextPart[]
  /** What the model can do; missing: read from its UNet's input channels. */
  readonly tasks?: readonly Task[]
  /** guidance_scale and num_inference_steps where none is given; default 7.5 and 50. */
  readonly guidanceScale?: number
  readonly steps?: number
  /** Prompts are read in lower case, without white space around them. */
  readonly lowerCase?: boolean
  /** Guidance is off at a scale of 1 alone, not also below. */
  readonly guidedBelowOne?: boolean
  /** superResolution: see Upscaling. */
  readonly upscaling?: Upscaling
  /** Scheduler configs older than these fields are corrected: steps_offset to 1, and this one as well. */
  readonly corrected?: 'clipSample' | 'skipPrkSteps'
  /** A latent consistency model: see PlanTraits. */
  readonly consistency?: boolean
  /** pagScale where none is given; default 0. */
  readonly pagScale?: number
  /** The component, and the ones numbered after it, that is loaded as the pipeline's first ControlNet or T2I-Adapter. */
  readonly control?: 'controlnet' | 'adapter'
}

/** How a model makes a picture larger. */
export interface Upscaling {
  /** The component whose noise the small picture gets. */
  readonly noising: string
  /** Whether the small picture is enlarged to the picture's size, or is as large as the latents. */
  readonly enlarges: boolean
  readonly noiseLevel: number
}

const clip: TextPart = {
  encoder: 'text_encoder',
  tokenizer: 'tokenizer',
  kind: 'clip-text',
  classes: ['CLIPTextModel', 'CLIPTextModelWithProjection'],
  tokenizers: ['CLIPTokenizer', 'CLIPTokenizerFast']
}

/** Stable Diffusion in classes that take a scheduler's config as it is. */
const uncorrected: PipelineParts = {
  unet: ['UNet2DConditionModel'],
  autoencoder: { name: 'vae', classes: ['AutoencoderKL', 'AutoencoderTiny'] },
  texts: [clip]
}
const stableDiffusion: PipelineParts = { ...uncorrected, corrected: 'clipSample' }

const latentConsistency: PipelineParts = { ...uncorrected, consistency: true, guidanceScale: 8.5, steps: 4 }

const stableDiffusionXl: PipelineParts = {
  ...uncorrected,
  texts: [
    { ...clip, optional: true },
    { ...clip, encoder: 'text_encoder_2', tokenizer: 'tokenizer_2', classes: ['CLIPTextModelWithProjection'] }
  ],
  guidanceScale: 5
}

/** Rombach et al. 2022, before Stable Diffusion: a BERT-like text encoder. */
const latentDiffusion: PipelineParts = {
  unet: ['UNet2DConditionModel'],
  autoencoder: { name: 'vqvae', classes: ['AutoencoderKL'] },
  texts: [
    {
      encoder: 'bert',
      tokenizer: 'tokenizer',
      kind: 'ldm-bert',
      classes: ['LDMBertModel'],
      tokenizers: ['BertTokenizer', 'BertTokenizerFast']
    }
  ],
  tasks: ['txt2img'],
  guidanceScale: 1,
  guidedBelowOne: true
}

/** DeepFloyd IF (after Imagen, Saharia et al. 2022): T5's states steer a UNet that paints pixels. */
const cascadeBase: PipelineParts = {
  unet: ['UNet2DConditionModel'],
  autoencoder: null,
  texts: [
    {
      encoder: 'text_encoder',
      tokenizer: 'tokenizer',
      kind: 't5',
      classes: ['T5EncoderModel'],
      tokenizers: ['T5Tokenizer', 'T5TokenizerFast'],
      optional: true // later stages take the first one's promptEmbeds
    }
  ],
  tasks: ['txt2img'],
  guidanceScale: 7,
  steps: 100,
  lowerCase: true
}
const cascadeUpscaler: PipelineParts = {
  ...cascadeBase,
  tasks: ['superResolution'],
  guidanceScale: 4,
  steps: 50,
  upscaling: { noising: 'image_noising_scheduler', enlarges: true, noiseLevel: 250 }
}

/** Stable Diffusion's ×4 upscaler: the small picture lies beside latents of its own size. */
const latentUpscaler: PipelineParts = {
  ...uncorrected,
  tasks: ['superResolution'],
  guidanceScale: 9,
  steps: 75,
  upscaling: { noising: 'low_res_scheduler', enlarges: false, noiseLevel: 20 }
}

const unconditional: PipelineParts = { unet: ['UNet2DModel'], autoencoder: null, texts: [], tasks: ['unconditional'] }

/** Perturbed-attention guidance, which any class has at call time, is on by default in these. */
const perturbed = { pagScale: 3 }

const table = {
  StableDiffusionPipeline: stableDiffusion,
  StableDiffusionImg2ImgPipeline: stableDiffusion,
  StableDiffusionInpaintPipeline: { ...stableDiffusion, corrected: 'skipPrkSteps' },
  StableDiffusionInstructPix2PixPipeline: uncorrected,
  StableDiffusionControlNetPipeline: { ...uncorrected, control: 'controlnet' },
  StableDiffusionControlNetImg2ImgPipeline: { ...uncorrected, control: 'controlnet' },
  StableDiffusionControlNetInpaintPipeline: { ...uncorrected, control: 'controlnet' },
  StableDiffusionAdapterPipeline: { ...uncorrected, control: 'adapter' },
  StableDiffusionPAGPipeline: { ...stableDiffusion, ...perturbed },
  StableDiffusionPAGImg2ImgPipeline: { ...stableDiffusion, ...perturbed },
  StableDiffusionPAGInpaintPipeline: { ...stableDiffusion, ...perturbed },
  StableDiffusionXLPipeline: stableDiffusionXl,
  StableDiffusionXLImg2ImgPipeline: stableDiffusionXl,
  StableDiffusionXLInpaintPipeline: stableDiffusionXl,
  StableDiffusionXLControlNetPipeline: { ...stableDiffusionXl, control: 'controlnet' },
  StableDiffusionXLControlNetImg2ImgPipeline: { ...stableDiffusionXl, control: 'controlnet' },
  StableDiffusionXLControlNetInpaintPipeline: { ...stableDiffusionXl, control: 'controlnet' },
  StableDiffusionXLAdapterPipeline: { ...stableDiffusionXl, control: 'adapter' },
  StableDiffusionXLPAGPipeline: { ...stableDiffusionXl, ...perturbed },
  StableDiffusionXLPAGImg2ImgPipeline: { ...stableDiffusionXl, ...perturbed },
  StableDiffusionXLPAGInpaintPipeline: { ...stableDiffusionXl, ...perturbed },
  LatentConsistencyModelPipeline: latentConsistency,
  LatentConsistencyModelImg2ImgPipeline: latentConsistency,
  StableDiffusionUpscalePipeline: latentUpscaler,
  DDPMPipeline: unconditional,
  DDIMPipeline: unconditional,
  LDMTextToImagePipeline: latentDiffusion,
  IFPipeline: cascadeBase,
  IFSuperResolutionPipeline: cascadeUpscaler
} satisfies Record<string, PipelineParts>

export type PipelineClass = keyof typeof table

/** diffusers' pipelines whose models are known here. */
export const pipelineClasses = Object.keys(table) as readonly PipelineClass[]

export const partsOf = (className: PipelineClass): PipelineParts => table[className]

/** Two text encoders and size conditions. */
export const isSdxl = (className: PipelineClass): boolean => className.startsWith('StableDiffusionXL')
