/** A Hugging Face hub on this machine: the routes that a download uses, with connections that break when told to. */
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join, sep } from 'node:path'

export const commit = 'c0ffee00'.repeat(5)

export interface MockHub {
  readonly url: string
  /** Every request: 'GET /org/model/resolve/…', with the range. */
  readonly requests: { line: string; range: string | undefined; token: string | undefined }[]
  /** Breaks the connection after so many bytes of a body, this many times; then all goes well. */
  breakAfter: { bytes: number; times: number } | undefined
  /** Every answer is this status. */
  failWith: number | undefined
  /** Changes a byte of files of this name. */
  corrupt: RegExp | undefined
  /** Asked for by the server; undefined: none. */
  requiredToken: string | undefined
  close(): Promise<void>
}

const sha = (algorithm: string, ...parts: (string | Buffer)[]): string => {
  const hash = createHash(algorithm)
  for (const part of parts) hash.update(part)
  return hash.digest('hex')
}

/** Serves `folder` as the repository `repo`: files over 1000 bytes are LFS files. `rename` gives stored names. */
export const startHub = async (
  repo: string,
  folder: string,
  rename: (path: string) => string = (path) => path
): Promise<MockHub> => {
  const files = new Map<string, Buffer>()
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true }))
    if (!entry.isDirectory()) {
      const path = join(entry.parentPath, entry.name)
      files.set(
        rename(
          path
            .slice(folder.length + 1)
            .split(sep)
            .join('/')
        ),
        readFileSync(path)
      )
    }
  const hub: MockHub = {
    url: '',
    requests: [],
    breakAfter: undefined,
    failWith: undefined,
    corrupt: undefined,
    requiredToken: undefined,
    close: () => new Promise((resolve) => (server.closeAllConnections(), server.close(() => resolve())))
  }
  const json = (response: ServerResponse, value: unknown): void => {
    response.setHeader('content-type', 'application/json')
    response.end(JSON.stringify(value))
  }
  const tree = (): unknown[] =>
    [...files].map(([path, content]) => ({
      type: 'file',
      path,
      size: content.length,
      oid: sha('sha1', `blob ${content.length}\0`, content),
      ...(content.length > 1000 ? { lfs: { oid: sha('sha256', content), size: content.length, pointerSize: 134 } } : {})
    }))
  const send = (request: IncomingMessage, response: ServerResponse, path: string): void => {
    let content = files.get(path)
    if (!content) {
      response.statusCode = 404
      response.setHeader('X-Error-Code', 'EntryNotFound')
      return void response.end()
    }
    const whole = content.length
    const [, from, to] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '') ?? []
    response.setHeader('etag', '"x"')
    if (from !== undefined) {
      const end = Math.min(to ? Number(to) : Infinity, whole - 1)
      response.statusCode = 206
      response.setHeader('content-range', `bytes ${from}-${end}/${whole}`)
      content = content.subarray(Number(from), end + 1)
    }
    if (hub.corrupt?.test(path)) content = Buffer.concat([content.subarray(0, -1), Buffer.from([content.at(-1)! ^ 1])])
    response.setHeader('content-length', content.length)
    const { breakAfter } = hub
    if (breakAfter && breakAfter.times > 0 && content.length > breakAfter.bytes) {
      breakAfter.times--
      response.write(content.subarray(0, breakAfter.bytes), () => setTimeout(() => response.destroy(), 20))
    } else response.end(content)
  }
  const server: Server = createServer((request, response) => {
    const url = new URL(request.url!, 'http://hub')
    const token = request.headers.authorization?.replace('Bearer ', '')
    hub.requests.push({ line: `${request.method} ${url.pathname}`, range: request.headers.range, token })
    const answer = (status: number): void => {
      response.statusCode = status
      json(response, { error: `status ${status}` })
    }
    if (hub.failWith !== undefined) return answer(hub.failWith)
    if (hub.requiredToken !== undefined && token !== hub.requiredToken) return answer(401)
    const path = decodeURIComponent(url.pathname)
    if (path.startsWith(`/api/models/${repo}/revision/`)) {
      const revision = path.split('/revision/')[1]!
      if (revision !== 'main' && revision !== commit) return answer(404)
      return json(response, { _id: '1', id: repo, sha: commit, private: false, lastModified: '2026-11-23T00:00:00Z' })
    }
    if (path === `/api/models/${repo}/tree/${commit}`) return json(response, tree())
    const resolve = new RegExp(`^/${repo}/resolve/${commit}/(.+)$`).exec(path)
    if (resolve) return send(request, response, resolve[1]!)
    const plain = /^\/files\/(.+)$/.exec(path)
    if (plain) return send(request, response, plain[1]!)
    answer(404)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return Object.assign(hub, { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` })
}
