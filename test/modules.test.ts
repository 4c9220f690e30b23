/** Every module tensor of the references: text encoders, UNets with their blocks, autoencoders. */
import { Pipeline, type Tensor } from 'node-diffusion'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { family } from './support/cases.js'
import { relativeError } from './support/compare.js'
import { reference } from './support/paths.js'

const test = suite('modules')

/** The bar is 1e-3; this engine computes in float32 and keeps well below. */
const bound = 2e-5
let worst = { error: 0, name: '' }

for (const name of ['sd15', 'sd2', 'sdxl']) {
  const { tensors } = family(name)
  const tensor = (key: string): Tensor => ({ data: tensors.floats(key), shape: tensors.get(key).shape })
  const seen = new Set<string>()
  const close = (key: string, actual: Tensor | undefined): void => {
    assert.ok(actual, `${key} is there`)
    assert.equal([...actual.shape], tensors.get(key).shape, `${key}: shape`)
    const error = relativeError(actual.data, tensors.floats(key))
    if (error > worst.error) worst = { error, name: `${name} ${key}` }
    assert.ok(error < bound, `${name} ${key}: error ${error}`)
    seen.add(key)
  }
  let pipe: Pipeline

  test(`${name}: loads`, async () => {
    pipe = await Pipeline.fromPretrained(reference('models', `tiny-${name}`))
  })

  test(`${name}: text encoders`, async () => {
    const encoders = { text: pipe.textEncoder, ...(pipe.textEncoder2 ? { text2: pipe.textEncoder2 } : {}) }
    for (const [key, encoder] of Object.entries(encoders)) {
      const ids = Int32Array.from(tensors.floats(`${key}.ids`))
      const rows = Array.from({ length: ids.length / 77 }, (_, i) => [...ids.subarray(77 * i, 77 * (i + 1))])
      const out = await encoder.encode(rows)
      close(`${key}.last`, out.lastHiddenState)
      close(`${key}.penultimate`, out.hiddenStates.at(-2))
      if (tensors.has(`${key}.pooled`)) close(`${key}.pooled`, out.pooled)
      if (tensors.has(`${key}.projected`)) close(`${key}.projected`, out.projected)
      seen.add(`${key}.ids`)
    }
  })

  for (const key of ['unet', 'unet_wide', 'unet_odd']) {
    if (!tensors.has(`${key}.out`)) continue
    test(`${name}: ${key} and its blocks`, async () => {
      const xl = tensors.has(`${key}.in_text_embeds`)
      const out = await pipe.unet.predict({
        sample: tensor(`${key}.in_sample`),
        timestep: [...tensors.floats(`${key}.in_timesteps`)],
        context: tensor(`${key}.in_context`),
        ...(xl
          ? { added: { textEmbeds: tensor(`${key}.in_text_embeds`), timeIds: tensor(`${key}.in_time_ids`) } }
          : {}),
        blocks: true
      })
      close(`${key}.out`, out.sample)
      for (const [block, value] of Object.entries(out.blocks!)) close(`${key}.${block}`, value)
      for (const n of tensors.names) if (n.startsWith(`${key}.in_`)) seen.add(n)
    })
  }

  if (tensors.has('vae.decoded'))
    test(`${name}: autoencoder`, async () => {
      const { mean, logvar } = await pipe.vae.encode(tensor('vae.in_image'))
      close('vae.mean', mean)
      close('vae.logvar', logvar)
      close('vae.decoded', await pipe.vae.decode(tensor('vae.in_latent')))
      seen.add('vae.in_image').add('vae.in_latent')
    })

  test(`${name}: nothing of the references was left out`, async () => {
    const ours = /^(text|text2|unet|unet_wide|unet_odd|vae)\./
    assert.equal(
      tensors.names.filter((n) => ours.test(n) && !seen.has(n)),
      []
    )
    await pipe.dispose()
  })
}

test.after(() => console.log(`modules: largest error ${worst.error.toExponential(2)} (${worst.name})`))
test.run()
