import { unsupported } from '../../errors.js'
import type { Checkpoint } from './checkpoint.js'
import type { TextLayout } from './text.js'

export type Family = 'sd1' | 'sd2' | 'sdxl' | 'refiner'

export const familyNames: Record<Family, string> = {
  sd1: 'Stable Diffusion 1',
  sd2: 'Stable Diffusion 2',
  sdxl: 'Stable Diffusion XL',
  refiner: "Stable Diffusion XL's refiner"
}

export const isXlFamily = (family: Family): boolean => family === 'sdxl' || family === 'refiner'

export const unetPrefix = 'model.diffusion_model.'
const vaePrefix = 'first_stage_model.'

export interface TextPart {
  readonly component: 'text_encoder' | 'text_encoder_2'
  readonly prefix: string
  readonly layout: TextLayout
  /** Whether the pipeline reads the projected pooled text. */
  readonly projected: boolean
}

/** Where each family keeps its text encoders, as its original configuration (yaml) names the modules. */
export const textParts: Record<Family, readonly TextPart[]> = {
  sd1: [
    { component: 'text_encoder', prefix: 'cond_stage_model.transformer.', layout: 'transformers', projected: false }
  ],
  sd2: [
    // generative-models' (sgm) naming; SDXL's refiner has its only encoder there too.
    { component: 'text_encoder', prefix: 'conditioner.embedders.0.model.', layout: 'openclip', projected: false },
    { component: 'text_encoder', prefix: 'cond_stage_model.model.', layout: 'openclip', projected: false }
  ],
  sdxl: [
    {
      component: 'text_encoder',
      prefix: 'conditioner.embedders.0.transformer.',
      layout: 'transformers',
      projected: false
    },
    { component: 'text_encoder_2', prefix: 'conditioner.embedders.1.model.', layout: 'openclip', projected: true }
  ],
  refiner: [
    { component: 'text_encoder_2', prefix: 'conditioner.embedders.0.model.', layout: 'openclip', projected: true }
  ]
}

/** What other kinds of files look like, the most telling names first. */
const foreign: readonly (readonly [pattern: RegExp, what: string, remedy: string])[] = [
  [
    /^lora_|\.(lora_(up|down|A|B|mid)|hada_w1_a|lokr_w1(_a)?|oft_blocks|dora_scale)\b/,
    'a LoRA',
    'give the file of the model that it was trained for'
  ],
  [
    /^(control_model\.|controlnet_cond_embedding\.|controlnet_down_blocks\.|input_hint_block\.)/,
    'a ControlNet',
    'give the file of the model that it was trained for'
  ],
  [/^(image_proj|ip_adapter)\./, 'an IP-Adapter', 'give the file of the model that it was trained for'],
  [
    /^(emb_params|string_to_param\b.*|clip_[lg])$/,
    'a textual inversion embedding',
    'give the file of the model that it was trained for'
  ],
  [
    /(^|\.)(motion_modules|time_stack|temporal_transformer)\./,
    'a video model',
    'only text-to-image models are supported'
  ],
  [/(^|\.)joint_blocks\.0\./, 'a Stable Diffusion 3 model', 'it is not supported'],
  [/(^|\.)double_(blocks|stream_blocks|layers)\.0\./, 'a model of the Flux kind', 'it is not supported'],
  [
    /^(down_blocks\.\d|conv_in\.weight|time_embedding\.)/,
    'a UNet in the diffusers layout',
    'give the folder of the whole model, which has model_index.json'
  ],
  [/^input_blocks\.\d/, 'a UNet alone', 'give a checkpoint that has the text encoder and the VAE too'],
  [
    /^(encoder|decoder)\.(conv_in|down|up|mid)/,
    'a VAE alone',
    "give it as the option vae of fromPretrained, next to the model's own file"
  ],
  [
    /^(text_model|transformer\.resblocks)\./,
    'a text encoder alone',
    'give a checkpoint that has the UNet and the VAE too'
  ],
  [/^(body\.\d+\.(rdb1|weight)|model\.1\.sub\.|conv_first\.)/, 'an upscaler', 'it is not supported']
]

/** What a file that is not a checkpoint seems to be, and what to do; the beginning of its names where nothing fits. */
export const describeForeign = (checkpoint: Checkpoint, expected: string): Error => {
  const { names, path } = checkpoint
  for (const [pattern, what, remedy] of foreign)
    if (names.some((name) => pattern.test(name)))
      return unsupported(`${path}: expected ${expected} but this seems to be ${what}; ${remedy}`)
  const some = names.slice(0, 3).map((name) => JSON.stringify(name.slice(0, 60)))
  return unsupported(
    `${path}: expected ${expected} but the file has ${some.length ? `tensors of another kind (${some.join(', ')}…)` : 'no tensors'}`
  )
}

const expectedCheckpoint =
  'a checkpoint of Stable Diffusion 1, 2 or XL in its original layout (model.diffusion_model.*, first_stage_model.*, and ' +
  'cond_stage_model.* or conditioner.*)'

/** Quantized weights come with factors of their own; without them the numbers would be wrong. */
export const checkQuantization = (checkpoint: Checkpoint): void => {
  const scaled = checkpoint.names.find((name) =>
    /(^|\.)(scaled_fp8|scale_weight|weight_scale|weight_scale_2|scale_input|weight\.absmax|comfy_quant)$/.test(name)
  )
  if (scaled !== undefined)
    throw unsupported(
      `${checkpoint.path}: the weights are quantized with scales (tensor ${scaled}), which is not supported; use the file in float16, bfloat16, float32 or plain float8`
    )
}

/**
 * Which family a file belongs to, from its tensors' names alone.
 * @throws ERR_ND_UNSUPPORTED, saying what the file seems to be and what is expected
 */
export const recognise = (checkpoint: Checkpoint): Family => {
  checkQuantization(checkpoint)
  if (!checkpoint.has(`${unetPrefix}input_blocks.0.0.weight`) || checkpoint.some(/\.(time_stack|motion_modules)\./))
    throw describeForeign(checkpoint, expectedCheckpoint)
  // The last text encoder tells: SDXL may lack the first.
  for (const family of ['sdxl', 'sd2', 'sd1'] as const)
    if (checkpoint.under(textParts[family].at(-1)!.prefix).size > 0) return family
  if (checkpoint.under(textParts.refiner[0]!.prefix).size > 0)
    return checkpoint.has(`${unetPrefix}label_emb.0.0.weight`) ? 'refiner' : 'sd2'
  throw unsupported(
    `${checkpoint.path}: expected a text encoder (cond_stage_model.transformer.*, cond_stage_model.model.* or conditioner.embedders.*) ` +
      'but the file has a UNet without one; give a checkpoint that has all parts'
  )
}

/** A file's VAE: of a whole checkpoint, or of a file that holds a VAE alone. Undefined where there is none. */
export const findVae = (checkpoint: Checkpoint): Checkpoint | undefined => {
  for (const prefix of [vaePrefix, 'vae.', ''])
    if (checkpoint.has(`${prefix}decoder.conv_in.weight`) && checkpoint.some(/decoder\.up\.0\.block\./))
      return prefix === '' ? checkpoint : checkpoint.under(prefix)
  return undefined
}
