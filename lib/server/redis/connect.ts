/** BullMQ and ioredis: optional packages, imported only where a Redis is asked for. */
import type * as Bullmq from 'bullmq'
import type { Redis, RedisOptions } from 'ioredis'
import { DiffusionError, invalidArgument, unsupported } from '../../errors.js'

export interface RedisModules {
  readonly bullmq: typeof Bullmq
  /** A connection; the packages of a server and its worker treat failures differently. */
  connect: (options?: RedisOptions) => Redis
}

export const unavailable = (cause: unknown): DiffusionError =>
  new DiffusionError('ERR_ND_UNAVAILABLE', `the queue's Redis does not answer: ${(cause as Error).message}`, { cause })

/** @throws ERR_ND_UNSUPPORTED where the packages are not installed, ERR_ND_INVALID_ARGUMENT for the address */
export const loadRedis = async (url: string): Promise<RedisModules> => {
  if (typeof url !== 'string' || !/^rediss?:\/\/./.test(url))
    throw invalidArgument('redis', 'an address such as redis://127.0.0.1:6379', url)
  try {
    const [bullmq, { Redis }] = await Promise.all([import('bullmq'), import('ioredis')])
    return { bullmq, connect: (options) => new Redis(url, { ...options, lazyConnect: true }) }
  } catch (cause) {
    if (!/Cannot find (module|package) '(bullmq|ioredis)'/.test((cause as Error).message)) throw cause
    throw unsupported('a queue over Redis needs two more packages: npm install bullmq ioredis')
  }
}

/** Connects, or says within `seconds` why not. */
export const connected = async (client: Redis, seconds = 5): Promise<Redis> => {
  let last: unknown = new Error(`no answer in ${seconds} s`)
  const note = (error: unknown): void => void (last = error)
  client.on('error', note)
  let timer: NodeJS.Timeout | undefined
  try {
    await Promise.race([
      client.status === 'wait' ? client.connect() : client.ping(),
      new Promise((_, reject) => (timer = setTimeout(() => reject(last as Error), seconds * 1000)))
    ])
    return client
  } catch (error) {
    client.disconnect()
    throw unavailable(last instanceof Error ? last : error)
  } finally {
    clearTimeout(timer)
    client.off('error', note)
    client.on('error', () => {}) // it connects again; commands tell their callers
  }
}
