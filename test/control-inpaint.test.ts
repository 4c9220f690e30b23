/** What ControlNets and T2I-Adapters are given: masked pictures, regions, files with their authors' own names. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Generator, Pipeline, type RawImage, type Tensor } from 'node-diffusion'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { relativeError } from './support/compare.js'
import { randomAdapter } from './support/control-models.js'
import { fails } from './support/fails.js'
import { reference } from './support/paths.js'
import { rawTensors, writeTensors } from './support/single-file.js'

const test = suite('control inputs')
const scratch = mkdtempSync(join(tmpdir(), 'nd-control-'))
let pipe: Pipeline
test.before(async () => {
  pipe = await Pipeline.fromPretrained(reference('models', 'tiny-sd15'))
  await pipe.loadControlNet(reference('models', 'tiny-controlnet-sd15'), { name: 'inpaint' })
})
test.after(async () => {
  await pipe.dispose()
  rmSync(scratch, { recursive: true, force: true })
})

const painted = (width: number, height: number, factor: number): RawImage => ({
  data: Uint8Array.from({ length: width * height * 3 }, (_, i) => (factor * i + (i >> 6)) % 256),
  width,
  height,
  channels: 3
})
/** White inside of the rectangle. */
const maskOf = (width: number, height: number, [left, top, right, bottom]: readonly number[]): RawImage => {
  const data = new Uint8Array(width * height * 3)
  for (let y = top!; y < bottom!; y++) data.fill(255, (y * width + left!) * 3, (y * width + right!) * 3)
  return { data, width, height, channels: 3 }
}
const part = (p: RawImage, left: number, top: number, width: number, height: number): RawImage => {
  const data = new Uint8Array(width * height * 3)
  for (let y = 0; y < height; y++) {
    const from = ((top + y) * p.width + left) * 3
    data.set(p.data.subarray(from, from + width * 3), y * width * 3)
  }
  return { data, width, height, channels: 3 }
}

test('where the mask is bright the ControlNet is told -1', async () => {
  const [side, prompt] = [64, 'a red house']
  const image = painted(side, side, 7)
  const mask = maskOf(side, side, [10, 20, 40, 50])
  // A mask's threshold is above the middle.
  mask.data.fill(127, 0, 30)
  mask.data.fill(128, 30, 60)
  const picture: Tensor = { data: new Float32Array(3 * side * side), shape: [1, 3, side, side] }
  for (let i = 0; i < side * side; i++)
    for (let c = 0; c < 3; c++)
      picture.data[c * side * side + i] = mask.data[3 * i]! > 127 ? -1 : image.data[3 * i + c]! / 255
  const latents = new Generator(3).randn([1, 4, 8, 8])
  // The tiny ControlNet says little: louder, so that a wrong pixel shows.
  const common = { prompt, steps: 1, guidanceScale: 1, latents, scheduler: 'DDIM', width: side, height: side }
  let timestep = 0
  const run = async (controlImage: object): Promise<Float32Array> => {
    let noise: Tensor | undefined
    await pipe.txt2img({
      ...common,
      controlImage: controlImage as RawImage,
      controlnetConditioningScale: 100,
      stepLatents: true,
      outputType: 'latent',
      onStep: (e) => {
        timestep = e.timestep
        noise = e.predictedNoise
      }
    })
    return noise!.data
  }
  const noise = await run({ image, mask })
  const context = (await pipe.textEncoder.encode(pipe.tokenizer.encode(prompt).ids)).lastHiddenState
  const request = { sample: latents, timestep, context }
  const { downBlockResiduals, midBlockResidual } = await pipe.controlNets[0]!.predict({
    ...request,
    picture,
    conditioningScale: 100
  })
  const expected = await pipe.unet.predict({
    ...request,
    downBlockAdditionalResiduals: downBlockResiduals,
    midBlockAdditionalResidual: midBlockResidual
  })
  assert.ok(relativeError(noise, expected.sample.data) < 1e-6)
  assert.ok(relativeError(await run(image), noise) > 8e-6)
  await fails(() => run([{ image, mask }, image]), 'ERR_ND_INVALID_ARGUMENT', /a mask with every picture/)
  await fails(() => run({ image, mask, blur: 1 }), 'ERR_ND_INVALID_ARGUMENT', /blur/)
})

test('a region of the picture to be painted is a region of the control pictures', async () => {
  const [image, control] = [painted(96, 96, 5), painted(96, 96, 11)]
  const mask = maskOf(96, 96, [24, 24, 72, 72])
  const common = { prompt: 'a cat', steps: 3, seed: 4, outputType: 'latent' as const, width: 64, height: 64 }
  const whole = await pipe.inpaint({
    ...common,
    image,
    mask,
    controlImage: { image: control, mask },
    paddingMaskCrop: 8
  })
  const cut = (p: RawImage): RawImage => part(p, 16, 16, 64, 64)
  const region = await pipe.inpaint({
    ...common,
    image: cut(image),
    mask: cut(mask),
    controlImage: { image: cut(control), mask: cut(mask) }
  })
  assert.equal(whole.latents.data, region.latents.data)
  // A smaller control picture is black beyond its edges.
  const small = await pipe.inpaint({
    ...common,
    image,
    mask,
    controlImage: part(control, 0, 0, 48, 48),
    paddingMaskCrop: 8
  })
  const black = { ...control, data: control.data.slice() }
  for (let y = 0; y < 96; y++) black.data.fill(0, (y * 96 + (y < 48 ? 48 : 0)) * 3, (y + 1) * 96 * 3)
  const padded = await pipe.inpaint({ ...common, image: cut(image), mask: cut(mask), controlImage: cut(black) })
  assert.equal(small.latents.data, padded.latents.data)
  await fails(
    () =>
      pipe.inpaint({ ...common, image: [image, control], count: 2, mask, controlImage: control, paddingMaskCrop: 8 }),
    'ERR_ND_INVALID_ARGUMENT',
    /one picture and one mask/
  )
})

test("T2I-Adapters with their authors' names make the same maps", async () => {
  const picture = painted(64, 64, 3)
  const light = join(scratch, 'light')
  randomAdapter(light, {
    adapter_type: 'light_adapter',
    in_channels: 3,
    channels: [16, 32, 32],
    num_res_blocks: 3,
    downscale_factor: 8
  })
  for (const [folder, name] of [
    [reference('models', 'tiny-t2i-adapter'), 'full'],
    [light, 'light']
  ] as const) {
    const tensors = [...rawTensors(join(folder, 'diffusion_pytorch_model.safetensors'))]
    const each = 1 + Math.max(...tensors.map(([n]) => Number(/^adapter\.body\.0\.resnets\.(\d+)/.exec(n)?.[1] ?? 0)))
    const renamed = tensors.map(([n, t]) => {
      const own = n.replace(/^adapter\./, '')
      if (name === 'light') return [own.replace('.resnets.', '.body.'), t] as const
      const original = own
        .replace(/^body\.(\d+)\.resnets\.(\d+)\./, (_, i: string, j: string) => `body.${Number(i) * each + Number(j)}.`)
        .replace(/^body\.(\d+)\.in_conv\./, (_, i: string) => `body.${Number(i) * each}.in_conv.`)
      return [original, t] as const
    })
    const path = join(scratch, `t2iadapter_${name}_sd14v1.safetensors`)
    writeTensors(path, renamed)
    const [a, b] = [await pipe.loadT2iAdapter(folder, { name: 'folder' }), await pipe.loadT2iAdapter(path)]
    const [expected, maps] = [await a.features(picture), await b.features(picture)]
    assert.is(maps.length, 4)
    maps.forEach((map, i) => assert.equal(map.data, expected[i]!.data, `${name}, map ${i}`))
    await pipe.unloadT2iAdapter()
  }
  // Other kinds of its time: with a convolution beside each block, or other numbers of blocks.
  const path = join(scratch, 'other.safetensors')
  const one = { dtype: 'F32', shape: [1], bytes: Buffer.alloc(4) }
  writeTensors(path, [
    ['body.0.block1.weight', one],
    ['body.0.skep.weight', one]
  ])
  await fails(() => pipe.loadT2iAdapter(path), 'ERR_ND_UNSUPPORTED', /body\.0\.skep\.weight/)
  writeTensors(path, [['body.0.block1.weight', one]])
  await fails(() => pipe.loadT2iAdapter(path), 'ERR_ND_MODEL_FORMAT', /4 levels/)
})

test.run()
