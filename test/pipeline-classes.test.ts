/** Folders that diffusers' other pipeline classes save: the same components under another name, with what comes along. */
import { cpSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Pipeline, type RawImage } from 'node-diffusion'
import { neededFiles } from '#lib/hub/select.js'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { fails } from './support/fails.js'
import { reference } from './support/paths.js'
import { editJson } from './support/picture-models.js'

const test = suite('pipeline classes')
const scratch = mkdtempSync(join(tmpdir(), 'nd-classes-'))
test.after(() => rmSync(scratch, { recursive: true, force: true }))

const control: RawImage = {
  data: new Uint8Array(64 * 64 * 3).map((_, i) => (i * 37) % 256),
  width: 64,
  height: 64,
  channels: 3
}
const call = { prompt: 'a cat', steps: 2, seed: 3, width: 64, height: 64, outputType: 'latent' } as const

/** A copy of a model under another class, with further components: [name in model_index.json, class, folders]. */
const saved = (
  name: string,
  className: string,
  extra?: readonly [component: string, className: string, folders: Record<string, string>]
): string => {
  const folder = join(scratch, className + (extra ? Object.keys(extra[2]).length : ''))
  cpSync(reference('models', name), folder, { recursive: true })
  editJson(join(folder, 'model_index.json'), (c) => {
    c['_class_name'] = className
    if (extra) c[extra[0]] = ['diffusers', extra[1]]
  })
  for (const [to, from] of Object.entries(extra?.[2] ?? {})) cpSync(from, join(folder, to), { recursive: true })
  return folder
}

const controlNet = reference('models', 'tiny-controlnet-sd15')
const adapter = reference('models', 'tiny-t2i-adapter')

test("a ControlNet pipeline's folder brings its ControlNets", async () => {
  const plain = await Pipeline.fromPretrained(reference('models', 'tiny-sd15'))
  await plain.loadControlNet(controlNet)
  const expected = await plain.txt2img({ ...call, controlImage: control })
  const one = await Pipeline.fromPretrained(
    saved('tiny-sd15', 'StableDiffusionControlNetPipeline', [
      'controlnet',
      'ControlNetModel',
      { controlnet: controlNet }
    ])
  )
  assert.equal(one.warnings, plain.warnings)
  assert.equal(
    one.controlNets.map((net) => net.name),
    ['controlnet']
  )
  assert.equal((await one.txt2img({ ...call, controlImage: control })).latents.data, expected.latents.data)

  const two = await Pipeline.fromPretrained(
    saved('tiny-sd15', 'StableDiffusionControlNetImg2ImgPipeline', [
      'controlnet',
      'MultiControlNetModel',
      { controlnet: controlNet, controlnet_1: controlNet }
    ])
  )
  assert.equal(
    two.controlNets.map((net) => net.name),
    ['controlnet', 'controlnet_1']
  )
  const both = await two.txt2img({ ...call, controlImage: [control, control], controlnetConditioningScale: [1, 0] })
  assert.equal(both.latents.data, expected.latents.data, 'the second one at strength 0')
  for (const pipe of [plain, one, two]) await pipe.dispose()
})

test("an adapter pipeline's folder brings its T2I-Adapter", async () => {
  const pipe = await Pipeline.fromPretrained(
    saved('tiny-sd15', 'StableDiffusionAdapterPipeline', ['adapter', 'T2IAdapter', { adapter }])
  )
  assert.equal(
    pipe.t2iAdapters.map((a) => a.name),
    ['adapter']
  )
  await pipe.dispose()
})

test('a ControlNet that model_index.json names and the folder has not is an error that names it', async () => {
  const folder = saved('tiny-sd15', 'StableDiffusionControlNetInpaintPipeline', ['controlnet', 'ControlNetModel', {}])
  await fails(() => Pipeline.fromPretrained(folder), 'ERR_ND_MODEL_NOT_FOUND', /controlnet/)
})

test("a PAG pipeline's folder is guided so without being asked; 0 turns it off", async () => {
  const plain = await Pipeline.fromPretrained(reference('models', 'tiny-sd15'))
  const layers = { pagAppliedLayers: 'up' } // the tiny model's middle is one pixel
  const pag = await Pipeline.fromPretrained(saved('tiny-sd15', 'StableDiffusionPAGPipeline'))
  const asked = await plain.txt2img({ ...call, ...layers, pagScale: 3 })
  assert.equal((await pag.txt2img({ ...call, ...layers })).latents.data, asked.latents.data)
  const without = await plain.txt2img(call)
  assert.is.not(String(without.latents.data), String(asked.latents.data))
  assert.equal((await pag.txt2img({ ...call, pagScale: 0 })).latents.data, without.latents.data)
  for (const pipe of [plain, pag]) await pipe.dispose()
})

test('a latent consistency model takes four steps by default', async () => {
  const pipe = await Pipeline.fromPretrained(saved('tiny-sd15', 'LatentConsistencyModelImg2ImgPipeline'), {
    scheduler: 'LCM'
  })
  let steps = 0
  const size = { prompt: 'x', seed: 3, width: 64, height: 64 }
  const result = await pipe.txt2img({ ...size, onStep: () => void steps++ })
  assert.is(steps, 4)
  const asked = await pipe.txt2img({ ...size, guidanceScale: 8.5 })
  assert.equal(result.latents.data, asked.latents.data)
  await pipe.dispose()
})

test('the hub fetches numbered ControlNets too', () => {
  const files = ['model_index.json', 'unet/config.json', 'unet/diffusion_pytorch_model.safetensors']
  for (const folder of ['controlnet', 'controlnet_1', 'other_1'])
    files.push(`${folder}/config.json`, `${folder}/diffusion_pytorch_model.safetensors`)
  const remote = files.map((path) => ({ path, size: 1, etag: path, hash: 'git' as const }))
  const entries = (controlnet: string) => ({ unet: ['diffusers', 'U'], controlnet: ['diffusers', controlnet] })
  const needed = (controlnet: string): string[] =>
    neededFiles('a/b', remote, entries(controlnet)).map((file) => file.path)
  assert.equal(needed('MultiControlNetModel').sort(), files.filter((path) => !path.startsWith('other')).sort())
  assert.not.ok(needed('ControlNetModel').some((path) => path.startsWith('controlnet_1')))
})

test.run()
