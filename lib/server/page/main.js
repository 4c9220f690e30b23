/** The page: a form, a job, its events, a gallery. */
import { call, events, getJson, postJson } from './api.js'
import * as gallery from './gallery.js'
import { PictureWithMask, toBase64 } from './mask.js'

const $ = (id) => document.getElementById(id)
const fields = [
  'prompt',
  'negative',
  'model',
  'scheduler',
  'schedule',
  'steps',
  'guidance',
  'seed',
  'width',
  'height',
  'count',
  'strength'
]
const number = (id) => ($(id).value === '' ? undefined : Number($(id).value))

let running = null // { id, stop }
let shown = null // the gallery's picture in the dialog

const message = (text) => ($('message').textContent = text)
const status = (text) => ($('status').textContent = text)

const picture = new PictureWithMask(() => {
  if (!running) status(picture.blob ? (picture.painted ? 'inpaint' : 'picture to picture') : '')
})

const option = (value, text = value) => Object.assign(document.createElement('option'), { value, textContent: text })

const fill = async () => {
  const info = await getJson('/api/info')
  $('model').replaceChildren(...info.models.map((name) => option(name)))
  $('scheduler').append(...info.samplers.map((name) => option(name)))
  $('schedule').replaceChildren(...info.schedules.map((name) => option(name === 'Automatic' ? '' : name, name)))
  const saved = JSON.parse(localStorage.getItem('node-diffusion-form') ?? '{}')
  use(saved)
}

const use = (values) => {
  for (const id of fields) {
    const value = values[id]
    if (value === undefined) continue
    if ($(id) instanceof HTMLSelectElement && ![...$(id).options].some((o) => o.value === value)) continue
    $(id).value = value
  }
  $('strength-value').textContent = $('strength').value
}

const formValues = () => Object.fromEntries(fields.map((id) => [id, $(id).value]))

const optionsOf = async () => {
  const scheduler = [$('scheduler').value, $('scheduler').value && $('schedule').value].filter(Boolean).join(' ')
  const options = {
    prompt: $('prompt').value,
    promptWeighting: true,
    steps: number('steps'),
    guidanceScale: number('guidance'),
    count: number('count'),
    width: number('width'),
    height: number('height'),
    seed: number('seed'),
    ...($('negative').value ? { negativePrompt: $('negative').value } : {}),
    ...(scheduler ? { scheduler } : {}),
    ...($('previews').checked ? { preview: true } : {})
  }
  if (!picture.blob) return { task: 'txt2img', options }
  Object.assign(options, { image: await toBase64(picture.blob), strength: number('strength') })
  if (!picture.painted) return { task: 'img2img', options }
  return { task: 'inpaint', options: { ...options, mask: await picture.maskBase64() } }
}

const paint = async () => {
  if (running || !$('form').reportValidity()) return
  const form = formValues()
  localStorage.setItem('node-diffusion-form', JSON.stringify(form))
  message('')
  const stop = new AbortController()
  running = { id: null, stop }
  $('paint').disabled = true
  $('cancel').disabled = false
  $('progress').hidden = false
  $('progress').removeAttribute('value')
  try {
    const job = await postJson('/api/jobs', { model: $('model').value, ...(await optionsOf()) })
    running.id = job.id
    let end = job
    await events(`/api/jobs/${job.id}/events`, stop.signal, (event, data) => {
      if (event === 'step') {
        $('progress').max = data.steps
        $('progress').value = data.step
        status(`step ${data.step} of ${data.steps}`)
        if (data.preview) show(data.preview)
      } else {
        end = data
        if (data.state === 'queued') status(data.position > 1 ? `${data.position - 1} before you` : 'next')
        if (data.state === 'running' && !data.steps) status('getting ready')
      }
    })
    await finished(end, form)
  } catch (error) {
    message(error.name === 'AbortError' ? 'cancelled' : error.message)
    status('')
  } finally {
    running = null
    $('paint').disabled = false
    $('cancel').disabled = true
    $('progress').hidden = true
  }
}

const finished = async (job, form) => {
  if (job.state !== 'done') {
    message(job.error ?? job.state)
    status('')
    return
  }
  status(`${job.timings.total.toFixed(1)} s`)
  for (const { url, parameters } of job.images) {
    const blob = await (await call(url)).blob()
    show(URL.createObjectURL(blob))
    await gallery.add({ blob, parameters, form })
  }
  if (job.warnings.length) message(job.warnings.join(' '))
  await showGallery()
}

const show = (source) => {
  $('empty').hidden = true
  $('preview').hidden = false
  $('preview').src = source
  $('preview').alt = $('prompt').value
}

const cancel = async () => {
  if (!running) return
  const { id, stop } = running
  if (id) await call(`/api/jobs/${id}`, { method: 'DELETE' }).catch(() => {})
  else stop.abort()
}

const showGallery = async () => {
  const pictures = (await gallery.all()).reverse()
  $('pictures').replaceChildren(
    ...pictures.map((entry) => {
      const button = Object.assign(document.createElement('button'), {
        type: 'button',
        title: entry.form.prompt,
        ariaLabel: entry.form.prompt
      })
      button.append(Object.assign(new Image(), { src: URL.createObjectURL(entry.blob), alt: entry.form.prompt }))
      button.addEventListener('click', () => view(entry))
      return button
    })
  )
}

const view = (entry) => {
  shown = entry
  const url = URL.createObjectURL(entry.blob)
  $('viewed').src = url
  $('viewed').alt = entry.form.prompt
  $('parameters').textContent = entry.parameters
  $('download').href = url
  $('download').download = `${entry.form.prompt.replace(/[^\w]+/g, '-').slice(0, 60) || 'picture'}.png`
  $('viewer').showModal()
}

const begin = async (blob) => {
  $('picture-part').open = true
  try {
    await picture.set(blob)
  } catch {
    await picture.set(null)
    message('this file is not a picture that the browser can read')
  }
}

$('form').addEventListener('submit', (event) => (event.preventDefault(), void paint()))
$('cancel').addEventListener('click', cancel)
$('strength').addEventListener('input', () => ($('strength-value').textContent = $('strength').value))
$('file').addEventListener('change', () => $('file').files[0] && begin($('file').files[0]))
$('clear-mask').addEventListener('click', () => picture.clearMask())
$('clear-picture').addEventListener('click', () => (($('file').value = ''), picture.set(null)))
$('close').addEventListener('click', () => $('viewer').close())
$('reuse').addEventListener('click', () => {
  const seed = /Seed: (\d+)/.exec(shown.parameters)?.[1]
  use({ ...shown.form, ...(seed ? { seed } : {}) })
  $('viewer').close()
})
$('begin').addEventListener('click', () => ($('viewer').close(), begin(shown.blob)))
$('remove').addEventListener('click', async () => {
  await gallery.remove(shown.id)
  $('viewer').close()
  await showGallery()
})
$('theme').addEventListener('click', () => {
  const dark = document.documentElement.dataset.theme
    ? document.documentElement.dataset.theme === 'dark'
    : matchMedia('(prefers-color-scheme: dark)').matches
  setTheme(dark ? 'light' : 'dark')
})
const setTheme = (theme) => {
  document.documentElement.dataset.theme = theme
  localStorage.setItem('node-diffusion-theme', theme)
}
const theme = localStorage.getItem('node-diffusion-theme')
if (theme) setTheme(theme)

for (const name of ['dragover', 'dragleave', 'drop'])
  $('drop').addEventListener(name, (event) => {
    event.preventDefault()
    $('drop').classList.toggle('over', name === 'dragover')
    if (name === 'drop' && event.dataTransfer.files[0]) begin(event.dataTransfer.files[0])
  })
document.addEventListener('paste', (event) => {
  const file = [...event.clipboardData.files].find((f) => f.type.startsWith('image/'))
  if (file) begin(file)
})
document.addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) void paint()
  if (event.key === 'Escape' && !$('viewer').open) void cancel()
})

try {
  await fill()
  await showGallery()
} catch (error) {
  message(error.message)
}
