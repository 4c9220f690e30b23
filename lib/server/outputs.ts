/** Pictures that clients fetch by address: files with names of the server's own making, for a while. */
import { randomUUID } from 'node:crypto'
import { mkdir, readdir, readFile, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { replaceFile } from '../atomic-write.js'

const namePattern = /^[0-9a-f-]{36}\.(png|jpeg|webp)$/

export class Outputs {
  private cleaned = 0
  /** @param seconds how long a picture stays */
  constructor(
    private readonly folder: string,
    private readonly seconds = 3600
  ) {}

  /** Returns the picture's name. It is written beside its place and renamed: nobody sees half a file. */
  async put(bytes: Buffer, format: 'png' | 'jpeg' | 'webp'): Promise<string> {
    await mkdir(this.folder, { recursive: true })
    const name = `${randomUUID()}.${format}`
    await this.clean()
    await replaceFile(join(this.folder, name), bytes)
    return name
  }

  /** undefined for a name that is not one of ours, or gone. */
  async get(name: string): Promise<{ bytes: Buffer; type: string } | undefined> {
    const match = namePattern.exec(name)
    if (!match) return undefined
    return readFile(join(this.folder, name)).then(
      (bytes) => ({ bytes, type: `image/${match[1]!}` }),
      () => undefined
    )
  }

  private async clean(): Promise<void> {
    if (Date.now() - this.cleaned < 60_000) return
    this.cleaned = Date.now()
    for (const name of await readdir(this.folder)) {
      if (!namePattern.test(name.replace(/\.[0-9a-f]+\.tmp$/, ''))) continue // not ours
      const path = join(this.folder, name)
      const age = await stat(path).then(
        (info) => Date.now() - info.mtimeMs,
        () => 0
      )
      if (age > this.seconds * 1000) await rm(path, { force: true })
    }
  }
}
