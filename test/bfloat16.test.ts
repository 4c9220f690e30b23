/** dtype 'bfloat16' on the CPU: how far pictures are from the references in float32, and where it is refused. */
import { inspect, Pipeline } from 'node-diffusion'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { family, optionsOf } from './support/cases.js'
import { pictureError, relativeError } from './support/compare.js'
import { fails } from './support/fails.js'
import { postcard, reference } from './support/paths.js'

const test = suite('bfloat16')
const isas = inspect().isas.filter((isa) => isa.supported)

/** Loads with the kernels of one instruction set. */
const load = async (isa: string, source: string, dtype: string): Promise<Pipeline> => {
  const before = process.env['NODE_DIFFUSION_CPU']
  process.env['NODE_DIFFUSION_CPU'] = isa
  try {
    return await Pipeline.fromPretrained(source, { device: 'cpu', dtype })
  } finally {
    if (before === undefined) delete process.env['NODE_DIFFUSION_CPU']
    else process.env['NODE_DIFFUSION_CPU'] = before
  }
}

test('some instruction set has it on every machine', () => {
  assert.ok(isas.some((isa) => isa.bfloat16))
})

for (const { name } of isas.filter((isa) => isa.bfloat16)) {
  for (const model of ['sd15', 'sd2', 'sdxl'])
    test(`${name}: pictures of tiny-${model}`, async () => {
      const pipe = await load(name, reference('models', `tiny-${model}`), 'bfloat16')
      const { cases, tensors } = family(model)
      let worst = 0
      let worstPicture = 0
      for (const c of cases.filter((c) => c.case.startsWith('txt2img'))) {
        const out = await pipe.txt2img(optionsOf(c))
        const steps = tensors.floats(`${c.case}.latents`)
        const pixels = new Uint8Array(out.images.flatMap((image) => [...image.data]))
        const error = relativeError(out.latents.data, steps.subarray(steps.length - out.latents.data.length))
        const picture = pictureError(pixels, tensors.floats(`${c.case}.output`))
        // 16 bits of which 8 are digits: more than float32's error, which is below 1e-4, and no nonsense.
        assert.ok(error > 1e-4 && error < 3e-2, `${c.case}: latents' error ${error}`)
        assert.ok(picture < 1.5, `${c.case}: picture differs by ${picture}/255 on average`)
        worst = Math.max(worst, error)
        worstPicture = Math.max(worstPicture, picture)
      }
      await pipe.dispose()
      console.log(
        `bfloat16 on ${name}, tiny-${model}: largest error of latents ${worst.toExponential(1)}, ` +
          `mean difference of a picture up to ${worstPicture.toFixed(2)}/255`
      )
    })

  // Guidance multiplies the difference of two predictions, and bfloat16's error with it: pictures may part.
  test(`${name}: the bundled model's picture without guidance`, async () => {
    const call = { prompt: 'a lighthouse at dusk', steps: 4, seed: 7, guidanceScale: 1 }
    const pictures: Uint8Array[] = []
    for (const dtype of ['bfloat16', 'float32']) {
      const pipe = await load(name, postcard, dtype)
      pictures.push((await pipe.txt2img(call)).images[0]!.data)
      await pipe.dispose()
    }
    const error = pictureError(
      pictures[0]!,
      Float32Array.from(pictures[1]!, (v) => v / 255)
    )
    console.log(`bfloat16 on ${name}, postcard: mean difference ${error.toFixed(2)}/255`)
    assert.ok(error > 0 && error < 1.5, `mean difference ${error}/255`)
  })

  test(`${name}: pipelines in float32 and bfloat16 share weights and keep their numbers`, async () => {
    const call = { prompt: 'a red house', width: 64, height: 64, steps: 2, seed: 1 }
    const source = reference('models', 'tiny-sd15')
    const half = await load(name, source, 'bfloat16')
    const alone = (await half.txt2img(call)).latents.data
    const full = await load(name, source, 'float32')
    const exact = (await full.txt2img(call)).latents.data
    assert.equal((await half.txt2img(call)).latents.data, alone)
    assert.ok(relativeError(alone, exact) > 1e-4)
    await half.dispose()
    assert.equal((await full.txt2img(call)).latents.data, exact)
    await full.dispose()
  })
}

for (const { name } of isas.filter((isa) => !isa.bfloat16))
  test(`${name}: bfloat16 is refused where the CPU lacks it, before the model is looked for`, () =>
    fails(
      () => load(name, reference('models', 'none-such'), 'bfloat16'),
      'ERR_ND_UNSUPPORTED',
      /AVX512_BF16.*'bfloat16'.*use dtype 'auto'/
    ))

test('float16 is refused on the CPU', () =>
  fails(
    () => load(isas[0]!.name, reference('models', 'tiny-sd15'), 'float16'),
    'ERR_ND_UNSUPPORTED',
    /'float16' is not supported on the CPU.*use 'auto'/
  ))

test.run()
