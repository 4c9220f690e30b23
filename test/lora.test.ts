/** LoRA and its relatives: the references' pictures, every kind of file against what it does to a weight, and what is refused. */
import { copyFileSync, cpSync, mkdirSync, mkdtempSync, renameSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Pipeline, type Txt2ImgOptions } from 'node-diffusion'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { family, optionsOf } from './support/cases.js'
import { pictureError, relativeError } from './support/compare.js'
import { fails } from './support/fails.js'
import { numbers, plus, scaled, values } from './support/lora.js'
import { reference } from './support/paths.js'
import { TestFile, writeTensors, type Values } from './support/safetensors.js'
import { writeTinySingleFile } from './support/single-file.js'

const test = suite('lora')
const folder = mkdtempSync(join(tmpdir(), 'nd-lora-'))
const lora = (name: string): string => reference('loras', `${name}.safetensors`)
const write = (name: string, tensors: Record<string, Values>, metadata?: Record<string, string>): string => {
  const path = join(folder, `${name}.safetensors`)
  writeTensors(path, tensors, metadata)
  return path
}

let pipe: Pipeline
const { cases, tensors } = family('lora')
let worst = { error: 0, name: '' }
const quick: Txt2ImgOptions = { prompt: 'a red house', steps: 2, seed: 5, width: 64, height: 64, outputType: 'latent' }
const latents = async (options: Partial<Txt2ImgOptions> = {}): Promise<Float32Array> =>
  (await pipe.txt2img({ ...quick, ...options })).latents.data
const same = (a: Float32Array, b: Float32Array): boolean =>
  Buffer.compare(Buffer.from(a.buffer), Buffer.from(b.buffer)) === 0

test('loads', async () => {
  pipe = await Pipeline.fromPretrained(reference('models', 'tiny-sd15'))
})

for (const [name, file, strength] of [
  ['lora_0.8', 'kohya', 0.8],
  ['lora_0.8', 'peft', 0.8],
  ['loha_1.0', 'loha', 1],
  ['lokr_0.5', 'lokr', 0.5]
] as const)
  test(`${name} from ${file}.safetensors`, async () => {
    const before = await latents()
    const memory = (await pipe.memory()).weights
    await pipe.loadLora(lora(file), { strength })
    assert.equal(pipe.loras, [{ name: file, path: lora(file), strength, textEncoderStrength: strength }])
    const c = cases.find((one) => one.case === name)!
    const states: Float32Array[] = []
    const out = await pipe.txt2img({
      ...optionsOf(c),
      stepLatents: true,
      onStep: (e) => states.push(e.latents!.data)
    })
    const expected = tensors.floats(`${name}.latents`)
    const each = expected.length / states.length
    states.forEach((state, i) => {
      const error = relativeError(state, expected.subarray(i * each, (i + 1) * each))
      if (error > worst.error) worst = { error, name: `${name} ${file}` }
      // The PEFT file has alpha/rank multiplied into one matrix and rounded to float16.
      assert.ok(error < (file === 'peft' ? 1e-3 : 1e-4), `${name} ${file}, step ${i + 1}: error ${error}`)
    })
    const picture = pictureError(out.images[0]!.data, tensors.floats(`${name}.output`))
    assert.ok(picture < 0.5, `${name}: picture differs by ${picture}/255`)
    await pipe.unloadLora(file)
    assert.equal(pipe.loras, [])
    assert.ok(same(await latents(), before), 'without it, the same numbers as before')
    assert.is((await pipe.memory()).weights, memory)
  })

test('strengths are changed without loading again, and 0 is off', async () => {
  const before = await latents()
  await pipe.loadLora(lora('kohya'), { name: 'a', strength: 0.3 })
  const some = await latents()
  await pipe.setLoras([{ name: 'a', strength: 0 }])
  assert.ok(same(await latents(), before))
  await pipe.setLoras([{ name: 'a', strength: 0.3 }])
  assert.ok(same(await latents(), some))
  assert.not.ok(same(some, before))
  await pipe.loadLora(lora('lokr'), { name: 'b' })
  await pipe.setLoras([{ name: 'a', strength: 0.3 }]) // b, which is not named, goes to 0
  assert.is(pipe.loras.find((l) => l.name === 'b')!.strength, 0)
  assert.ok(same(await latents(), some))
  await pipe.unloadLora()
  assert.equal(pipe.loras, [])
  assert.ok(same(await latents(), before))
})

test('the text encoder and the UNet have strengths of their own', async () => {
  const ids = pipe.tokenizer.encode('a red house').ids
  const text = async (): Promise<Float32Array> => (await pipe.textEncoder.encode(ids)).lastHiddenState.data
  const [plain, state] = [await text(), await latents()]
  await pipe.loadLora(lora('kohya'), { strength: 0.8, textEncoderStrength: 0 })
  assert.ok(same(await text(), plain))
  assert.not.ok(same(await latents(), state))
  await pipe.setLoras([{ name: 'kohya', strength: 0, textEncoderStrength: 0.8 }])
  assert.not.ok(same(await text(), plain))
  await pipe.unloadLora()
})

test('several at once are the sum of their changes', async () => {
  const random = numbers(1)
  const at = 'lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q'
  const [one, two] = [values(random, 32, 32), values(random, 32, 32)]
  await pipe.loadLora(write('one', { [`${at}.diff`]: one }), { strength: 0.5 })
  await pipe.loadLora(write('two', { [`${at}.diff`]: two }), { strength: -2 })
  const both = await latents()
  await pipe.unloadLora()
  await pipe.loadLora(write('both', { [`${at}.diff`]: plus(scaled(one, 0.5), scaled(two, -2)) }))
  const error = relativeError(both, await latents())
  assert.ok(error < 1e-5, `error ${error}`)
  await pipe.unloadLora()
})

test('for one call alone: by name, by file, by tags in the prompt', async () => {
  const before = await latents()
  await pipe.loadLora(lora('kohya'), { strength: 0.6 })
  const with06 = await latents()
  await pipe.setLoras([])
  assert.ok(same(await latents(), before))
  assert.ok(same(await latents({ loras: [{ name: 'kohya', strength: 0.6 }] }), with06))
  assert.ok(same(await latents(), before), 'the next call has none')
  assert.ok(same(await latents({ prompt: 'a red house<lora:kohya:0.6>', promptWeighting: true }), with06))
  assert.not.ok(same(await latents({ prompt: 'a red house<lora:kohya:0.6>' }), with06), 'text without promptWeighting')
  await pipe.unloadLora()
  assert.ok(same(await latents({ loras: [{ path: lora('kohya'), strength: 0.6 }] }), with06))
  assert.ok(same(await latents(), before))
  // Calls that overlap keep to their own.
  const [a, b, c] = await Promise.all([
    latents(),
    latents({ loras: [{ path: lora('kohya'), strength: 0.6 }] }),
    latents()
  ])
  assert.ok(same(a, before) && same(b, with06) && same(c, before))
})

test("a picture's text has the LoRAs as tags, once each", async () => {
  await pipe.loadLora(lora('kohya'), { name: 'k', strength: 0.6, textEncoderStrength: 0.5 })
  const text = async (options: Partial<Txt2ImgOptions>): Promise<string> =>
    (await pipe.txt2img({ ...quick, steps: 1, outputType: 'image', ...options })).images[0]!.parameters!.split('\n')[0]!
  assert.is(await text({}), 'a red house <lora:k:0.5:0.6>')
  assert.is(await text({ loras: [] }), 'a red house')
  assert.is(await text({ prompt: 'a <lora:k:0.2> house', promptWeighting: true }), 'a <lora:k:0.2> house')
  await pipe.unloadLora()
})

test('SDXL: both text encoders, and the original layout’s block names', async () => {
  const xl = await Pipeline.fromPretrained(reference('models', 'tiny-sdxl'))
  const file = new TestFile(reference('models', 'tiny-sdxl', 'unet', 'diffusion_pytorch_model.safetensors'))
  const second = new TestFile(reference('models', 'tiny-sdxl', 'text_encoder_2', 'model.safetensors'))
  const up = 'up_blocks.0.upsamplers.0.conv'
  const upShape = file.get(`${up}.weight`).shape
  const text = 'text_model.encoder.layers.0.mlp.fc1'
  const random = numbers(11)
  const change = values(random, ...upShape)
  const biases = values(random, upShape[0]!)
  const textChange = values(random, ...second.get(`${text}.weight`).shape)
  const resnets = file.names.filter((n) => /^up_blocks\.0\.resnets\.\d+\.conv1\.weight$/.test(n)).length
  const attends = file.names.some((n) => n.startsWith('up_blocks.0.attentions.'))
  const original = `lora_unet_output_blocks_${resnets - 1}_${attends ? 2 : 1}_conv`
  const run = async (): Promise<Float32Array> => (await xl.txt2img({ ...quick })).latents.data
  const plain = await run()
  await xl.loadLora(
    write('xl', {
      [`${original}.diff`]: change,
      [`${original}.diff_b`]: biases,
      [`lora_te2_${text.replaceAll('.', '_')}.diff`]: textChange
    })
  )
  const kohya = await run()
  await xl.unloadLora()
  await xl.loadLora(
    write('xl2', {
      [`unet.${up}.diff`]: change,
      [`unet.${up}.diff_b`]: biases,
      [`text_encoder_2.${text}.diff`]: textChange
    })
  )
  assert.ok(same(await run(), kohya))
  assert.not.ok(same(kohya, plain))
  await xl.unloadLora()
  assert.ok(same(await run(), plain))
  await fails(() => xl.loadLora(lora('kohya')), 'ERR_ND_MODEL_FORMAT', /tensor lora_\w+\.\w+/)
  await xl.dispose()
})

test('a checkpoint in the original layout takes the same LoRA: fused and transposed tensors', async () => {
  const path = join(folder, 'sd2.safetensors')
  writeTinySingleFile('sd2', path)
  const text = new TestFile(reference('models', 'tiny-sd2', 'text_encoder', 'model.safetensors'))
  const random = numbers(13)
  const tensors: Record<string, Values> = {}
  for (const module of ['self_attn.k_proj', 'self_attn.out_proj', 'mlp.fc2']) {
    const [rows, columns] = text.get(`text_model.encoder.layers.1.${module}.weight`).shape as [number, number]
    const key = `lora_te_text_model_encoder_layers_1_${module.replaceAll('.', '_')}`
    tensors[`${key}.lora_up.weight`] = values(random, rows, 2)
    tensors[`${key}.lora_down.weight`] = values(random, 2, columns)
  }
  const file = write('openclip', tensors)
  const results: Float32Array[] = []
  const config = reference('models', 'tiny-sd2')
  for (const load of [
    (): Promise<Pipeline> => Pipeline.fromPretrained(config),
    () => Pipeline.fromPretrained(path, { config })
  ]) {
    const own = await load()
    const encode = async (): Promise<Float32Array> => {
      const { ids } = own.tokenizer.encode('a red house')
      return (await own.textEncoder.encode(ids)).hiddenStates[2]!.data
    }
    const plain = await encode()
    await own.loadLora(file)
    results.push(await encode())
    assert.ok(relativeError(results.at(-1)!, plain) > 1e-3)
    await own.dispose()
  }
  assert.ok(same(results[0]!, results[1]!))
})

test('a folder as diffusers saves it', async () => {
  const saved = join(folder, 'saved')
  mkdirSync(saved)
  copyFileSync(lora('peft'), join(saved, 'pytorch_lora_weights.safetensors'))
  await pipe.loadLora(saved, { strength: 0.5 })
  assert.is(pipe.loras[0]!.name, 'saved')
  await pipe.unloadLora()
  await fails(() => pipe.loadLora(folder), 'ERR_ND_MODEL_NOT_FOUND', /pytorch_lora_weights/)
})

test('names and strengths are checked', async () => {
  await pipe.loadLora(lora('kohya'))
  await fails(() => pipe.loadLora(lora('kohya')), 'ERR_ND_INVALID_ARGUMENT', /no loaded LoRA has/)
  await fails(() => pipe.loadLora(lora('lokr'), { strength: NaN }), 'ERR_ND_INVALID_ARGUMENT', /strength/)
  await fails(() => pipe.loadLora(lora('lokr'), { name: 'a:b' }), 'ERR_ND_INVALID_ARGUMENT', /name/)
  await fails(() => pipe.setLoras([{ name: 'other' }]), 'ERR_ND_INVALID_ARGUMENT', /'kohya'.*other/)
  await fails(() => pipe.unloadLora('other'), 'ERR_ND_INVALID_ARGUMENT', /'kohya'/)
  await fails(() => latents({ loras: ['other'] }), 'ERR_ND_INVALID_ARGUMENT', /'kohya'/)
  await fails(
    () => latents({ prompt: 'a <lora:other:1>', promptWeighting: true }),
    'ERR_ND_INVALID_ARGUMENT',
    /'kohya'/
  )
  await fails(
    () => latents({ prompt: 'a <lora:kohya:much>', promptWeighting: true }),
    'ERR_ND_INVALID_ARGUMENT',
    /a number/
  )
  await fails(
    () => latents({ prompt: ['a <lora:kohya:1>', 'b'], promptWeighting: true }),
    'ERR_ND_INVALID_ARGUMENT',
    /batch/
  )
  await pipe.unloadLora()
  await fails(() => latents({ loras: ['kohya'] }), 'ERR_ND_INVALID_ARGUMENT', /there is none/)
})

test('a model whose file was changed meanwhile is not mixed with it', async () => {
  const copy = join(folder, 'moved')
  cpSync(reference('models', 'tiny-sd15'), copy, { recursive: true })
  const own = await Pipeline.fromPretrained(copy)
  const path = join(copy, 'unet', 'diffusion_pytorch_model.safetensors')
  renameSync(path, `${path}.old`)
  await fails(() => own.loadLora(lora('lokr')), 'ERR_ND_MODEL_NOT_FOUND', /diffusion_pytorch_model/)
  renameSync(`${path}.old`, path)
  await own.loadLora(lora('lokr'))
  await own.dispose()
})

test.after(async () => {
  await pipe.dispose()
  rmSync(folder, { recursive: true })
  console.log(`lora: largest error ${worst.error.toExponential(2)} (${worst.name})`)
})
test.run()
