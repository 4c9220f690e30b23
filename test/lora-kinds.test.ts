/** Every kind of LoRA file against the difference of weights that it stands for, every way to name its tensors, and what does not fit. */
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Pipeline, type Tensor } from 'node-diffusion'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { relativeError } from './support/compare.js'
import { fails } from './support/fails.js'
import {
  kronecker,
  normalised,
  numbers,
  plus,
  product,
  scaled,
  times,
  transposed,
  tucker,
  values
} from './support/lora.js'
import { reference } from './support/paths.js'
import { TestFile, writeTensors, type Values } from './support/safetensors.js'

const test = suite('lora kinds')
const folder = mkdtempSync(join(tmpdir(), 'nd-lora-kinds-'))
const write = (name: string, tensors: Record<string, Values>, metadata?: Record<string, string>): string => {
  const path = join(folder, `${name}.safetensors`)
  writeTensors(path, tensors, metadata)
  return path
}

let pipe: Pipeline
test('loads', async () => {
  pipe = await Pipeline.fromPretrained(reference('models', 'tiny-sd15'))
})

const random = numbers(7)
const linear = 'lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k'
const conv = 'lora_unet_up_blocks_0_resnets_0_conv1'
const unetFile = new TestFile(reference('models', 'tiny-sd15', 'unet', 'diffusion_pytorch_model.safetensors'))
const weightOf = (name: string): Values => ({ data: unetFile.floats(name), shape: unetFile.get(name).shape })
const K = weightOf('down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight')
const C = weightOf('up_blocks.0.resnets.0.conv1.weight')
const [kn, kk] = K.shape as [number, number]
const [cn, ck, kh, kw] = C.shape as [number, number, number, number]
const scalar = (value: number): Values => ({ shape: [], data: [value] })

const probe = async (model: Pipeline = pipe): Promise<Float32Array> => {
  const r = numbers(3)
  const tensor = (...shape: number[]): Tensor => values((n) => r(n, 1), ...shape) as Tensor
  return (await model.unet.predict({ sample: tensor(1, 4, 8, 8), timestep: 300, context: tensor(1, 7, 32) })).sample
    .data
}
/** The two files must change the model alike, and not by nothing. */
const alike = async (
  label: string,
  file: Record<string, Values>,
  difference: Record<string, Values>,
  strength = 1,
  metadata?: Record<string, string>
): Promise<void> => {
  const plain = await probe()
  await pipe.loadLora(write('kind', file, metadata), { strength })
  const actual = await probe()
  await pipe.unloadLora()
  await pipe.loadLora(write('difference', difference))
  const expected = await probe()
  await pipe.unloadLora()
  const change = relativeError(plain, expected)
  assert.ok(change > 1e-4, `${label}: changes something (${change})`)
  const error = relativeError(actual, expected)
  assert.ok(error < 2e-6 && error < change / 50, `${label}: error ${error} of a change of ${change}`)
}

test('a plain difference is what it says: as large as the weight, it is the model with that weight doubled', async () => {
  const copy = join(folder, 'doubled')
  cpSync(reference('models', 'tiny-sd15'), copy, { recursive: true })
  const path = join(copy, 'unet', 'diffusion_pytorch_model.safetensors')
  const bytes = readFileSync(path)
  const length = Number(bytes.readBigUInt64LE(0))
  const header = JSON.parse(bytes.toString('utf8', 8, 8 + length))
  const [from, to] = header['up_blocks.0.resnets.0.conv1.weight'].data_offsets as [number, number]
  for (let i = 8 + length + from; i < 8 + length + to; i += 2) {
    const h = bytes.readUInt16LE(i)
    // Twice a float16: the exponent plus one, or, of a subnormal, the bits shifted.
    bytes.writeUInt16LE((h & 0x7c00) === 0 ? (h & 0x8000) | ((h & 0x3ff) << 1) : h + 0x400, i)
  }
  writeFileSync(path, bytes)
  const doubled = await Pipeline.fromPretrained(copy)
  const expected = await probe(doubled)
  await doubled.dispose()
  await pipe.loadLora(write('double', { [`${conv}.diff`]: C }))
  const error = relativeError(await probe(), expected)
  assert.ok(error < 1e-6, `error ${error}`)
  await pipe.unloadLora()
})

test('LoRA: linear, convolution, 1 × 1 up, LoCon with a middle, alpha', async () => {
  const [up, down] = [values(random, kn, 4), values(random, 4, kk)]
  const lowRank = product(up, down, K.shape)
  await alike(
    'linear',
    { [`${linear}.lora_up.weight`]: up, [`${linear}.lora_down.weight`]: down, [`${linear}.alpha`]: scalar(2) },
    { [`${linear}.diff`]: scaled(lowRank, 0.7 * 0.5) },
    0.7
  )
  await alike(
    'no alpha',
    { [`${linear}.lora_up.weight`]: up, [`${linear}.lora_down.weight`]: down },
    { [`${linear}.diff`]: lowRank }
  )
  const [cup, cdown] = [scaled(values(random, cn, 3, 1, 1), 4), values(random, 3, ck, kh, kw)]
  await alike(
    'conv',
    { [`${conv}.lora_up.weight`]: cup, [`${conv}.lora_down.weight`]: cdown, [`${conv}.alpha`]: scalar(1.5) },
    { [`${conv}.diff`]: scaled(product(cup, cdown, C.shape), 0.5) }
  )
  const [mid, mdown] = [values(random, 3, 2, kh, kw), values(random, 2, ck, 1, 1)]
  const middle = tucker(mid, transposed(cup), mdown, C.shape)
  await alike(
    'LoCon',
    { [`${conv}.lora_up.weight`]: cup, [`${conv}.lora_mid.weight`]: mid, [`${conv}.lora_down.weight`]: mdown },
    { [`${conv}.diff`]: middle }
  )
})

test('LoHa, whole and rebuilt from cores', async () => {
  const [a1, b1, a2, b2] = [
    values(random, cn, 3),
    values(random, 3, ck * kh * kw),
    values(random, cn, 3),
    values(random, 3, ck * kh * kw)
  ].map((v) => scaled(v, 3)) as [Values, Values, Values, Values]
  const d = times(product(a1, b1, C.shape), product(a2, b2, C.shape))
  await alike(
    'LoHa',
    {
      [`${conv}.hada_w1_a`]: a1,
      [`${conv}.hada_w1_b`]: b1,
      [`${conv}.hada_w2_a`]: a2,
      [`${conv}.hada_w2_b`]: b2,
      [`${conv}.alpha`]: scalar(6)
    },
    { [`${conv}.diff`]: scaled(d, 2) }
  )
  const core = (): Values => scaled(values(random, 3, 3, kh, kw), 6)
  const [t1, t2, c1, d1, c2, d2] = [
    core(),
    core(),
    values(random, 3, cn),
    values(random, 3, ck),
    values(random, 3, cn),
    values(random, 3, ck)
  ].map((v) => scaled(v, 2)) as [Values, Values, Values, Values, Values, Values]
  const rebuilt = times(tucker(t1, c1, d1, C.shape), tucker(t2, c2, d2, C.shape))
  await alike(
    'LoHa with cores',
    {
      [`${conv}.hada_t1`]: t1,
      [`${conv}.hada_w1_a`]: c1,
      [`${conv}.hada_w1_b`]: d1,
      [`${conv}.hada_t2`]: t2,
      [`${conv}.hada_w2_a`]: c2,
      [`${conv}.hada_w2_b`]: d2
    },
    { [`${conv}.diff`]: rebuilt }
  )
})

test('LoKr: factors whole, as products, with a core', async () => {
  const w1 = scaled(values(random, 4, 2), 5)
  const whole = values(random, cn / 4, ck / 2, kh, kw)
  await alike(
    'whole; alpha without a rank does not count',
    { [`${conv}.lokr_w1`]: w1, [`${conv}.lokr_w2`]: whole, [`${conv}.alpha`]: scalar(9) },
    { [`${conv}.diff`]: kronecker(w1, whole, C.shape) }
  )
  const [a, b] = [scaled(values(random, cn / 4, 2), 3), values(random, 2, (ck / 2) * kh * kw)]
  const second = product(a, b, [cn / 4, ck / 2, kh, kw])
  await alike(
    'second as product',
    { [`${conv}.lokr_w1`]: w1, [`${conv}.lokr_w2_a`]: a, [`${conv}.lokr_w2_b`]: b, [`${conv}.alpha`]: scalar(1) },
    { [`${conv}.diff`]: scaled(kronecker(w1, second, C.shape), 0.5) }
  )
  const [fa, fb] = [scaled(values(random, 4, 2), 5), values(random, 2, 2)]
  await alike(
    'both as products',
    { [`${conv}.lokr_w1_a`]: fa, [`${conv}.lokr_w1_b`]: fb, [`${conv}.lokr_w2_a`]: a, [`${conv}.lokr_w2_b`]: b },
    { [`${conv}.diff`]: kronecker(product(fa, fb, [4, 2]), second, C.shape) }
  )
  const [core, ca, cb] = [scaled(values(random, 2, 2, kh, kw), 8), values(random, 2, cn / 4), values(random, 2, ck / 2)]
  await alike(
    'with a core',
    { [`${conv}.lokr_w1`]: w1, [`${conv}.lokr_t2`]: core, [`${conv}.lokr_w2_a`]: ca, [`${conv}.lokr_w2_b`]: cb },
    { [`${conv}.diff`]: kronecker(w1, tucker(core, ca, cb, [cn / 4, ck / 2, kh, kw]), C.shape) }
  )
})

test('DoRA: magnitudes per output and per input, kohya’s strength and PEFT’s', async () => {
  const [up, down] = [values(random, cn, 3, 1, 1), values(random, 3, ck, kh, kw)]
  const d = scaled(product(up, down, C.shape), 1 / 3)
  const magnitude = (n: number, ...shape: number[]): Values => ({
    shape,
    data: random(n, 1).map((v) => 1 + Math.abs(v))
  })
  const files = { [`${conv}.lora_up.weight`]: up, [`${conv}.lora_down.weight`]: down, [`${conv}.alpha`]: scalar(1) }
  const change = (merged: Values, strength: number): Values => scaled(plus(merged, scaled(C, -1)), strength)
  const rows = magnitude(cn, cn, 1, 1, 1)
  await alike(
    'per output',
    { ...files, [`${conv}.dora_scale`]: rows },
    { [`${conv}.diff`]: change(normalised(plus(C, d), rows, true), 0.6) },
    0.6
  )
  const columns = magnitude(ck, 1, ck, 1, 1)
  await alike(
    'per input',
    { ...files, [`${conv}.dora_scale`]: columns },
    { [`${conv}.diff`]: change(normalised(plus(C, d), columns, false), 0.6) },
    0.6
  )
  const peft = 'unet.up_blocks.0.resnets.0.conv1'
  await alike(
    'PEFT',
    {
      [`${peft}.lora_A.weight`]: down,
      [`${peft}.lora_B.weight`]: up,
      [`${peft}.lora_magnitude_vector`]: { ...rows, shape: [1, cn, 1, 1] }
    },
    { [`${conv}.diff`]: change(normalised(plus(C, scaled(product(up, down, C.shape), 0.6)), rows, true), 1) },
    0.6
  )
})

test('names: diffusers’ old and new ones, and ComfyUI’s', async () => {
  const [up, down] = [values(random, kn, 4), values(random, 4, kk)]
  const d = { [`${linear}.diff`]: product(up, down, K.shape) }
  const module = 'down_blocks.0.attentions.0.transformer_blocks.0.attn2'
  for (const [a, b] of [
    [`unet.${module}.to_k.lora_A.weight`, `unet.${module}.to_k.lora_B.weight`],
    [
      `base_model.model.unet.${module}.to_k.lora_A.default.weight`,
      `base_model.model.unet.${module}.to_k.lora_B.default.weight`
    ],
    [`unet.${module}.to_k.lora.down.weight`, `unet.${module}.to_k.lora.up.weight`],
    [`unet.${module}.processor.to_k_lora.down.weight`, `unet.${module}.processor.to_k_lora.up.weight`],
    [`${module}.processor.to_k_lora.down.weight`, `${module}.processor.to_k_lora.up.weight`],
    [
      'diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.lora_down.weight',
      'diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.lora_up.weight'
    ],
    [
      'lora_unet_input_blocks_1_1_transformer_blocks_0_attn2_to_k.lora_down.weight',
      'lora_unet_input_blocks_1_1_transformer_blocks_0_attn2_to_k.lora_up.weight'
    ]
  ] as const)
    await alike(a, { [a]: down, [b]: up }, d)
  const settings = { 'unet.r': 4, 'unet.lora_alpha': 8, 'unet.alpha_pattern': { 'attn2.to_k': 2 } }
  await alike(
    'alpha in the metadata',
    { [`unet.${module}.to_k.lora_A.weight`]: down, [`unet.${module}.to_k.lora_B.weight`]: up },
    { [`${linear}.diff`]: scaled(product(up, down, K.shape), 0.5) },
    1,
    { lora_adapter_metadata: JSON.stringify(settings) }
  )
})

test('what does not fit is refused, naming the tensor', async () => {
  const before = await probe()
  const bad = (
    name: string,
    tensors: Record<string, Values>,
    code: 'ERR_ND_MODEL_FORMAT' | 'ERR_ND_UNSUPPORTED',
    words: RegExp
  ): Promise<void> => fails(() => pipe.loadLora(write(name, tensors)), code, words)
  const [up, down] = [values(random, kn, 4), values(random, 4, kk)]
  await bad(
    'width',
    { [`${linear}.lora_up.weight`]: up, [`${linear}.lora_down.weight`]: values(random, 4, kk + 1) },
    'ERR_ND_MODEL_FORMAT',
    new RegExp(`expected shape \\[4, ${kk}\\] for tensor ${linear}\\.lora_down\\.weight.*received \\[4, ${kk + 1}\\]`)
  )
  await bad(
    'family',
    { [`${linear}.lora_up.weight`]: up, [`${linear}.lora_down.weight`]: values(random, 4, 2048) },
    'ERR_ND_MODEL_FORMAT',
    /received \[4, 2048\]; the file looks like one for SDXL/
  )
  await bad(
    'rank',
    { [`${linear}.lora_up.weight`]: values(random, kn, 5), [`${linear}.lora_down.weight`]: down },
    'ERR_ND_MODEL_FORMAT',
    /lora_up\.weight/
  )
  await bad(
    'module',
    { 'lora_unet_down_blocks_9_conv.lora_up.weight': up, 'lora_unet_down_blocks_9_conv.lora_down.weight': down },
    'ERR_ND_MODEL_FORMAT',
    /lora_unet_down_blocks_9_conv.* names no module/
  )
  await bad('half', { [`${linear}.lora_up.weight`]: up }, 'ERR_ND_MODEL_FORMAT', /both matrices/)
  await bad('other', { 'model.weight': up }, 'ERR_ND_MODEL_FORMAT', /model\.weight/)
  await bad('oft', { [`${linear}.oft_blocks`]: up }, 'ERR_ND_UNSUPPORTED', /oft_blocks/)
  await bad(
    'kron',
    { [`${linear}.lokr_w1`]: values(random, 5, 3), [`${linear}.lokr_w2`]: values(random, 4, 4) },
    'ERR_ND_MODEL_FORMAT',
    /lokr_w1/
  )
  await bad(
    'dora',
    {
      [`${linear}.lora_up.weight`]: up,
      [`${linear}.lora_down.weight`]: down,
      [`${linear}.dora_scale`]: values(random, 7)
    },
    'ERR_ND_MODEL_FORMAT',
    /dora_scale/
  )
  await bad('empty', {}, 'ERR_ND_MODEL_FORMAT', /no.* tensors|none/)
  const xlName = 'lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k'
  await bad(
    'xl-file',
    {
      [`${xlName}.lora_down.weight`]: values(random, 4, 2048),
      [`${xlName}.lora_up.weight`]: values(random, 640, 4),
      'lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_up.weight': up
    },
    'ERR_ND_MODEL_FORMAT',
    /SDXL/
  )
  await fails(() => pipe.loadLora('x.pt'), 'ERR_ND_UNSUPPORTED', /safetensors/)
  await fails(() => pipe.loadLora(join(folder, 'none.safetensors')), 'ERR_ND_MODEL_NOT_FOUND', /none\.safetensors/)
  assert.equal(pipe.loras, [])
  assert.equal([...(await probe())], [...before])
})

test.after(async () => {
  await pipe.dispose()
  rmSync(folder, { recursive: true })
})
test.run()
