/**
 * The cache of Python's huggingface_hub, read and filled in place:
 *
 *     models--org--name/refs/main            the commit that `main` was last seen at
 *     models--org--name/snapshots/<commit>/  the repository's files, as links into
 *     models--org--name/blobs/<etag>         their contents: SHA-256 of LFS files, git's object id of small ones
 */
import { access, copyFile, mkdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { dirname, join, relative } from 'node:path'
import { getHFHubCachePath } from '@huggingface/hub'

export const cacheFolder = (cacheDir?: string): string => cacheDir ?? getHFHubCachePath()

const hubHome = (): string =>
  process.env.HF_HOME ?? join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'huggingface')

/** HF_TOKEN, or what `hf auth login` left behind. */
export const storedToken = async (): Promise<string | undefined> => {
  const given = process.env.HF_TOKEN?.trim()
  if (given) return given
  const path = process.env.HF_TOKEN_PATH ?? join(hubHome(), 'token')
  return readFile(path, 'utf8').then(
    (text) => text.trim() || undefined,
    () => undefined
  )
}

export const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false
  )

export class RepoCache {
  readonly folder: string
  constructor(cacheDir: string, repo: string) {
    this.folder = join(cacheDir, `models--${repo.replaceAll('/', '--')}`)
  }
  snapshot(commit: string): string {
    return join(this.folder, 'snapshots', commit)
  }
  blob(etag: string): string {
    return join(this.folder, 'blobs', etag)
  }
  /** The commit of a branch or tag when it was last asked for. */
  async commitOf(revision: string): Promise<string | undefined> {
    if (/^[0-9a-f]{40}$/.test(revision)) return revision
    return readFile(join(this.folder, 'refs', revision), 'utf8').then(
      (text) => text.trim(),
      () => undefined
    )
  }
  async remember(revision: string, commit: string): Promise<void> {
    if (revision === commit) return
    const path = join(this.folder, 'refs', revision)
    await mkdir(dirname(path), { recursive: true })
    await writeAtomically(path, commit)
  }
  /** Makes a blob visible under a file's name. Where links are not allowed (Windows), it is copied. */
  async link(blob: string, commit: string, file: string): Promise<void> {
    const path = join(this.snapshot(commit), ...file.split('/'))
    if (await exists(path)) return
    await mkdir(dirname(path), { recursive: true })
    await rm(path, { force: true }) // a link to a blob that is gone
    try {
      await symlink(relative(dirname(path), blob), path)
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (code === 'EEXIST') return // another process was faster
      if (code !== 'EPERM' && code !== 'ENOTSUP' && code !== 'ENOSYS') throw error
      await copyFile(blob, path)
    }
  }
}

const writeAtomically = async (path: string, text: string): Promise<void> => {
  const draft = `${path}.${process.pid}.tmp`
  await writeFile(draft, text)
  await rename(draft, path)
}
