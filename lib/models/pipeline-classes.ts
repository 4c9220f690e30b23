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
}

const clip: TextPart = {
  encoder: 'text_encoder',
  tokenizer: 'tokenizer',
  kind: 'clip-text',
  classes: ['CLIPTextModel', 'CLIPTextModelWithProjection'],
  tokenizers: ['CLIPTokenizer', 'CLIPTokenizerFast']
}

const stableDiffusion: PipelineParts = {
  unet: ['UNet2DConditionModel'],
  autoencoder: { name: 'vae', classes: ['AutoencoderKL', 'AutoencoderTiny'] },
  texts: [clip]
}

const stableDiffusionXl: PipelineParts = {
  ...stableDiffusion,
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
const cascadeUpscaler: PipelineParts = { ...cascadeBase, tasks: ['superResolution'], guidanceScale: 4, steps: 50 }

const unconditional: PipelineParts = { unet: ['UNet2DModel'], autoencoder: null, texts: [], tasks: ['unconditional'] }

const table = {
  StableDiffusionPipeline: stableDiffusion,
  StableDiffusionImg2ImgPipeline: stableDiffusion,
  StableDiffusionInpaintPipeline: stableDiffusion,
  StableDiffusionInstructPix2PixPipeline: stableDiffusion,
  StableDiffusionXLPipeline: stableDiffusionXl,
  StableDiffusionXLImg2ImgPipeline: stableDiffusionXl,
  StableDiffusionXLInpaintPipeline: stableDiffusionXl,
  LatentConsistencyModelPipeline: stableDiffusion,
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
