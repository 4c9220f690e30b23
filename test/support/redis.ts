/** A Redis of one's own: Debian's redis-server on a free port, in a folder that goes away. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'

export const hasRedis = (): boolean => !spawnSync('redis-server', ['--version']).error

const freePort = (): Promise<number> =>
  new Promise((resolve, reject) => {
    const server = createServer()
    server.on('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number }
      server.close(() => resolve(port))
    })
  })

export class RedisServer {
  private constructor(
    readonly port: number,
    private readonly folder: string,
    private child: ChildProcess
  ) {}

  static async start(): Promise<RedisServer> {
    const folder = mkdtempSync(join(tmpdir(), 'nd-redis-'))
    const port = await freePort()
    const server = new RedisServer(port, folder, run(port, folder))
    await server.answers()
    return server
  }

  get url(): string {
    return `redis://127.0.0.1:${this.port}`
  }

  private async answers(): Promise<void> {
    const client = new Redis(this.url, { lazyConnect: true, retryStrategy: () => 50, maxRetriesPerRequest: 200 })
    client.on('error', () => {})
    await client.ping()
    client.disconnect()
  }

  /** Ends the process; what was written stays in its append-only file. */
  async stop(): Promise<void> {
    const ended = new Promise((resolve) => this.child.on('exit', resolve))
    this.child.kill('SIGTERM')
    await ended
  }

  async startAgain(): Promise<void> {
    this.child = run(this.port, this.folder)
    await this.answers()
  }

  async remove(): Promise<void> {
    if (this.child.exitCode === null) await this.stop()
    rmSync(this.folder, { recursive: true, force: true })
  }
}

const run = (port: number, folder: string): ChildProcess =>
  spawn(
    'redis-server',
    ['--port', String(port), '--bind', '127.0.0.1', '--dir', folder, '--save', '', '--appendonly', 'yes'],
    { stdio: 'ignore' }
  )
