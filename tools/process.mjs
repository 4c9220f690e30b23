// Child processes for the other tools.
import { spawn } from 'node:child_process'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const root = dirname(dirname(fileURLToPath(import.meta.url)))
const require = createRequire(import.meta.url)

/** The script behind a package's command, so that no shell and no .cmd file is in between. */
export const packageBin = (name, command = name) => {
  const manifest = join(root, 'node_modules', name, 'package.json')
  const { bin } = require(manifest)
  return join(dirname(manifest), typeof bin === 'string' ? bin : bin[command])
}

/**
 * Runs a command to its end. `capture` collects its output instead of showing it; after `timeoutSeconds` it is killed.
 * @returns {Promise<{ code: number | null, output: string, timedOut: boolean }>}
 */
export const run = (command, args, { capture = false, timeoutSeconds, env, cwd = root } = {}) =>
  new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      cwd,
      env: { ...process.env, ...env },
      stdio: capture ? ['ignore', 'pipe', 'pipe'] : ['ignore', 'inherit', 'inherit']
    })
    let output = ''
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('utf8')
      stream?.on('data', (text) => (output += text))
    }
    let timedOut = false
    const timer =
      timeoutSeconds &&
      setTimeout(() => {
        timedOut = true
        child.kill('SIGKILL')
      }, timeoutSeconds * 1000)
    child.on('error', reject)
    child.on('close', (code) => {
      clearTimeout(timer)
      resolve({ code, output, timedOut })
    })
  })

/** Like run(), but a failure ends this process with the same status. */
export const runOrExit = async (command, args, options) => {
  const { code, output } = await run(command, args, options)
  if (code === 0) return
  if (output) process.stderr.write(output)
  process.exit(code || 1)
}
