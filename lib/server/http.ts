/** What all routes share: errors as statuses, pictures out of requests, the end of a request as an AbortSignal. */
import { createHash, timingSafeEqual } from 'node:crypto'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { DiffusionError, invalidArgument, type ErrorCode } from '../errors.js'

const statuses: Partial<Record<ErrorCode, number>> = {
  ERR_ND_INVALID_ARGUMENT: 400,
  ERR_ND_UNSUPPORTED: 400,
  ERR_ND_MODEL_NOT_FOUND: 404,
  ERR_ND_ABORTED: 499,
  ERR_ND_QUEUE_FULL: 429,
  ERR_ND_CLOSED: 503,
  ERR_ND_UNAVAILABLE: 503,
  ERR_ND_OUT_OF_MEMORY: 503,
  ERR_ND_DOWNLOAD: 502,
  ERR_ND_ACCESS: 502
}

/** Seconds after which a refused client may try again. */
export const retryAfter = 5

export const statusOf = (error: unknown): number => {
  if (error instanceof DiffusionError) return statuses[error.code] ?? 500
  const { statusCode, name, code } = (error ?? {}) as { statusCode?: number; name?: string; code?: string }
  if (code === 'ENOSPC' || code === 'EDQUOT' || code === 'EFBIG') return 507
  if (typeof statusCode === 'number' && statusCode >= 400 && statusCode < 500) return statusCode
  return name === 'AbortError' ? 499 : 500
}

/** What a client may read of an error: nothing of the inside of a failure that is not its own. */
export const messageOf = (error: unknown): string =>
  error instanceof DiffusionError || statusOf(error) < 500 ? (error as Error).message : 'internal error'

/** Aborted when the client goes away before it has its answer. */
export const disconnected = (reply: FastifyReply): AbortSignal => {
  const stop = new AbortController()
  reply.raw.on('close', () => {
    if (!reply.raw.writableFinished) stop.abort(new DiffusionError('ERR_ND_ABORTED', 'the client has gone'))
  })
  return stop.signal
}

const digest = (text: string): Buffer => createHash('sha256').update(text).digest()

/** Bearer tokens, an x-api-key header, or the password of basic authentication (as AUTOMATIC1111's --api-auth). */
export const authorized = (request: FastifyRequest, keys: readonly string[]): boolean => {
  const header = request.headers.authorization ?? ''
  const basic = /^Basic (.+)$/i.exec(header)
  const given =
    /^Bearer (.+)$/i.exec(header)?.[1] ??
    (basic
      ? Buffer.from(basic[1]!, 'base64')
          .toString('utf8')
          .replace(/^[^:]*:/, '')
      : undefined) ??
    (typeof request.headers['x-api-key'] === 'string' ? request.headers['x-api-key'] : undefined)
  if (given === undefined) return false
  const hash = digest(given)
  return keys.map((key) => timingSafeEqual(digest(key), hash)).some(Boolean)
}

/** A picture in base64, as it is or as a data: URL. */
export const decodeBase64 = (name: string, value: unknown): Buffer => {
  if (typeof value !== 'string') throw invalidArgument(name, 'a picture in base64', value)
  const text = value.replace(/^data:[\w/+.-]+;base64,/, '').replace(/\s/g, '')
  if (text === '' || text.length % 4 !== 0 || !/^[A-Za-z0-9+/]*={0,2}$/.test(text))
    throw invalidArgument(name, 'a picture in base64', value)
  return Buffer.from(text, 'base64')
}

/** One server-sent event. */
export const serverSentEvent = (data: unknown, event?: string): string =>
  `${event === undefined ? '' : `event: ${event}\n`}data: ${JSON.stringify(data)}\n\n`

/** Bytes that wait for a client. */
const mostUnread = 1 << 20

/** Takes the reply out of fastify's hands and sends events until `body` ends. */
export const streamEvents = async (
  reply: FastifyReply,
  body: (send: (data: unknown, event?: string) => void) => Promise<void>
): Promise<void> => {
  const headers = reply.getHeaders() as Record<string, string>
  reply.hijack()
  reply.raw.writeHead(200, {
    ...headers,
    'content-type': 'text/event-stream; charset=utf-8',
    'cache-control': 'no-cache, no-transform',
    'x-accel-buffering': 'no'
  })
  const send = (data: unknown, event?: string): void => {
    // Steps are left out for a client that reads more slowly than they come; ends are not.
    if (event === 'step' && reply.raw.writableLength > mostUnread) return
    if (!reply.raw.destroyed) reply.raw.write(serverSentEvent(data, event))
  }
  const alive = setInterval(() => reply.raw.destroyed || reply.raw.write(': alive\n\n'), 15_000)
  try {
    await body(send)
  } finally {
    clearInterval(alive)
    reply.raw.end()
  }
}
