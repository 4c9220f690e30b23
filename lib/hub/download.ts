/** One file from the network to disk: resumed where it broke off, checked by its hash, renamed when it is whole. */
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdir, open, rename, rm, stat, utimes } from 'node:fs/promises'
import { dirname } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { DiffusionError } from '../errors.js'
import { exists } from './cache.js'

export interface Transfer {
  /** For messages. */
  readonly name: string
  /** Where the whole file goes; it is built beside it, in `${path}.incomplete`. */
  readonly path: string
  /** Bytes; undefined where the server did not say. */
  readonly size: number | undefined
  readonly check: { readonly hash: 'sha256' | 'git'; readonly value: string } | undefined
  /** The bytes from `start` on. Yields from 0 where the server cannot resume: then it says so. */
  open(start: number): Promise<{ start: number; body: AsyncIterable<Uint8Array> }>
}

export interface TransferOptions {
  readonly signal?: AbortSignal | undefined
  /** Called with the bytes of this file that are there. */
  readonly onBytes?: ((bytes: number) => void) | undefined
  /** Attempts without a new byte before giving up; 5 by default. */
  readonly attempts?: number
}

const staleSeconds = 20

const sizeOf = (path: string): Promise<number> =>
  stat(path).then(
    (info) => info.size,
    () => 0
  )

export const hashOf = async (path: string, kind: 'sha256' | 'git'): Promise<string> => {
  const hash = createHash(kind === 'git' ? 'sha1' : 'sha256')
  if (kind === 'git') hash.update(`blob ${await sizeOf(path)}\0`)
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer)
  return hash.digest('hex')
}

const downloadError = (message: string, cause?: unknown): DiffusionError =>
  new DiffusionError('ERR_ND_DOWNLOAD', message, cause === undefined ? undefined : { cause })

/** Appends what is missing of the file; throws where the connection ends early. */
const append = async (transfer: Transfer, incomplete: string, lock: string, o: TransferOptions): Promise<void> => {
  const { size } = transfer
  const have = await sizeOf(incomplete)
  if (size !== undefined && size > 0 && have === size) return
  const { start, body } = await transfer.open(size !== undefined && have > size ? 0 : have)
  const file = await open(incomplete, start === 0 ? 'w' : 'r+')
  let written = start
  let beat = Date.now()
  try {
    for await (const chunk of body) {
      o.signal?.throwIfAborted()
      await file.write(chunk, 0, chunk.length, written)
      written += chunk.length
      o.onBytes?.(written)
      if (Date.now() - beat < 2000) continue
      beat = Date.now()
      await utimes(lock, beat / 1000, beat / 1000)
    }
    await file.sync()
  } finally {
    await file.close()
  }
  if (size !== undefined && written < size) throw new Error(`the connection ended after ${written} of ${size} bytes`)
}

/** Holds a lock that other processes see, or waits until the file is there. Returns false in the second case. */
const acquire = async (lock: string, path: string, signal: AbortSignal | undefined): Promise<boolean> => {
  for (;;) {
    signal?.throwIfAborted()
    try {
      await (await open(lock, 'wx')).close()
      return true
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    }
    if (await exists(path)) return false
    const beat = await stat(lock).then(
      (info) => info.mtimeMs,
      () => 0
    )
    // The owner is gone: it would have touched the lock.
    if (Date.now() - beat > staleSeconds * 1000) await rm(lock, { force: true })
    else await sleep(200, undefined, { signal })
  }
}

/**
 * Brings the file to `transfer.path`, unless it is there.
 * @throws ERR_ND_DOWNLOAD, signal.reason, and DiffusionErrors of `open`; its other errors are tried again
 */
export const download = async (transfer: Transfer, options: TransferOptions = {}): Promise<void> => {
  const { path, name, check } = transfer
  if (await exists(path)) return
  await mkdir(dirname(path), { recursive: true })
  const incomplete = `${path}.incomplete`
  const lock = `${path}.lock`
  if (!(await acquire(lock, path, options.signal))) return
  try {
    if (await exists(path)) return
    const attempts = options.attempts ?? 5
    let have = await sizeOf(incomplete)
    let failures = 0
    let corrupt = false
    for (;;) {
      try {
        options.signal?.throwIfAborted()
        await append(transfer, incomplete, lock, options)
        if (!check || (await hashOf(incomplete, check.hash)) === check.value) break
      } catch (error) {
        options.signal?.throwIfAborted()
        failures = failed(transfer, error, failures, (await sizeOf(incomplete)) > have, attempts)
        have = await sizeOf(incomplete)
        await sleep(Math.min(200 * 2 ** failures, 5000) * (0.5 + Math.random() / 2), undefined, {
          signal: options.signal
        })
        continue
      }
      await rm(incomplete, { force: true })
      if (corrupt)
        throw downloadError(
          `${name}: expected a file whose ${check.hash === 'git' ? 'git object id' : 'SHA-256'} is ${check.value} but received ` +
            'another, twice; the server, a proxy or the expected hash is wrong'
        )
      corrupt = true
    }
    await rename(incomplete, path)
  } finally {
    await rm(lock, { force: true })
  }
}

/** Failures in a row without a new byte. @throws where trying again is of no use, or enough */
const failed = (transfer: Transfer, error: unknown, failures: number, grew: boolean, attempts: number): number => {
  if (error instanceof DiffusionError) throw error
  const { code } = error as NodeJS.ErrnoException
  if (code === 'ENOSPC' || code === 'EACCES' || code === 'EROFS' || code === 'EDQUOT' || code === 'EFBIG')
    throw downloadError(`${transfer.name}: cannot write ${transfer.path}: ${(error as Error).message}`, error)
  const now = grew ? 1 : failures + 1
  if (now >= attempts)
    throw downloadError(
      `${transfer.name}: could not be downloaded: ${reasonOf(error)}; what came is kept, the next call goes on from there`,
      error
    )
  return now
}

export const reasonOf = (error: unknown): string => {
  const e = error as Error & { cause?: Error }
  return e?.cause?.message ? `${e.message} (${e.cause.message})` : (e?.message ?? String(error))
}
