// The references' text-to-image cases, run and compared: the bench's last table. The tests hold the bounds.
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Pipeline } from '../dist/index.js'
import { family, optionsOf } from '../build/test/support/cases.js'
import { pictureError, relativeError } from '../build/test/support/compare.js'

const models = fileURLToPath(new URL('../test/reference/models', import.meta.url))

export const referenceErrors = async () => {
  const rows = []
  for (const name of ['sd15', 'sd2', 'sdxl', 'postcard']) {
    const { cases, tensors } = family(name)
    const pipe = await Pipeline.fromPretrained(name === 'postcard' ? 'postcard' : join(models, `tiny-${name}`))
    const row = { family: name, cases: 0, latents: 0, picture: 0 }
    for (const c of cases.filter(
      (c) => /^StableDiffusion(XL)?Pipeline$/.test(c.pipeline) && c.case !== 'textual_inversion'
    )) {
      const out = await pipe.txt2img(optionsOf(c))
      const expected = tensors.floats(`${c.case}.latents`)
      const last = expected.subarray(expected.length - out.latents.data.length)
      if (tensors.get(`${c.case}.latents`).dtype === 'F32')
        row.latents = Math.max(row.latents, relativeError(out.latents.data, last))
      const picture = tensors.floats(`${c.case}.output`)
      const pixels = out.images.flatMap((image) => [...image.data])
      row.picture = Math.max(row.picture, pictureError(pixels, picture))
      row.cases++
    }
    await pipe.dispose()
    rows.push(row)
  }
  return rows
}
