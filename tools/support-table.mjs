// node tools/support-table.mjs [--write]: docs/supported.md, made from the registries of the built library. test/docs.test.ts
// holds that the file is what this prints.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { schedulerClasses } from '../dist/schedulers/index.js'
import { samplerLabels, scheduleTypeNames } from '../dist/schedulers/labels.js'
import { partsOf, pipelineClasses } from '../dist/models/pipeline-classes.js'
import { familyNames, textParts } from '../dist/models/single-file/recognise.js'
import { root } from './process.mjs'

/** Where each pipeline is described. A new row of the registry needs a page. */
const pages = {
  StableDiffusionPipeline: ['SD 1.x', 'families/sd1.md', 'SD 2.x', 'families/sd2.md'],
  StableDiffusionImg2ImgPipeline: ['pictures as input', 'img2img.md'],
  StableDiffusionInpaintPipeline: ['inpainting', 'families/inpainting.md'],
  StableDiffusionInstructPix2PixPipeline: ['InstructPix2Pix', 'families/instruct-pix2pix.md'],
  StableDiffusionControlNetPipeline: ['ControlNet', 'controlnet.md'],
  StableDiffusionControlNetImg2ImgPipeline: ['ControlNet', 'controlnet.md'],
  StableDiffusionControlNetInpaintPipeline: ['ControlNet', 'controlnet.md'],
  StableDiffusionAdapterPipeline: ['T2I-Adapter', 'controlnet.md'],
  StableDiffusionPAGPipeline: ['perturbed attention', 'modes.md'],
  StableDiffusionPAGImg2ImgPipeline: ['perturbed attention', 'modes.md'],
  StableDiffusionPAGInpaintPipeline: ['perturbed attention', 'modes.md'],
  StableDiffusionXLPipeline: ['SDXL', 'families/sdxl.md'],
  StableDiffusionXLImg2ImgPipeline: ['SDXL and its refiner', 'families/sdxl.md'],
  StableDiffusionXLInpaintPipeline: ['inpainting', 'families/inpainting.md'],
  StableDiffusionXLControlNetPipeline: ['ControlNet', 'controlnet.md'],
  StableDiffusionXLControlNetImg2ImgPipeline: ['ControlNet', 'controlnet.md'],
  StableDiffusionXLControlNetInpaintPipeline: ['ControlNet', 'controlnet.md'],
  StableDiffusionXLAdapterPipeline: ['T2I-Adapter', 'controlnet.md'],
  StableDiffusionXLPAGPipeline: ['perturbed attention', 'modes.md'],
  StableDiffusionXLPAGImg2ImgPipeline: ['perturbed attention', 'modes.md'],
  StableDiffusionXLPAGInpaintPipeline: ['perturbed attention', 'modes.md'],
  LatentConsistencyModelImg2ImgPipeline: ['few-step models', 'few-step.md'],
  LatentConsistencyModelPipeline: ['few-step models', 'few-step.md'],
  StableDiffusionUpscalePipeline: ['the ×4 upscaler', 'families/upscaler.md'],
  LDMTextToImagePipeline: ['latent diffusion', 'other-systems.md'],
  IFPipeline: ['Imagen', 'other-systems.md'],
  IFSuperResolutionPipeline: ['Imagen', 'other-systems.md'],
  DDPMPipeline: ['unconditional', 'unconditional.md'],
  DDIMPipeline: ['unconditional', 'unconditional.md']
}

const table = (head, rows) => [head, head.map(() => '---'), ...rows].map((row) => `| ${row.join(' | ')} |`).join('\n')

const code = (text) => `\`${text}\``

const links = (name) => {
  const page = pages[name]
  if (!page) throw new Error(`${name} has no page: add one to tools/support-table.mjs`)
  return page.flatMap((text, i) => (i % 2 ? [] : [`[${text}](${page[i + 1]})`])).join(', ')
}

const pipelineRows = pipelineClasses.map((name) => {
  const parts = partsOf(name)
  const texts = parts.texts.map((text) => text.classes[0])
  return [
    code(name),
    links(name),
    parts.tasks ? parts.tasks.join(', ') : "by the UNet's input channels",
    parts.unet.map(code).join(', '),
    parts.autoencoder ? parts.autoencoder.classes.map(code).join(', ') : 'none: pixels',
    texts.length ? texts.map(code).join(', ') : 'none'
  ]
})

const labelsOf = (name) => samplerLabels.filter((label) => label.className === name).map(({ label }) => label)

const schedulerRows = [...schedulerClasses.keys()].sort().map((name) => [code(name), labelsOf(name).join(', ')])

const fileRows = Object.entries(familyNames).map(([family, name]) => [
  name,
  [...new Set(textParts[family].map(({ prefix }) => code(`${prefix}*`)))].join(', ')
])

export const document = () =>
  `# What is supported

Made by \`node tools/support-table.mjs --write\` from the registries of the library; the tests hold that it is up to date. What is not in
here is refused with an error that says so.

## Models in the diffusers layout

The pipeline class is \`_class_name\` of \`model_index.json\`.

${table(['pipeline', 'page', 'tasks', 'UNet', 'autoencoder', 'text encoders'], pipelineRows)}

## Single files in the original layout

${table(['family', 'recognised by'], fileRows)}

## Schedulers

Every class takes its diffusers config. Labels are AUTOMATIC1111's; each also with a schedule type: ${scheduleTypeNames.join(', ')}.

${table(['class', 'labels'], schedulerRows)}
`

const path = join(root, 'docs', 'supported.md')
if (process.argv[1] && import.meta.url.endsWith('support-table.mjs') && process.argv[1].endsWith('support-table.mjs')) {
  if (process.argv.includes('--write')) writeFileSync(path, document())
  else console.log(document())
}
