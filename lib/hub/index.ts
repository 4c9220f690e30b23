/** Models from the Hugging Face hub and from https addresses, as paths on disk. */
import { createHash } from 'node:crypto'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { downloadFile, HubApiError, listFiles, modelInfo } from '@huggingface/hub'
import { DiffusionError, invalidArgument, modelFormat } from '../errors.js'
import { modelNotFound, readJson } from '../models/files.js'
import { cacheFolder, exists, RepoCache, storedToken } from './cache.js'
import { download, hashOf, reasonOf, type Transfer } from './download.js'
import { checkPath, componentFiles, neededFiles, parseRepo, parseRepoFolder, type RemoteFile } from './select.js'

export interface HubOptions {
  /** A branch, tag or commit; 'main' by default. */
  readonly revision?: string | undefined
  /** Instead of HF_HUB_CACHE, or hub/ in HF_HOME. */
  readonly cacheDir?: string | undefined
  /** Instead of HF_TOKEN and what `hf auth login` stored; false sends none. */
  readonly token?: string | false | undefined
  /** Read the cache alone, as HF_HUB_OFFLINE=1 does. */
  readonly localFilesOnly?: boolean | undefined
  /** SHA-256 that a single file must have. */
  readonly sha256?: string | undefined
  readonly variant?: string | undefined
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((event: DownloadEvent) => void) | undefined
}

/** Bytes of all files that the model needs. */
export interface DownloadEvent {
  readonly component: 'download'
  readonly file: string
  readonly loaded: number
  readonly total: number
}

export interface Located {
  readonly path: string
  /** Which weights to prefer where a folder has several: the ones that were brought. */
  readonly prefer?: string
  readonly warnings: readonly string[]
}

/**
 * What is wanted of a repository that is named as a whole: a model; its configurations and tokenizers; or one component, which
 * is the repository itself, the folder of it that is named, or, in a model, the folder of this name.
 */
export type Want = 'model' | 'configs' | { readonly component: string }

/**
 * Brings a model here, or finds it in the cache.
 * @param source 'org/name', 'org/name/file.safetensors', the address of a .safetensors file; components: 'org/name/folder' too
 * @throws ERR_ND_MODEL_NOT_FOUND, ERR_ND_ACCESS (a token is missing or lacks rights), ERR_ND_DOWNLOAD, ERR_ND_UNSUPPORTED; signal.reason
 */
export const locate = async (source: string, options: HubOptions, want: Want = 'model'): Promise<Located> => {
  const { revision, sha256 } = options
  if (revision !== undefined && (!/^\w[\w./-]*$/.test(revision) || revision.includes('..')))
    throw invalidArgument('revision', 'a branch, tag or commit', revision)
  if (sha256 !== undefined && !/^[0-9a-f]{64}$/i.test(sha256))
    throw invalidArgument('sha256', '64 hexadecimal digits', sha256)
  if (typeof want === 'object') {
    const part = parseRepoFolder(source)
    if (part)
      return new Repository(part.repo, { ...options, revision: revision ?? 'main' }).component(
        part.folder ? [part.folder] : ['', `${want.component}/`]
      )
  }
  const onHub = hubAddress(source)
  const wanted = onHub ?? parseRepo(source)
  if (!wanted) return locateUrl(source, options)
  const repo = new Repository(wanted.repo, { ...options, revision: revision ?? onHub?.revision ?? 'main' })
  return wanted.file === undefined ? repo.folder(want !== 'configs') : repo.file(checkPath(wanted.file))
}

const endpoint = (): string => (process.env.HF_ENDPOINT ?? 'https://huggingface.co').replace(/\/+$/, '')

/** https://huggingface.co/org/name/{blob,resolve}/main/model.safetensors, as browsers and diffusers' users have it. */
const hubAddress = (source: string): { repo: string; revision: string; file: string } | undefined => {
  for (const host of new Set([endpoint(), 'https://huggingface.co', 'https://hf.co'])) {
    if (!source.startsWith(`${host}/`)) continue
    const match = /^([\w.-]+\/[\w.-]+)\/(?:blob|resolve|raw)\/([^/]+)\/([^?#]+)/.exec(source.slice(host.length + 1))
    if (match) return { repo: match[1]!, revision: decodeURIComponent(match[2]!), file: decodeURIComponent(match[3]!) }
  }
  return undefined
}

class Repository {
  private readonly cache: RepoCache
  private readonly revision: string
  constructor(
    private readonly repo: string,
    private readonly options: HubOptions & { revision: string }
  ) {
    this.cache = new RepoCache(cacheFolder(options.cacheDir), repo)
    this.revision = options.revision
  }

  /** The snapshot of a diffusers model, with the files that it needs. @param weights false: without weights */
  async folder(weights: boolean): Promise<Located> {
    return this.online(
      async (commit) => {
        const files = await this.list(commit)
        const index = files.find((file) => file.path === 'model_index.json')
        if (!index) throw noIndex(this.repo, files)
        await this.bring(commit, [index])
        const source = join(this.cache.snapshot(commit), 'model_index.json')
        const needed = neededFiles(
          this.repo,
          files,
          await readJson(source, 'the list of components'),
          this.options.variant,
          weights
        )
        await this.bring(commit, needed)
        return this.cache.snapshot(commit)
      },
      (snapshot) => exists(join(snapshot, 'model_index.json')).then((there) => (there ? snapshot : undefined))
    )
  }

  /** A component's folder: the first of `folders` with a config.json. */
  async component(folders: readonly string[]): Promise<Located> {
    const inside = (snapshot: string, folder: string): string => join(snapshot, ...folder.split('/').filter(Boolean))
    return this.online(
      async (commit) => {
        const files = await this.list(commit)
        const folder = folders.find((f) => files.some((file) => file.path === `${f}config.json`))
        if (folder === undefined)
          throw modelNotFound(
            `${this.repo}: expected ${folders.map((f) => `${f}config.json`).join(' or ')} but there is none`
          )
        await this.bring(commit, componentFiles(this.repo, files, folder, this.options.variant))
        return inside(this.cache.snapshot(commit), folder)
      },
      async (snapshot) => {
        for (const folder of folders)
          if (await exists(join(inside(snapshot, folder), 'config.json'))) return inside(snapshot, folder)
        return undefined
      }
    )
  }

  /** One file of the repository. */
  async file(path: string): Promise<Located> {
    return this.online(
      async (commit) => {
        const file = (await this.list(commit)).find((f) => f.path === path)
        if (!file) throw modelNotFound(`${this.repo}: expected a file ${path} at ${this.revision} but there is none`)
        const { sha256 } = this.options
        if (sha256 !== undefined && file.hash === 'sha256' && file.etag !== sha256.toLowerCase())
          throw modelFormat(`${this.repo}/${path}: expected SHA-256 ${sha256} but the hub's file has ${file.etag}`)
        await this.bring(commit, [file])
        return join(this.cache.snapshot(commit), ...path.split('/'))
      },
      (snapshot) => {
        const local = join(snapshot, ...path.split('/'))
        return exists(local).then((there) => (there ? local : undefined))
      }
    )
  }

  /** Asks the hub; where it cannot be asked, what the cache has will do, as in Python. */
  private async online(
    ask: (commit: string) => Promise<string>,
    cached: (snapshot: string) => Promise<string | undefined>
  ): Promise<Located> {
    const prefer = this.options.variant ?? 'fp16'
    const local = async (): Promise<string | undefined> => {
      const commit = await this.cache.commitOf(this.revision)
      return commit === undefined ? undefined : cached(this.cache.snapshot(commit))
    }
    if (this.options.localFilesOnly ?? /^(1|true|yes|on)$/i.test(process.env.HF_HUB_OFFLINE ?? '')) {
      const path = await local()
      if (path !== undefined) return { path, prefer, warnings: [] }
      throw modelNotFound(
        `${this.repo}: expected ${this.revision} in the cache ${this.cache.folder}, as the hub is not to be asked ` +
          '(HF_HUB_OFFLINE or localFilesOnly), but it is not there; load it once online'
      )
    }
    try {
      const commit = await this.commit()
      const path = await ask(commit)
      await this.cache.remember(this.revision, commit)
      return { path, prefer, warnings: [] }
    } catch (error) {
      this.options.signal?.throwIfAborted()
      const told = this.told(error)
      const path = told.code === 'ERR_ND_DOWNLOAD' ? await local() : undefined
      if (path === undefined) throw told
      return { path, prefer, warnings: [`${told.message}. The copy in the cache is used: ${path}`] }
    }
  }

  private readonly fetch: typeof fetch = (input, init) =>
    fetch(input, { ...init, ...(this.options.signal ? { signal: this.options.signal } : {}) })

  private async request(): Promise<{ repo: string; hubUrl: string; fetch: typeof fetch; accessToken?: string }> {
    const { token } = this.options
    const accessToken = token === false ? undefined : (token ?? (await storedToken()))
    return { repo: this.repo, hubUrl: endpoint(), fetch: this.fetch, ...(accessToken ? { accessToken } : {}) }
  }

  private async commit(): Promise<string> {
    if (/^[0-9a-f]{40}$/.test(this.revision)) return this.revision
    const info = await modelInfo({
      ...(await this.request()),
      name: this.repo,
      revision: this.revision,
      additionalFields: ['sha']
    })
    if (!/^[0-9a-f]{40}$/.test(info.sha))
      throw downloadError(`${this.repo}: expected a commit for ${this.revision} but the hub answered ${info.sha}`)
    return info.sha
  }

  private async list(commit: string): Promise<RemoteFile[]> {
    const files: RemoteFile[] = []
    for await (const entry of listFiles({ ...(await this.request()), revision: commit, recursive: true })) {
      if (entry.type !== 'file') continue
      const etag = entry.lfs?.oid ?? entry.oid
      if (!etag || !/^[0-9a-f]{40}([0-9a-f]{24})?$/.test(etag)) continue
      files.push({ path: checkPath(entry.path), size: entry.size, etag, hash: entry.lfs ? 'sha256' : 'git' })
    }
    return files
  }

  private async bring(commit: string, files: readonly RemoteFile[]): Promise<void> {
    const total = files.reduce((sum, file) => sum + file.size, 0)
    let before = 0
    for (const file of files) {
      const blob = this.cache.blob(file.etag)
      const start = before
      const tell = (bytes: number): void =>
        this.options.onProgress?.({ component: 'download', file: file.path, loaded: start + bytes, total })
      const transfer: Transfer = {
        name: `${this.repo}/${file.path}`,
        path: blob,
        size: file.size,
        check: { hash: file.hash, value: file.etag },
        open: (at) => this.open(file, commit, at)
      }
      await download(transfer, { signal: this.options.signal, onBytes: tell })
      await this.cache.link(blob, commit, file.path)
      before += file.size
      tell(file.size)
    }
  }

  private async open(
    file: RemoteFile,
    commit: string,
    start: number
  ): Promise<{ start: number; body: AsyncIterable<Uint8Array> }> {
    try {
      const blob = await downloadFile({ ...(await this.request()), path: file.path, revision: commit })
      if (!blob) throw modelNotFound(`${this.repo}: expected a file ${file.path} at ${commit} but there is none`)
      if (file.size === 0) return { start: 0, body: nothing() }
      const rest = start > 0 ? blob.slice(start, file.size) : blob
      return { start, body: rest.stream() as unknown as AsyncIterable<Uint8Array> }
    } catch (error) {
      // What the hub refuses, it refuses again; server errors and broken connections may pass.
      const told = this.told(error)
      throw told.code === 'ERR_ND_DOWNLOAD' ? error : told
    }
  }

  /** The hub's errors in this package's words. */
  private told(error: unknown): DiffusionError {
    if (error instanceof DiffusionError) return error
    const status = error instanceof HubApiError ? error.statusCode : undefined
    if (status === 401 || status === 403)
      return new DiffusionError(
        'ERR_ND_ACCESS',
        `${this.repo}: the hub asks for a token that may read this model (${status}); it may be private, gated or misspelt: accept ` +
          'its terms on its page, then set HF_TOKEN, run `hf auth login`, or give the option token',
        { cause: error }
      )
    if (status === 404)
      return modelNotFound(
        `${this.repo}: expected a model of this name with the revision ${this.revision} on ${endpoint()} but there is none`,
        error
      )
    return downloadError(`${this.repo}: ${endpoint()} could not be asked: ${reasonOf(error)}`, error)
  }
}

const downloadError = (message: string, cause?: unknown): DiffusionError =>
  new DiffusionError('ERR_ND_DOWNLOAD', message, cause === undefined ? undefined : { cause })

async function* nothing(): AsyncGenerator<Uint8Array> {}

const noIndex = (repo: string, files: readonly RemoteFile[]): Error => {
  const single = files.filter((file) => /^[^/]+\.safetensors$/.test(file.path)).map((file) => `${repo}/${file.path}`)
  return modelNotFound(
    `${repo}: expected a diffusers model but the repository has no model_index.json` +
      (single.length ? `; to load one of its files, give ${single.slice(0, 3).join(' or ')}` : '')
  )
}

/** Any other address: kept by its hash beside the hub's models. */
const locateUrl = async (source: string, options: HubOptions): Promise<Located> => {
  const url = new URL(source)
  const name = decodeURIComponent(url.pathname.split('/').at(-1) ?? '')
  if (!/^[^/\\]+\.safetensors$/.test(name))
    throw invalidArgument('source', 'the address of a .safetensors file', source)
  const local = url.hostname === 'localhost' || url.hostname === '127.0.0.1' || url.hostname === '[::1]'
  if (url.protocol !== 'https:' && !local) throw invalidArgument('source', 'an https address', source)
  const key = createHash('sha256').update(url.href).digest('hex').slice(0, 32)
  const path = join(cacheFolder(options.cacheDir), 'node-diffusion-urls', key, name)
  const { signal, onProgress } = options
  const expected = options.sha256?.toLowerCase()
  if (options.localFilesOnly && !(await exists(path)))
    throw modelNotFound(`${source}: expected it in the cache, as localFilesOnly is set, but it is not there`)

  let total = 0
  const get = async (start: number): Promise<{ start: number; body: AsyncIterable<Uint8Array> }> => {
    const response = await fetch(url, {
      headers: { 'accept-encoding': 'identity', ...(start > 0 ? { range: `bytes=${start}-` } : {}) },
      ...(signal ? { signal } : {})
    })
    const { status } = response
    if (status === 404 || status === 410) throw modelNotFound(`${source}: the server has no such file (${status})`)
    if (status === 401 || status === 403)
      throw new DiffusionError('ERR_ND_ACCESS', `${source}: the server does not give this file out (${status})`)
    if (status === 416) return { start: 0, body: (await get(0)).body }
    if (!response.ok || !response.body) throw new Error(`the server answered ${status}`)
    const length = Number(response.headers.get('content-length') ?? NaN)
    const from = status === 206 ? start : 0
    total = Number.isFinite(length) ? from + length : 0
    const body = response.body as unknown as AsyncIterable<Uint8Array>
    return { start: from, body: Number.isFinite(length) ? whole(body, length) : body }
  }
  const transfer: Transfer = {
    name: source,
    path,
    size: undefined,
    check: expected === undefined ? undefined : { hash: 'sha256', value: expected },
    open: get
  }
  if (expected !== undefined && (await exists(path)) && (await hashOf(path, 'sha256')) !== expected) await rm(path)
  await download(transfer, {
    signal,
    onBytes: (loaded) => onProgress?.({ component: 'download', file: name, loaded, total })
  })
  return { path, warnings: [] }
}

/** A body that ends early is an error, not a file. */
async function* whole(body: AsyncIterable<Uint8Array>, length: number): AsyncGenerator<Uint8Array> {
  let received = 0
  for await (const chunk of body) {
    received += chunk.length
    yield chunk
  }
  if (received < length) throw new Error(`the connection ended after ${received} of ${length} bytes`)
}
