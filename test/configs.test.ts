/** Configs of the components: defaults, refusals, contradictions. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { parseClipTextConfig } from '#lib/models/clip-text.js'
import { parseUNetConfig } from '#lib/models/unet.js'
import { parseVaeConfig } from '#lib/models/vae.js'
import { failsWith } from './support/model-folders.js'

const test = suite('configs')

test('empty configs take the class defaults', () => {
  const unet = parseUNetConfig({}, 'config.json')
  assert.equal(
    unet.levels.map((l) => [l.channels, l.resnets, l.heads, l.upHeads, l.contextWidth]),
    [
      [320, 2, 8, 8, 1280],
      [640, 2, 8, 8, 1280],
      [1280, 2, 8, 8, 1280],
      [1280, 2, 0, 0, 1280]
    ]
  )
  assert.is(unet.normGroups, 32)
  assert.is(unet.sampleSize, undefined)
  const vae = parseVaeConfig({}, 'config.json')
  assert.equal([vae.channels, vae.resnets, vae.scalingFactor, vae.forceUpcast], [[64], 1, 0.18215, true])
  const text = parseClipTextConfig({}, 'CLIPTextModel', 'config.json')
  assert.equal([text.hiddenSize, text.layers, text.heads, text.eosTokenId, text.projectionDim], [512, 12, 8, 49407, 0])
  assert.is(parseClipTextConfig({}, 'CLIPTextModelWithProjection', 'config.json').projectionDim, 512)
})

test('a CLIPModel config: the text tower is in text_config', () => {
  const json = { model_type: 'clip', hidden_size: 1, text_config: { hidden_size: 128, num_attention_heads: 4 } }
  assert.is(parseClipTextConfig(json, 'CLIPTextModel', 'c').hiddenSize, 128)
})

test('UNet: every field that is not implemented is refused by name', async () => {
  const refused: Record<string, unknown> = {
    center_input_sample: true,
    mid_block_type: 'UNetMidBlock2DSimpleCrossAttn',
    mid_block_only_cross_attention: true,
    mid_block_scale_factor: 2,
    act_fn: 'gelu',
    encoder_hid_dim: 768,
    encoder_hid_dim_type: 'text_proj',
    num_attention_heads: 8,
    dual_cross_attention: true,
    class_embed_type: 'timestep',
    class_embeddings_concat: true,
    addition_embed_type: 'image',
    resnet_time_scale_shift: 'scale_shift',
    resnet_skip_time_act: true,
    resnet_out_scale_factor: 0.5,
    time_embedding_type: 'fourier',
    time_embedding_act_fn: 'silu',
    time_embedding_dim: 99,
    timestep_post_act: 'silu',
    attention_type: 'gated',
    cross_attention_norm: 'group_norm',
    conv_in_kernel: 4,
    conv_out_kernel: 2,
    downsample_padding: 2,
    down_block_types: ['AttnDownBlock2D', 'DownBlock2D', 'DownBlock2D', 'DownBlock2D'],
    up_block_types: ['AttnUpBlock2D', 'UpBlock2D', 'UpBlock2D', 'UpBlock2D'],
    transformer_layers_per_block: [[1, 2], 1, 1, 1],
    quantization_config: { bits: 4 }
  }
  for (const [key, value] of Object.entries(refused)) {
    const json = { [key]: value, reverse_transformer_layers_per_block: key.startsWith('trans') ? [1, 1, 1, 1] : null }
    await failsWith(() => parseUNetConfig(json, 'a/config.json'), 'ERR_ND_UNSUPPORTED', key, 'a/config.json')
  }
})

test('UNet: wrong types and contradictions name the field', async () => {
  const wrong: Record<string, unknown> = {
    in_channels: '4',
    out_channels: 0,
    block_out_channels: [],
    norm_eps: 'small',
    norm_num_groups: null,
    flip_sin_to_cos: 1,
    freq_shift: null,
    layers_per_block: [2, 2],
    attention_head_dim: [8, 8, 8],
    cross_attention_dim: 768.5,
    transformer_layers_per_block: [1, 2],
    reverse_transformer_layers_per_block: 1,
    sample_size: [1, 2, 3],
    down_block_types: 'DownBlock2D',
    time_cond_proj_dim: -1,
    upcast_attention: 'no',
    use_linear_projection: 0
  }
  for (const [key, value] of Object.entries(wrong))
    await failsWith(() => parseUNetConfig({ [key]: value }, 'c'), 'ERR_ND_MODEL_FORMAT', key)
  const bad = (json: object, text: string) =>
    failsWith(() => parseUNetConfig(json as Record<string, unknown>, 'c'), 'ERR_ND_MODEL_FORMAT', text)
  await bad({ block_out_channels: [320, 640] }, 'block_out_channels')
  await bad({ block_out_channels: [320, 640, 1280, 1281] }, 'norm_num_groups')
  await bad({ attention_head_dim: 7 }, 'attention_head_dim')
  await bad({ addition_embed_type: 'text_time' }, 'addition_time_embed_dim')
  await bad({ transformer_layers_per_block: [[1, 1], 1, 1, 1] }, 'reverse_transformer_layers_per_block')
  await bad([], 'JSON object')
  await failsWith(() => parseUNetConfig({ _class_name: 'UNet2DModel' }, 'c'), 'ERR_ND_UNSUPPORTED', 'UNet2DModel')
})

test('UNet: fields of single levels and of the way up', () => {
  const unet = parseUNetConfig(
    {
      layers_per_block: [1, 2, 3, 2],
      cross_attention_dim: [64, 32, 16, 8],
      transformer_layers_per_block: [1, [2, 2], 4, 5],
      reverse_transformer_layers_per_block: [1, [3, 3, 3, 3], 6, [7, 7]],
      mid_block_type: null,
      time_cond_proj_dim: 256,
      time_embedding_dim: 1280,
      down_block_types: ['UNetResCrossAttnDownBlock2D', 'CrossAttnDownBlock2D', 'DownBlock2D', 'DownBlock2D'],
      downsample_padding: 0,
      sample_size: [96, 64],
      upcast_attention: true,
      some_future_field: { ignored: true }
    },
    'c'
  )
  assert.equal(
    unet.levels.map((l) => [l.resnets, l.heads, l.transformerLayers, l.upHeads, l.upTransformerLayers, l.contextWidth]),
    [
      [1, 8, 1, 8, 7, 64],
      [2, 8, 2, 8, 6, 32],
      [3, 0, 0, 8, 3, 16],
      [2, 0, 0, 0, 0, 8]
    ]
  )
  assert.is(unet.midAttention, false)
  assert.is(unet.timeCondWidth, 256)
  assert.is(unet.downsamplePadding, 0)
  assert.equal(unet.sampleSize, { height: 96, width: 64 })
})

test('VAE and CLIP: refused and wrong fields', async () => {
  const vae = (json: object) => () => parseVaeConfig(json as Record<string, unknown>, 'c')
  await failsWith(vae({ act_fn: 'relu' }), 'ERR_ND_UNSUPPORTED', 'act_fn')
  await failsWith(vae({ down_block_types: ['AttnDownEncoderBlock2D'] }), 'ERR_ND_UNSUPPORTED', 'down_block_types')
  await failsWith(vae({ _class_name: 'AutoencoderTiny' }), 'ERR_ND_UNSUPPORTED', 'AutoencoderTiny')
  await failsWith(vae({ block_out_channels: [64, 64] }), 'ERR_ND_MODEL_FORMAT', 'down_block_types')
  await failsWith(vae({ block_out_channels: [65] }), 'ERR_ND_MODEL_FORMAT', 'norm_num_groups')
  await failsWith(vae({ scaling_factor: 0 }), 'ERR_ND_MODEL_FORMAT', 'scaling_factor')
  await failsWith(vae({ latents_mean: [1, 2] }), 'ERR_ND_MODEL_FORMAT', 'latents_mean')
  await failsWith(vae({ latents_std: [1, 2, 3, 0] }), 'ERR_ND_MODEL_FORMAT', 'latents_std')
  await failsWith(vae({ use_quant_conv: null }), 'ERR_ND_MODEL_FORMAT', 'use_quant_conv')
  assert.is(vae({ shift_factor: 0.5 })().shiftFactor, 0.5)

  const clip = (json: object) => () => parseClipTextConfig(json as Record<string, unknown>, 'CLIPTextModel', 'c')
  await failsWith(clip({ hidden_act: 'gelu_new' }), 'ERR_ND_UNSUPPORTED', 'hidden_act')
  await failsWith(clip({ model_type: 't5' }), 'ERR_ND_UNSUPPORTED', 'model_type')
  await failsWith(clip({ hidden_size: 30 }), 'ERR_ND_MODEL_FORMAT', 'hidden_size')
  await failsWith(clip({ num_hidden_layers: 1.5 }), 'ERR_ND_MODEL_FORMAT', 'num_hidden_layers')
  await failsWith(clip({ vocab_size: 2 ** 40 }), 'ERR_ND_MODEL_FORMAT', 'vocab_size')
  assert.is(clip({ eos_token_id: 2 })().eosTokenId, 2)
})

test.run()
