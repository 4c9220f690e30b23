/** AUTOMATIC1111's web API (/sdapi/v1): what its clients use to paint. */
import type { FastifyInstance, FastifyReply } from 'fastify'
import { DiffusionError, invalidArgument } from '../errors.js'
import { readPngText } from '../png-metadata.js'
import { parseParameters } from '../infotext.js'
import { samplerLabels, scheduleTypeNames } from '../schedulers/labels.js'
import { integerIn, oneOf } from '../validate.js'
import { paintRequest, type A1111Request, type A1111Settings } from './a1111-options.js'
import { decodeBase64, disconnected, messageOf, retryAfter, statusOf } from './http.js'
import type { Painted, Painter, PaintJob } from './painter.js'

const body = { type: 'object', additionalProperties: true } as const

export const a1111Routes = (app: FastifyInstance, painter: Painter): void => {
  const settings: A1111Settings = {
    sd_model_checkpoint: painter.models.current,
    CLIP_stop_at_last_layers: 1,
    randn_source: 'GPU',
    show_progress_every_n_steps: 10
  }

  const paint = async (request: A1111Request, kind: 'txt2img' | 'img2img', reply: FastifyReply): Promise<object> => {
    const job = await painter.submit(paintRequest(request, settings, kind), disconnected(reply))
    let painted: Painted | undefined
    try {
      painted = await job.finished
    } catch (error) {
      // Interrupted by another request: there, an answer with what there is.
      if (!interrupted.has(job)) throw error
    }
    const images = painted?.result.images ?? []
    return {
      images: request.send_images === false ? [] : await Promise.all(images.map(encode)),
      parameters: { ...request, init_images: undefined, mask: undefined },
      info: JSON.stringify(infoOf(request, painted))
    }
  }
  const interrupted = new WeakSet<PaintJob>()

  app.register(
    (scope, _, done) => {
      scope.setErrorHandler((error, _request, reply) => {
        const status = statusOf(error)
        if (status === 429) reply.header('retry-after', retryAfter)
        const name = error instanceof DiffusionError ? error.code : 'Error'
        return reply.code(status).send({ error: name, detail: messageOf(error), body: '', errors: messageOf(error) })
      })
      const tags = ['automatic1111']

      scope.post<{ Body: A1111Request }>('/txt2img', { schema: { tags, summary: 'Text to image', body } }, (r, reply) =>
        paint(r.body, 'txt2img', reply)
      )
      scope.post<{ Body: A1111Request }>(
        '/img2img',
        { schema: { tags, summary: 'Image to image, or inpainting with a mask', body } },
        (r, reply) => paint(r.body, 'img2img', reply)
      )

      scope.get<{ Querystring: { skip_current_image?: string } }>(
        '/progress',
        { schema: { tags, summary: 'How far the running job is' } },
        async (request) => {
          const job = painter.queue.running[0]
          const { queued, running } = await painter.queue.counts()
          const step = job?.last?.step ?? 0
          const steps = job?.last?.steps ?? 0
          const share = steps ? step / steps : 0
          const seconds = job?.started === undefined ? 0 : (Date.now() - job.started) / 1000
          const shown = request.query.skip_current_image === 'true' ? undefined : job?.last?.preview
          return {
            progress: job ? Math.min(share, 0.99) : 0,
            eta_relative: share > 0 ? (seconds / share) * (1 - share) : 0,
            state: {
              skipped: false,
              interrupted: false,
              job: job?.id ?? '',
              job_count: queued + running,
              job_timestamp: job ? new Date(job.created).toISOString() : '0',
              job_no: 0,
              sampling_step: step,
              sampling_steps: steps
            },
            current_image: shown ? (await shown.toBuffer('png')).toString('base64') : null,
            textinfo: job ? null : 'idle'
          }
        }
      )

      const stop = (): object => {
        for (const job of painter.queue.running) {
          interrupted.add(job)
          job.cancel()
        }
        return {}
      }
      scope.post('/interrupt', { schema: { tags, summary: 'End the running job' } }, stop)
      scope.post('/skip', { schema: { tags, summary: 'End the running job' } }, stop)

      scope.get('/samplers', { schema: { tags, summary: 'Samplers by their names' } }, () =>
        samplerLabels.map(({ label, className }) => ({ name: label, aliases: [className], options: {} }))
      )
      scope.get('/schedulers', { schema: { tags, summary: 'Schedule types' } }, () =>
        scheduleTypeNames.map((label) => ({
          name: label.toLowerCase().replaceAll(' ', '_'),
          label,
          aliases: null,
          default_rho: label === 'Karras' ? 7 : -1,
          need_inner_model: false
        }))
      )
      scope.get('/sd-models', { schema: { tags, summary: 'The models of this server' } }, () =>
        painter.models.entries.map(({ name }) => ({
          title: name,
          model_name: name,
          hash: null,
          sha256: null,
          filename: name,
          config: null
        }))
      )
      scope.get('/options', { schema: { tags, summary: 'Settings of all requests' } }, () => settings)
      scope.post<{ Body: Record<string, unknown> }>(
        '/options',
        { schema: { tags, summary: 'Change settings', body } },
        (request) => {
          const { sd_model_checkpoint, CLIP_stop_at_last_layers, randn_source, show_progress_every_n_steps } =
            request.body
          if (sd_model_checkpoint !== undefined) {
            settings.sd_model_checkpoint = painter.models.entry(String(sd_model_checkpoint)).name
            painter.models.current = settings.sd_model_checkpoint
          }
          if (CLIP_stop_at_last_layers !== undefined)
            settings.CLIP_stop_at_last_layers = integerIn('CLIP_stop_at_last_layers', CLIP_stop_at_last_layers, 1, 12)
          if (show_progress_every_n_steps !== undefined)
            settings.show_progress_every_n_steps = integerIn(
              'show_progress_every_n_steps',
              show_progress_every_n_steps,
              -1,
              1000
            )
          if (randn_source !== undefined) settings.randn_source = oneOf('randn_source', randn_source, ['GPU', 'CPU'])
          return null
        }
      )
      scope.post<{ Body: { image?: unknown } }>(
        '/png-info',
        { schema: { tags, summary: 'The parameters in a picture', body } },
        (request) => {
          const text = textOf(decodeBase64('image', request.body.image))
          const info = text.parameters ?? ''
          return { info, items: text, parameters: info === '' ? {} : parseParameters(info) }
        }
      )
      done()
    },
    { prefix: '/sdapi/v1' }
  )
}

/** A file that is broken is the request's fault here, not a model's. */
const textOf = (png: Buffer): Record<string, string> => {
  try {
    return readPngText(png)
  } catch (error) {
    throw invalidArgument('image', `a PNG file (${messageOf(error)})`, 'another one')
  }
}

const encode = async (image: Painted['result']['images'][number]): Promise<string> =>
  (await image.toBuffer('png')).toString('base64')

/** The `info` that clients parse. */
const infoOf = (request: A1111Request, painted: Painted | undefined): object => {
  const images = painted?.result.images ?? []
  const seeds = (painted?.result.seeds ?? []).map(Number)
  return {
    prompt: request.prompt ?? '',
    all_prompts: images.map(() => request.prompt ?? ''),
    negative_prompt: request.negative_prompt ?? '',
    all_negative_prompts: images.map(() => request.negative_prompt ?? ''),
    seed: seeds[0] ?? -1,
    all_seeds: seeds,
    width: images[0]?.width ?? request.width ?? 512,
    height: images[0]?.height ?? request.height ?? 512,
    sampler_name: request.sampler_name ?? request.sampler_index ?? null,
    cfg_scale: request.cfg_scale ?? 7,
    steps: request.steps ?? 50,
    batch_size: request.batch_size ?? 1,
    sd_model_name: painted?.model ?? '',
    infotexts: images.map((image) => image.parameters ?? ''),
    interrupted: painted === undefined
  }
}
