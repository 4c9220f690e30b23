/** ControlNets and T2I-Adapters of every family, kind and layout, and what does not fit. */
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Generator, Pipeline, type RawImage, type Tensor } from 'node-diffusion'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { relativeError } from './support/compare.js'
import {
  copyControlNet,
  randomAdapter,
  unetJson,
  writeControlNetFile,
  type AdapterJson
} from './support/control-models.js'
import { fails } from './support/fails.js'
import { editJson } from './support/picture-models.js'
import { reference } from './support/paths.js'
import { writeShapes } from './support/single-file.js'

const test = suite('control models')
const scratch = mkdtempSync(join(tmpdir(), 'nd-control-'))
const controlNet = reference('models', 'tiny-controlnet-sd15')
const t2iAdapter = reference('models', 'tiny-t2i-adapter')
const models = new Map<string, Pipeline>()
test.after(async () => {
  for (const pipe of models.values()) await pipe.dispose()
  rmSync(scratch, { recursive: true, force: true })
})
const modelOf = async (name: string): Promise<Pipeline> => {
  const found = models.get(name) ?? (await Pipeline.fromPretrained(reference('models', name)))
  models.set(name, found)
  return found
}

const randomPicture = (width: number, height: number, seed = 1): RawImage => {
  const noise = new Generator(seed).randn([width * height * 3])
  return {
    data: Uint8Array.from(noise.data, (v) => Math.max(0, Math.min(255, 128 + 60 * v))),
    width,
    height,
    channels: 3
  }
}
const close = (actual: Tensor, expected: Tensor, bound: number, name: string): void => {
  assert.equal([...actual.shape], [...expected.shape], `${name}: shape`)
  const error = relativeError(actual.data, expected.data)
  assert.ok(error < bound, `${name}: error ${error}`)
}

/** Inputs for one evaluation of a model's UNet. */
const inputs = (model: string, width = 8, height = 8) => {
  const json = unetJson(model)
  const random = new Generator(5)
  const pooled = Number(json.projection_class_embeddings_input_dim) - 6 * Number(json.addition_time_embed_dim)
  const xl = json.addition_embed_type === 'text_time'
  return {
    sample: random.randn([2, 4, height, width]),
    timestep: [999, 40],
    context: random.randn([2, 77, Number(json.cross_attention_dim)]),
    ...(xl ? { added: { textEmbeds: random.randn([2, pooled]), timeIds: random.randn([2, 6]) } } : {}),
    picture: random.randn([2, 3, height * 8, width * 8])
  }
}

for (const name of ['tiny-sd15', 'tiny-sd2', 'tiny-sdxl'])
  test(`${name}: a copy of the UNet's way down hands on the UNet's own maps`, async () => {
    const pipe = await modelOf(name)
    const net = await pipe.loadControlNet(copyControlNet(name, join(scratch, `copy-${name}`)))
    for (const [width, height] of [
      [8, 8],
      [9, 11]
    ] as const) {
      const { picture, ...request } = inputs(name, width, height)
      const { blocks } = await pipe.unet.predict({ ...request, blocks: true })
      const { downBlockResiduals, midBlockResidual } = await net.predict({ ...request, picture, conditioningScale: 1 })
      const last = unetJson(name).block_out_channels.length - 1
      close(downBlockResiduals[0]!, blocks!.conv_in!, 1e-6, 'conv_in')
      for (let i = 0; i < last; i++) close(downBlockResiduals[3 * (i + 1)]!, blocks![`down${i}`]!, 1e-6, `down${i}`)
      close(downBlockResiduals.at(-1)!, blocks![`down${last}`]!, 1e-6, `down${last}`)
      close(midBlockResidual, blocks!.mid!, 1e-6, 'mid')
    }
    // Its residuals double the skips and the middle: what a whole call of the pipeline uses too.
    const options = { prompt: 'a house', steps: 2, seed: 3, outputType: 'latent', width: 64, height: 64 } as const
    const controlled = await pipe.txt2img({ ...options, controlImage: randomPicture(64, 64) })
    const plain = await pipe.txt2img(options)
    assert.ok(relativeError(controlled.latents.data, plain.latents.data) > 1e-3)
    const guess = await pipe.txt2img({ ...options, controlImage: randomPicture(64, 64), guessMode: true })
    assert.ok(relativeError(guess.latents.data, controlled.latents.data) > 1e-4)
    await pipe.unloadControlNet()
  })

test('a plain middle block and levels without attention', async () => {
  const pipe = await modelOf('tiny-sdxl')
  const json = unetJson('tiny-sdxl')
  const source = copyControlNet('tiny-sdxl', join(scratch, 'small'), {
    config: { down_block_types: json.block_out_channels.map(() => 'DownBlock2D'), mid_block_type: 'UNetMidBlock2D' }
  })
  const net = await pipe.loadControlNet(source)
  const { midBlockResidual } = await net.predict(inputs('tiny-sdxl'))
  assert.ok(midBlockResidual.data.every(Number.isFinite))
  await pipe.unloadControlNet('small')
})

for (const layout of ['control_model.', '', 'diffusers'] as const)
  test(`one file, ${layout || 'without prefix'}: as the folder`, async () => {
    const pipe = await modelOf('tiny-sd15')
    const whole = await pipe.loadControlNet(controlNet, { name: 'folder' })
    const path = join(scratch, `${layout || 'plain'}net.safetensors`)
    const single = await pipe.loadControlNet(writeControlNetFile(path, layout))
    const request = inputs('tiny-sd15')
    const [a, b] = [await whole.predict(request), await single.predict(request)]
    a.downBlockResiduals.forEach((t, i) => close(b.downBlockResiduals[i]!, t, 1e-9, `residual ${i}`))
    close(b.midBlockResidual, a.midBlockResidual, 1e-9, 'middle')
    await pipe.unloadControlNet()
    assert.is(pipe.controlNets.length, 0)
  })

test('bgr and global_pool_conditions', async () => {
  const pipe = await modelOf('tiny-sd15')
  const variant = async (name: string, field: Record<string, unknown>) => {
    const folder = join(scratch, name)
    cpSync(controlNet, folder, { recursive: true })
    editJson(join(folder, 'config.json'), (json) => Object.assign(json, field))
    return pipe.loadControlNet(folder)
  }
  const plain = await pipe.loadControlNet(controlNet)
  const bgr = await variant('bgr', { controlnet_conditioning_channel_order: 'bgr' })
  const pool = await variant('pool', { global_pool_conditions: true })
  const request = inputs('tiny-sd15')
  const { data, shape } = request.picture
  const swapped = Float32Array.from(data, (_, i) => {
    const plane = 64 * 64
    const channel = Math.floor(i / plane) % 3
    return data[i + (2 - 2 * channel) * plane]!
  })
  const expected = await plain.predict(request)
  close(
    (await bgr.predict({ ...request, picture: { data: swapped, shape } })).midBlockResidual,
    expected.midBlockResidual,
    1e-9,
    'bgr'
  )
  const means = await pool.predict({ ...request, guessMode: true })
  expected.downBlockResiduals.forEach((t, i) => {
    const [b, c, h, w] = t.shape as [number, number, number, number]
    const mean = Float32Array.from({ length: b * c }, (_, k) =>
      t.data.subarray(k * h * w, (k + 1) * h * w).reduce((sum, v) => sum + v / (h * w), 0)
    )
    close(means.downBlockResiduals[i]!, { data: mean, shape: [b, c, 1, 1] }, 2e-6, `mean ${i}`)
  })
  // Given back to the UNet they are for the whole map; the branch without the prompt is left alone.
  const unet = { ...request, picture: undefined }
  const residuals = { down: means.downBlockResiduals, mid: means.midBlockResidual }
  const spread = (t: Tensor, like: Tensor): Tensor => {
    const [, , h, w] = like.shape as [number, number, number, number]
    return {
      data: Float32Array.from({ length: t.data.length * h * w }, (_, i) => t.data[Math.floor(i / (h * w))]!),
      shape: like.shape
    }
  }
  const pooled = await pipe.unet.predict({
    ...unet,
    downBlockAdditionalResiduals: residuals.down,
    midBlockAdditionalResidual: residuals.mid
  })
  const whole = await pipe.unet.predict({
    ...unet,
    downBlockAdditionalResiduals: residuals.down.map((t, i) => spread(t, expected.downBlockResiduals[i]!)),
    midBlockAdditionalResidual: spread(residuals.mid, expected.midBlockResidual)
  })
  close(pooled.sample, whole.sample, 1e-6, 'one pixel for the whole map')
  const options = { prompt: 'a house', steps: 1, seed: 3, width: 64, height: 64, outputType: 'latent' } as const
  const given = { ...options, control: [{ name: 'pool', image: randomPicture(64, 64) }] }
  const [guess, same] = [await pipe.txt2img({ ...given, guessMode: true }), await pipe.txt2img(given)]
  assert.equal(guess.latents.data, same.latents.data, 'it always guesses')
  await pipe.unloadControlNet()
})

const adapterKinds: [model: string, json: AdapterJson][] = [
  [
    'tiny-sd15',
    { adapter_type: 'full_adapter', in_channels: 1, channels: [16, 32, 32, 32], num_res_blocks: 1, downscale_factor: 8 }
  ],
  [
    'tiny-sd15',
    { adapter_type: 'light_adapter', in_channels: 3, channels: [16, 32, 32], num_res_blocks: 4, downscale_factor: 8 }
  ],
  [
    'tiny-sdxl',
    {
      adapter_type: 'full_adapter_xl',
      in_channels: 3,
      channels: [16, 32, 32, 32],
      num_res_blocks: 2,
      downscale_factor: 16
    }
  ]
]
for (const [model, json] of adapterKinds)
  test(`${json.adapter_type} of ${json.in_channels} channels: its maps by the definition, also odd ones`, async () => {
    const pipe = await modelOf(model)
    const folder = join(scratch, json.adapter_type)
    const expected = randomAdapter(folder, json)
    const adapter = await pipe.loadT2iAdapter(folder)
    const file = await pipe.loadT2iAdapter(join(folder, 'diffusion_pytorch_model.safetensors'), { name: 'file' })
    rmSync(join(folder, 'config.json'))
    const bare = await pipe.loadT2iAdapter(join(folder, 'diffusion_pytorch_model.safetensors'), { name: 'bare' })
    for (const [width, height] of [
      [64, 64],
      [144, 80]
    ] as const) {
      const picture = randomPicture(width, height)
      if (json.in_channels === 1)
        for (let i = 0; i < picture.data.length; i++) picture.data[i] = picture.data[i - (i % 3)]!
      const maps = await adapter.features(picture)
      const wanted = expected(picture as RawImage & { data: Uint8Array })
      assert.is(maps.length, wanted.length)
      maps.forEach((m, i) => close(m, wanted[i]!, 2e-6, `${width} × ${height}, map ${i}`))
      for (const other of [file, bare])
        (await other.features(picture)).forEach((m, i) => close(m, maps[i]!, 1e-9, `${other.name}, map ${i}`))
    }
    await pipe.unloadT2iAdapter('file')
    await pipe.unloadT2iAdapter('bare')
    const picture = randomPicture(144, 80)
    const { latents } = await pipe.txt2img({
      prompt: 'a',
      steps: 2,
      seed: 1,
      outputType: 'latent',
      adapterImage: picture
    })
    assert.equal([...latents.shape], [1, 4, 10, 18], 'the size of the picture')
    assert.ok(latents.data.every(Number.isFinite))
    await pipe.unloadT2iAdapter()
  })

test('images: one for all, one per prompt; adapters count through', async () => {
  const pipe = await modelOf('tiny-sd15')
  await pipe.loadControlNet(controlNet)
  await pipe.loadT2iAdapter(t2iAdapter)
  const [one, two] = [randomPicture(64, 64, 1), randomPicture(64, 64, 2)]
  const noise = new Generator(9).randn([4, 4, 8, 8])
  const part = (t: Tensor, k: number): Tensor => ({ data: t.data.slice(k * 256, (k + 1) * 256), shape: [1, 4, 8, 8] })
  const options = { steps: 2, scheduler: 'DDIMScheduler', outputType: 'latent' } as const
  const alone = async (prompt: string, k: number, extra: object): Promise<Tensor> =>
    (await pipe.txt2img({ ...options, prompt, latents: part(noise, k), ...extra })).latents
  const together = async (extra: object): Promise<Tensor> =>
    (await pipe.txt2img({ ...options, prompt: ['a house', 'a tree'], count: 2, latents: noise, ...extra })).latents
  const prompts = ['a house', 'a house', 'a tree', 'a tree']

  const nets = await together({ controlImage: [one, two] })
  for (const [k, image] of [one, one, two, two].entries())
    close(part(nets, k), await alone(prompts[k]!, k, { controlImage: image }), 1e-5, `ControlNet, image ${k}`)
  const maps = await together({ adapterImage: [one, two] })
  for (const [k, image] of [one, two, one, two].entries())
    close(part(maps, k), await alone(prompts[k]!, k, { adapterImage: image }), 1e-5, `adapter, image ${k}`)
  const guess = await together({ controlImage: [one, two], guessMode: true })
  close(part(guess, 3), await alone('a tree', 3, { controlImage: two, guessMode: true }), 1e-5, 'guess mode')

  await pipe.loadControlNet(controlNet, { name: 'second' })
  const nested = await together({
    controlImage: [
      [one, two],
      [two, one]
    ]
  })
  close(part(nested, 2), await alone('a tree', 2, { controlImage: [two, one] }), 1e-5, 'per prompt, one for each net')
  await pipe.unloadControlNet()
  await pipe.unloadT2iAdapter()
})

test('img2img and inpaint, of 4 and 9 channels, follow their ControlNet; sizes and defaults', async () => {
  const folder = join(scratch, 'tiny-sd15-inpaint')
  cpSync(reference('models', 'tiny-sd15'), folder, { recursive: true })
  cpSync(reference('models', 'tiny-sd15-inpaint'), folder, { recursive: true, force: true })
  const four = await modelOf('tiny-sd15')
  const nine = await Pipeline.fromPretrained(folder)
  const [image, mask, controlImage] = [randomPicture(64, 64, 4), randomPicture(64, 64, 5), randomPicture(40, 90, 6)]
  for (const pipe of [four, nine]) await pipe.loadControlNet(controlNet, { name: 'edges' })
  const options = { prompt: 'a house', image, steps: 3, seed: 1, outputType: 'image', width: 64, height: 64 } as const
  const weight = (text: string | undefined): string | undefined =>
    /Model: edges, Weight: ([\d.]+)/.exec(text ?? '')?.[1]
  const check = async (
    run: (extra: object) => Promise<{ images: readonly { parameters: string | undefined }[]; latents: Tensor }>,
    scale: string
  ) => {
    const [plain, steered] = [await run({}), await run({ controlImage })]
    assert.ok(relativeError(steered.latents.data, plain.latents.data) > 1e-3)
    assert.is(weight(steered.images[0]!.parameters), scale)
    const off = await run({ controlImage, controlnetConditioningScale: 0 })
    assert.equal(off.latents.data, plain.latents.data, 'a scale of 0 changes nothing')
  }
  await check((extra) => four.img2img({ ...options, ...extra }), '0.8')
  await check((extra) => four.inpaint({ ...options, mask, ...extra }), '0.5')
  await check((extra) => nine.inpaint({ ...options, mask, ...extra }), '0.5')
  const sized = await four.txt2img({ prompt: 'a', steps: 1, controlImage: randomPicture(70, 90) })
  assert.equal([sized.images[0]!.width, sized.images[0]!.height], [64, 88], "the picture's own size, rounded down")
  assert.is(weight(sized.images[0]!.parameters), '1')
  await four.unloadControlNet()
  await nine.dispose()
})

test('unloading waits for the calls before', async () => {
  const pipe = await Pipeline.fromPretrained(reference('models', 'tiny-sd15'))
  await pipe.loadControlNet(controlNet)
  const before = (await pipe.memory()).weights
  const stream = pipe.stream('txt2img', { prompt: 'a', steps: 6, controlImage: randomPicture(64, 64) })
  await stream.next()
  const gone = pipe.unloadControlNet()
  const events = []
  for await (const event of stream) events.push(event.type)
  assert.is(events.at(-1), 'result')
  await gone
  assert.ok((await pipe.memory()).weights < before, 'its weights are freed')
  await fails(
    () => pipe.txt2img({ prompt: 'a', controlImage: randomPicture(64, 64) }),
    'ERR_ND_INVALID_ARGUMENT',
    /loadControlNet.* for controlImage/
  )
  await pipe.dispose()
  await fails(() => pipe.loadControlNet(controlNet), 'ERR_ND_DISPOSED', /disposed/)
})

test('what does not fit is refused, naming what differs', async () => {
  const pipe = await modelOf('tiny-sd15')
  const variant = (name: string, field: Record<string, unknown>, source = controlNet): string => {
    const folder = join(scratch, `misfit-${name}`)
    cpSync(source, folder, { recursive: true })
    editJson(join(folder, 'config.json'), (json) => Object.assign(json, field))
    return folder
  }
  const refused = (source: string, code: string, words: RegExp): Promise<void> =>
    fails(() => pipe.loadControlNet(source), code as never, words)
  await refused(
    variant('text', { cross_attention_dim: 64 }),
    'ERR_ND_MODEL_FORMAT',
    /cross_attention_dim 32.*received 64/
  )
  await refused(
    variant('width', { block_out_channels: [16, 32, 32, 64] }),
    'ERR_ND_MODEL_FORMAT',
    /block_out_channels \[16, 32, 32, 32\].*received \[16, 32, 32, 64\]/
  )
  await refused(
    variant('picture', { conditioning_embedding_out_channels: [8, 8, 16] }),
    'ERR_ND_MODEL_FORMAT',
    /conditioning_embedding_out_channels of 4 widths.*has 3/
  )
  await refused(
    variant('embedding', { conditioning_embedding_out_channels: [8, 8, 16, 24] }),
    'ERR_ND_MODEL_FORMAT',
    /\[24, 16, 3, 3\] for tensor controlnet_cond_embedding\.blocks\.5\.weight.*\[16, 16/
  )
  await refused(variant('union', { _class_name: 'ControlNetUnionModel' }), 'ERR_ND_UNSUPPORTED', /ControlNetUnionModel/)
  await refused(
    variant('order', { controlnet_conditioning_channel_order: 'hsv' }),
    'ERR_ND_UNSUPPORTED',
    /controlnet_conditioning_channel_order/
  )
  await refused(variant('pictures', { conditioning_channels: 6 }), 'ERR_ND_UNSUPPORTED', /conditioning_channels/)
  await refused(copyControlNet('tiny-sdxl', join(scratch, 'xl')), 'ERR_ND_MODEL_FORMAT', /block_out_channels/)
  const missing = copyControlNet('tiny-sd15', join(scratch, 'missing'), {
    tensors: { 'controlnet_mid_block.weight': undefined }
  })
  await refused(missing, 'ERR_ND_MODEL_FORMAT', /controlnet_mid_block\.weight/)
  await refused(t2iAdapter, 'ERR_ND_UNSUPPORTED', /ControlNetModel.*T2IAdapter/)
  await refused(join(t2iAdapter, 'diffusion_pytorch_model.safetensors'), 'ERR_ND_UNSUPPORTED', /loadT2iAdapter/)
  for (const [name, tensor, words] of [
    ['lllite', 'lllite_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.down.0.weight', /LLLite/],
    ['union', 'control_add_embedding.linear_1.weight', /ControlNet-Union/],
    ['lora', 'lora_controlnet', /Control-LoRA/],
    ['flux', 'controlnet_x_embedder.weight', /another kind of model/],
    ['unet', 'model.diffusion_model.input_blocks.0.0.weight', /expected a ControlNet/]
  ] as const) {
    const path = join(scratch, `${name}.safetensors`)
    writeShapes(path, { [tensor]: [4, 4] })
    await refused(path, 'ERR_ND_UNSUPPORTED', words)
  }
  await refused(join(scratch, 'no-such-folder'), 'ERR_ND_MODEL_NOT_FOUND', /no-such-folder/)
  const pickle = join(scratch, 'net.pth')
  writeFileSync(pickle, readFileSync(join(controlNet, 'config.json')))
  await refused(pickle, 'ERR_ND_UNSUPPORTED', /pickled/)

  const adapter = (source: string, words: RegExp): Promise<void> =>
    fails(() => pipe.loadT2iAdapter(source), 'ERR_ND_MODEL_FORMAT', words)
  await adapter(
    variant('maps', { channels: [16, 32, 32, 64] }, t2iAdapter),
    /32 channels at 1 : 64.*map 3.*received 64/
  )
  await adapter(
    variant('tiles', { downscale_factor: 16 }, t2iAdapter),
    /16 channels at 1 : 8 .*map 0.*received 16 at 1 : 16/
  )
  await adapter(variant('blocks', { num_res_blocks: 3 }, t2iAdapter), /adapter\.body\.0\.resnets\.2\.block1\.weight/)
  await fails(() => pipe.loadT2iAdapter(controlNet), 'ERR_ND_UNSUPPORTED', /T2IAdapter.*ControlNetModel/)
  assert.is(pipe.controlNets.length + pipe.t2iAdapters.length, 0, 'nothing is left of them')
  const other = await modelOf('tiny-sdxl')
  await fails(() => other.loadT2iAdapter(t2iAdapter), 'ERR_ND_MODEL_FORMAT', /map 0/)
})

test('bad options are refused, saying what was expected', async () => {
  const pipe = await modelOf('tiny-sd15')
  const picture = randomPicture(64, 64)
  const refused = (options: object, words: RegExp): Promise<void> =>
    fails(() => pipe.txt2img({ prompt: 'a', steps: 1, ...options }), 'ERR_ND_INVALID_ARGUMENT', words)
  await refused({ adapterImage: picture }, /loadT2iAdapter/)
  await pipe.loadControlNet(controlNet, { name: 'edges' })
  await pipe.loadT2iAdapter(t2iAdapter)
  await fails(
    () => pipe.loadControlNet(controlNet, { name: 'edges' }),
    'ERR_ND_INVALID_ARGUMENT',
    /no loaded ControlNet has/
  )
  await fails(
    () => pipe.loadControlNet(controlNet, { nam: 'x' } as never),
    'ERR_ND_INVALID_ARGUMENT',
    /name, variant.*nam/
  )
  await fails(() => pipe.unloadControlNet('other'), 'ERR_ND_INVALID_ARGUMENT', /'edges'.*other/)
  await refused({ controlImage: [picture, picture] }, /one per prompt \(1\).*controlImage.*2/)
  await refused({ controlImage: [] }, /controlImage/)
  await refused(
    { controlImage: picture, controlnetConditioningScale: 'strong' },
    /number.*controlnetConditioningScale.*strong/
  )
  await refused(
    { controlImage: picture, controlnetConditioningScale: [1, 1] },
    /1 loaded.*controlnetConditioningScale.*array of 2/
  )
  await refused({ controlImage: picture, controlGuidanceStart: -0.1 }, /0 to 1 for controlGuidanceStart/)
  await refused({ controlImage: picture, controlGuidanceEnd: 1.1 }, /0 to 1 for controlGuidanceEnd/)
  await refused({ controlImage: picture, controlGuidanceStart: 0.5, controlGuidanceEnd: 0.5 }, /start below the end/)
  await refused({ controlImage: picture, guessMode: 'yes' }, /true or false for guessMode/)
  await refused({ controlGuidanceStart: 0.5 }, /controlGuidanceStart for controlImage/)
  await refused({ guessMode: true }, /guessMode for controlImage/)
  await refused({ control: [{ name: 'depth', image: picture }] }, /'edges'.*control\[0\]\.name.*depth/)
  await refused({ control: [{ image: picture, weight: 1 }] }, /name, image, scale, start, end.*weight/)
  await refused({ control: [{ image: picture }], controlImage: picture }, /nothing next to control/)
  await refused({ adapterImage: picture, adapterConditioningScale: NaN }, /adapterConditioningScale/)
  await refused({ adapterImage: picture, adapterConditioningFactor: 2 }, /0 to 1 for adapterConditioningFactor/)
  await refused({ adapterImage: [picture, picture], prompt: ['a', 'b', 'c'] }, /divides the batch \(3 images\)/)
  await refused({ controlImage: 'no-such-picture.png' }, /no-such-picture/)
  await pipe.loadControlNet(controlNet, { name: 'second' })
  await refused({ controlImage: picture }, /2 pictures, one for each loaded ControlNet/)
  await refused({ controlImage: [picture] }, /2 pictures, one for each/)
  await refused({ control: [{ image: picture }] }, /'edges', 'second'/)
  await pipe.unloadControlNet()
  await pipe.unloadT2iAdapter()
})

test.run()
