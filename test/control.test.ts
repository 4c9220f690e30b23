/** ControlNet and T2I-Adapter: the cases of the references, and what follows from the definitions. */
import { Generator, Pipeline, type RawImage, type StepEvent, type Tensor } from 'node-diffusion'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { family, optionsOf, type PipelineCase } from './support/cases.js'
import { pictureError, relativeError } from './support/compare.js'
import { reference } from './support/paths.js'
import type { TestFile } from './support/safetensors.js'

const test = suite('control')
const sd15 = family('sd15')
const adapters = family('adapters')
const controlNet = reference('models', 'tiny-controlnet-sd15')
const t2iAdapter = reference('models', 'tiny-t2i-adapter')
const worst = { latents: 0, picture: 0, blocks: 0 }

const pictureOf = (tensors: TestFile, name: string): RawImage => {
  const { data, shape } = tensors.get(name)
  const [height, width] = shape as [number, number, 3]
  return { data: data as Uint8Array, width, height, channels: 3 }
}

/** diffusers' arguments of ControlNet and adapter pipelines → options. */
const callOf = (c: PipelineCase, tensors: TestFile): Record<string, unknown> => {
  const { image, controlnet_conditioning_scale, control_guidance_start, control_guidance_end, ...rest } = c.args
  const { adapter_conditioning_scale, ...args } = rest
  const picture = pictureOf(tensors, `${c.case}.image`)
  assert.ok(image)
  const extra = /Adapter/.test(c.pipeline)
    ? { adapterImage: picture, adapterConditioningScale: adapter_conditioning_scale }
    : {
        controlImage: picture,
        controlnetConditioningScale: controlnet_conditioning_scale,
        controlGuidanceStart: control_guidance_start,
        controlGuidanceEnd: control_guidance_end
      }
  return { ...optionsOf({ ...c, args }), ...extra }
}

const caseOf = (cases: readonly PipelineCase[], name: string): PipelineCase => cases.find((c) => c.case === name)!

const close = (actual: Tensor, expected: Tensor, bound: number, name: string): void => {
  assert.equal([...actual.shape], [...expected.shape], `${name}: shape`)
  const error = relativeError(actual.data, expected.data)
  worst.blocks = Math.max(worst.blocks, error)
  assert.ok(error < bound, `${name}: error ${error}`)
}

const checkPicture = (data: Uint8Array, tensors: TestFile, name: string): void => {
  const error = pictureError(data, tensors.floats(`${name}.output`))
  worst.picture = Math.max(worst.picture, error)
  assert.ok(error < 0.5, `${name}: picture differs by ${error}/255`)
}

let pipe: Pipeline
test.before(async () => {
  pipe = await Pipeline.fromPretrained(reference('models', 'tiny-sd15'))
  await pipe.loadControlNet(controlNet, { name: 'edges' })
  await pipe.loadT2iAdapter(t2iAdapter)
})
test.after(() => pipe.dispose())

for (const name of ['controlnet', 'controlnet_window'])
  test(`sd15: ${name}`, async () => {
    const c = caseOf(sd15.cases, name)
    const events: StepEvent[] = []
    const options = { ...callOf(c, sd15.tensors), stepLatents: true, onStep: (e: StepEvent) => events.push(e) }
    const out = await pipe.txt2img(options as never)
    const expected = sd15.tensors.floats(`${name}.latents`)
    const each = expected.length / sd15.tensors.get(`${name}.latents`).shape[0]!
    assert.is(events.length * each, expected.length)
    events.forEach((e, i) => {
      const error = relativeError(e.latents!.data, expected.subarray(i * each, (i + 1) * each))
      worst.latents = Math.max(worst.latents, error)
      assert.ok(error < 1e-4, `step ${i + 1}: error ${error}`)
    })
    checkPicture(out.images[0]!.data, sd15.tensors, name)
  })

test('sd15: t2i', async () => {
  const out = await pipe.txt2img(callOf(caseOf(adapters.cases, 't2i'), adapters.tensors) as never)
  checkPicture(out.images[0]!.data, adapters.tensors, 't2i')
})

/** One step from given latents: what the pipeline predicts, after guidance. */
const firstPrediction = async (options: Record<string, unknown>): Promise<{ noise: Tensor; timestep: number }> => {
  let found: { noise: Tensor; timestep: number } | undefined
  await pipe.txt2img({
    prompt,
    negativePrompt: negative,
    latents: noise,
    scheduler: 'DDIMScheduler',
    steps: 1,
    guidanceScale: 3,
    outputType: 'latent',
    width: 64,
    height: 64,
    stepLatents: true,
    onStep: (e) => (found = { noise: e.predictedNoise!, timestep: e.timestep }),
    ...options
  })
  return found!
}
const prompt = 'a red house'
const negative = 'blue'
const picture = pictureOf(sd15.tensors, 'controlnet.image')
const other = pictureOf(adapters.tensors, 't2i.image')
const noise = new Generator(3).randn([1, 4, 8, 8])
const tensorOf = (image: RawImage): Tensor => {
  const n = image.width * image.height
  const data = Float32Array.from({ length: 3 * n }, (_, i) => image.data[(i % n) * 3 + Math.floor(i / n)]! / 255)
  return { data, shape: [1, 3, image.height, image.width] }
}
const contextOf = async (text: string): Promise<Tensor> =>
  (await pipe.textEncoder.encode([...pipe.tokenizer.encode(text).ids])).lastHiddenState

const predicted = async (
  text: string,
  timestep: number,
  residuals?: { downBlockResiduals: readonly Tensor[]; midBlockResidual: Tensor },
  maps?: readonly Tensor[]
): Promise<Float32Array> => {
  const out = await pipe.unet.predict({
    sample: noise,
    timestep,
    context: await contextOf(text),
    ...(residuals && {
      downBlockAdditionalResiduals: residuals.downBlockResiduals,
      midBlockAdditionalResidual: residuals.midBlockResidual
    }),
    ...(maps && { downIntrablockAdditionalResiduals: maps })
  })
  return out.sample.data
}
const guided = (without: Float32Array, withText: Float32Array, scale: number): Float32Array =>
  without.map((u, i) => u + scale * (withText[i]! - u))

test('predict: what the pipeline adds to the UNet, with and without guess mode', async () => {
  const net = pipe.controlNets[0]!
  for (const guessMode of [false, true]) {
    const { noise: actual, timestep } = await firstPrediction({
      controlImage: picture,
      guessMode,
      controlnetConditioningScale: 0.7
    })
    const residuals = async (text: string) =>
      net.predict({
        sample: noise,
        timestep,
        context: await contextOf(text),
        picture: tensorOf(picture),
        conditioningScale: 0.7,
        guessMode
      })
    const steered = await residuals(prompt)
    assert.is(steered.downBlockResiduals.length, 12)
    assert.equal([...steered.midBlockResidual.shape], [1, 32, 1, 1])
    const without = await predicted(negative, timestep, guessMode ? undefined : await residuals(negative))
    const expected = guided(without, await predicted(prompt, timestep, steered), 3)
    close(actual, { data: expected, shape: actual.shape }, 2e-6, `guess ${guessMode}`)
  }
})

test('guess mode scales from a tenth to one', async () => {
  const net = pipe.controlNets[0]!
  const request = { sample: noise, timestep: 500, context: await contextOf(prompt), picture: tensorOf(picture) }
  const plain = await net.predict(request)
  const guess = await net.predict({ ...request, guessMode: true })
  plain.downBlockResiduals.forEach((t, i) => {
    const factor = 10 ** (i / 12 - 1)
    close(guess.downBlockResiduals[i]!, { ...t, data: t.data.map((v) => v * factor) }, 1e-6, `residual ${i}`)
  })
  close(guess.midBlockResidual, plain.midBlockResidual, 1e-6, 'middle')
})

test('several ControlNets add up; named ones choose', async () => {
  const one = await firstPrediction({ controlImage: picture, controlnetConditioningScale: 0.8 })
  const second = await pipe.loadControlNet(controlNet, { name: 'second' })
  assert.equal(
    pipe.controlNets.map((n) => n.name),
    ['edges', 'second']
  )
  assert.is(pipe.controlNets[1], second)
  const both = await firstPrediction({
    controlImage: [picture, picture],
    controlnetConditioningScale: [0.3, 0.5]
  })
  close(both.noise, one.noise, 2e-6, 'two nets')
  const named = await firstPrediction({ control: [{ name: 'second', image: picture, scale: 0.8 }] })
  close(named.noise, one.noise, 1e-9, 'named')
  const resting = await firstPrediction({
    controlImage: [picture, other],
    controlnetConditioningScale: 0.8,
    controlGuidanceStart: [0, 0.5]
  })
  close(resting.noise, one.noise, 1e-9, 'the second one rests in the only step')
  await pipe.unloadControlNet('second')
  assert.is(pipe.controlNets.length, 1)
})

test('adapters: maps times scale on the way down, beside ControlNets', async () => {
  const maps = await pipe.t2iAdapters[0]!.features(other)
  assert.equal(
    maps.map((m) => m.shape[1]),
    [16, 32, 32, 32]
  )
  const scaled = maps.map((m) => ({ ...m, data: m.data.map((v) => v * 0.6) }))
  const { noise: actual, timestep } = await firstPrediction({ adapterImage: other, adapterConditioningScale: 0.6 })
  const expected = guided(
    await predicted(negative, timestep, undefined, scaled),
    await predicted(prompt, timestep, undefined, scaled),
    3
  )
  close(actual, { data: expected, shape: actual.shape }, 2e-6, 'adapter')
  const off = await firstPrediction({ adapterImage: other, adapterConditioningFactor: 0.5 })
  close(off.noise, (await firstPrediction({})).noise, 1e-9, 'no step is within half of one')
  const together = await firstPrediction({ adapterImage: other, controlImage: picture })
  assert.ok(relativeError(together.noise.data, actual.data) > 1e-3)
})

test.after(() =>
  console.log(
    `control: largest error of latents ${worst.latents.toExponential(2)}, of blocks ${worst.blocks.toExponential(2)}, ` +
      `largest mean difference of a picture ${worst.picture.toFixed(3)}/255`
  )
)
test.run()
