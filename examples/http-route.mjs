// node examples/http-route.mjs [port]: two routes of a fastify server over one pipeline. Calls queue in the pipeline, one after another; a
// client that goes away cancels its own. `npx node-diffusion serve` is a whole server; this is how to add pictures to your own.
import fastify from 'fastify'
import { Pipeline } from 'node-diffusion'

const pipe = await Pipeline.fromPretrained(process.env.MODEL ?? 'postcard')
const app = fastify()

/** The request's options, and a signal that aborts when its client is gone. */
const callOf = (request, reply) => {
  const gone = new AbortController()
  reply.raw.on('close', () => gone.abort(new Error('the client went away')))
  const { prompt, steps = 20, seed } = request.query
  return { prompt, steps: Number(steps), ...(seed === undefined ? {} : { seed: Number(seed) }), signal: gone.signal }
}

const schema = {
  querystring: {
    type: 'object',
    required: ['prompt'],
    properties: {
      prompt: { type: 'string', maxLength: 1000 },
      steps: { type: 'integer', minimum: 1, maximum: 100 },
      seed: { type: 'integer', minimum: 0 }
    }
  }
}

app.get('/picture', { schema }, async (request, reply) => {
  const { images } = await pipe.txt2img(callOf(request, reply))
  return reply.type('image/png').send(await images[0].toBuffer('png'))
})

// Server-sent events: `step` with a preview every fifth step, at the end `picture`.
app.get('/stream', { schema }, async (request, reply) => {
  const call = callOf(request, reply)
  reply.hijack()
  reply.raw.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' })
  const send = (event, data) => reply.raw.write(`event: ${event}\ndata: ${JSON.stringify(data)}\n\n`)
  try {
    for await (const event of pipe.stream('txt2img', { ...call, preview: { every: 5 } })) {
      if (event.type === 'step') {
        const preview = event.image && (await event.image.toBuffer('webp')).toString('base64')
        send('step', { step: event.step, steps: event.steps, preview })
      } else {
        const [image] = event.result.images
        send('picture', { seed: String(event.result.seeds[0]), png: (await image.toBuffer('png')).toString('base64') })
      }
    }
  } catch (error) {
    if (!call.signal.aborted) send('error', { code: error.code, message: error.message })
  }
  reply.raw.end()
})

app.addHook('onClose', () => pipe.dispose())
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => app.close())
console.log(await app.listen({ port: Number(process.argv[2] ?? 8080) }))
