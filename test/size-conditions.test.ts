/** SDXL's size conditions in a batch, which row by row are what diffusers' pipelines hand to the UNet. */
import { Generator, Pipeline, type StepEvent, type Tensor } from 'node-diffusion'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { relativeError } from './support/compare.js'
import { reference } from './support/paths.js'

const test = suite('size conditions')
let pipe: Pipeline
test.before(async () => void (pipe = await Pipeline.fromPretrained(reference('models', 'tiny-sdxl'))))
test.after(() => pipe.dispose())

const positive = [200, 300, 5, 6, 128, 96]
const negative = [100, 80, 1, 2, 64, 72]
const sizes = {
  originalSize: [200, 300],
  cropsCoordsTopLeft: [5, 6],
  targetSize: [128, 96],
  negativeOriginalSize: [100, 80],
  negativeCropsCoordsTopLeft: [1, 2],
  negativeTargetSize: [64, 72]
} as const

const rows = (...tensors: Tensor[]): Tensor => ({
  data: Float32Array.from(tensors.flatMap((t) => [...t.data])),
  shape: [tensors.reduce((sum, t) => sum + t.shape[0]!, 0), ...tensors[0]!.shape.slice(1)]
})

/** The first step's guided noise of two images, from the pipeline and from the UNet with these time ids of its four rows. */
const compare = async (
  task: (o: object) => Promise<unknown>,
  ids: readonly number[][],
  start: (event: StepEvent) => Tensor
): Promise<number> => {
  const random = new Generator(8)
  const encoded = await pipe.textEncoder2!.encode([pipe.tokenizer.encode('x').ids])
  const width = Number(pipe.textEncoder.config.hiddenSize) + Number(pipe.textEncoder2!.config.hiddenSize)
  const [text, none] = [random.randn([1, 77, width]), random.randn([1, 77, width])]
  const pooledShape = encoded.projected!.shape
  const [pooled, noPooled] = [random.randn(pooledShape), random.randn(pooledShape)]
  const events: StepEvent[] = []
  await task({
    promptEmbeds: text,
    negativePromptEmbeds: none,
    pooledPromptEmbeds: pooled,
    negativePooledPromptEmbeds: noPooled,
    count: 2,
    seed: 4,
    guidanceScale: 3,
    scheduler: 'DDIM',
    outputType: 'latent',
    stepLatents: true,
    onStep: (event: StepEvent) => events.push(event),
    ...sizes
  })
  const event = events[0]!
  const sample = start(event)
  const { sample: noise } = await pipe.unet.predict({
    sample: rows(sample, sample),
    timestep: event.timestep,
    context: rows(none, none, text, text),
    added: {
      textEmbeds: rows(noPooled, noPooled, pooled, pooled),
      timeIds: { data: Float32Array.from(ids.flat()), shape: [4, 6] }
    }
  })
  const half = noise.data.length / 2
  const guided = noise.data.slice(0, half).map((v, i) => v + 3 * (noise.data[half + i]! - v))
  return relativeError(event.predictedNoise!.data, guided)
}

test('txt2img: the rows of both branches alternate, as StableDiffusionXLPipeline repeats them', async () => {
  const latents = new Generator(6).randn([2, 4, 8, 8])
  const paint = (o: object): Promise<unknown> => pipe.txt2img({ ...o, latents, width: 64, height: 64, steps: 2 })
  const error = await compare(paint, [negative, positive, negative, positive], () => latents)
  assert.ok(error < 1e-5, `error ${error}`)
  const apart = await compare(paint, [negative, negative, positive, positive], () => latents)
  assert.ok(apart > 1e-3, 'the order shows')
})

test('img2img: branch by branch, with the crop of the prompt', async () => {
  const image = new Generator(6).randn([2, 4, 8, 8])
  const paint = (o: object): Promise<unknown> => pipe.img2img({ ...o, image, denoisingStart: 0.5, steps: 4 })
  const cropped = [...negative.slice(0, 2), ...positive.slice(2, 4), ...negative.slice(4)]
  const error = await compare(paint, [cropped, cropped, positive, positive], () => image)
  assert.ok(error < 1e-5, `error ${error}`)
})

test.run()
