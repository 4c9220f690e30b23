/** Bodies in JSON: their strings hold pictures and may be long; everything else of them is short. */
import type { FastifyInstance, FastifyRequest } from 'fastify'

const quote = 0x22
const backslash = 0x5c
/** Bytes outside of strings. Millions of nested lists would take gigabytes once parsed. */
const mostStructure = 1 << 18

/** How much of a JSON text lies outside of its strings, quotes included; stops counting at `most`. */
export const structureOf = (text: Buffer, most: number): number => {
  let outside = 0
  for (let at = 0; at < text.length && outside <= most;) {
    const open = text.indexOf(quote, at)
    if (open < 0) return outside + text.length - at
    outside += open - at + 2
    let close = open
    do {
      close = text.indexOf(quote, close + 1)
      if (close < 0) return outside
    } while (escaped(text, close))
    at = close + 1
  }
  return outside
}

const escaped = (text: Buffer, at: number): boolean => {
  let slashes = 0
  while (text[at - 1 - slashes] === backslash) slashes++
  return slashes % 2 === 1
}

export const parseJsonBodies = (app: FastifyInstance): void => {
  const parse = app.getDefaultJsonParser('error', 'error')
  app.removeContentTypeParser('application/json')
  app.addContentTypeParser(
    'application/json',
    { parseAs: 'buffer' },
    (request: FastifyRequest, body: Buffer, done: (error: Error | null, value?: unknown) => void) => {
      if (structureOf(body, mostStructure) > mostStructure)
        return done(
          Object.assign(new Error(`Expected JSON with at most ${mostStructure} bytes outside of strings`), {
            statusCode: 413
          })
        )
      void parse(request, body.toString('utf8'), done)
    }
  )
}
