/** Loads the addon: where it may be, and what to say about each place where it could not be loaded. */
import { closeSync, existsSync, openSync, readdirSync, readSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { DiffusionError } from './errors.js'

/** The C library whose addons load here: 'glibc', 'musl', or '' where there is one alone. */
const libcName = (): 'glibc' | 'musl' | '' => {
  if (process.platform !== 'linux') return ''
  const [musl, glibc] = process.arch === 'x64' ? ['x86_64', 'x86-64'] : ['aarch64', 'aarch64']
  const loaders = ['/lib64', '/lib'].map((folder) => `${folder}/ld-linux-${glibc}.so.${process.arch === 'x64' ? 2 : 1}`)
  const onlyMusl = existsSync(`/lib/ld-musl-${musl}.so.1`) && !loaders.some(existsSync)
  return existsSync('/etc/alpine-release') || onlyMusl ? 'musl' : 'glibc'
}

/** The version of glibc. Asking takes a tenth of a second. */
const glibcVersion = (): string => {
  const { report } = process as { report?: { excludeNetwork?: boolean; getReport(): object } }
  if (!report) return ''
  report.excludeNetwork = true // the names of open connections would take longer still
  return (report.getReport() as { header?: { glibcVersionRuntime?: string } }).header?.glibcVersionRuntime ?? ''
}

/** Machines as ELF files number them, by Node's names. */
const machines: Readonly<Record<number, string>> = { 3: 'ia32', 40: 'arm', 62: 'x64', 183: 'arm64', 243: 'riscv64' }

/** What a binary is made for, from its first bytes: 'linux-x64', 'darwin', 'win32'; undefined where it is none. */
const madeFor = (path: string): string | undefined => {
  const head = Buffer.alloc(20)
  const file = openSync(path, 'r')
  try {
    readSync(file, head, 0, head.length, 0)
  } finally {
    closeSync(file)
  }
  if (head.readUInt32BE(0) === 0x7f454c46) return `linux-${machines[head.readUInt16LE(18)] ?? head.readUInt16LE(18)}`
  if ([0xcffaedfe, 0xcafebabe].includes(head.readUInt32BE(0))) return 'darwin'
  if (head.toString('latin1', 0, 2) === 'MZ') return 'win32'
  return undefined
}

const buildIt = '`npx node-diffusion build` makes one here from source (needs cmake and a C++20 compiler)'

/** Why a file that is there could not be loaded, and what helps. */
const diagnose = (path: string, error: Error, libc: string): string => {
  const { message } = error
  const here = `${process.platform}-${process.arch}`
  let target: string | undefined
  try {
    target = madeFor(path)
  } catch (unreadable) {
    return `it cannot be read (${(unreadable as Error).message}); make it readable for this user`
  }
  if (target === undefined) return `it is no addon, or damaged (${message}); install node-diffusion again`
  if (!here.startsWith(target))
    return `it is made for ${target} and this is ${here}; install node-diffusion on this machine instead of copying node_modules, or: ${buildIt}`
  const versions = [...message.matchAll(/`(GLIBC(?:XX)?)_([\d.]+)' not found/g)]
  if (versions.length)
    return (
      `it needs ${versions.map((match) => `${match[1]!.toLowerCase()} ${match[2]!}`).join(' and ')} and this system has ` +
      `${`glibc ${glibcVersion()}`.trim()}; use a newer system, or: ${buildIt}`
    )
  if (/ld-linux|symbol not found.*(glibc|__)/i.test(message) && libc === 'musl')
    return `it is made for glibc and this system has musl; ${buildIt}`
  const missing = /([\w.+-]+\.so[\w.]*): cannot open shared object file/.exec(message)?.[1]
  if (missing && !path.endsWith(missing))
    return `it needs the library ${missing}, which this system lacks; install it, or: ${buildIt}`
  if (/undefined symbol: napi_|node_api_/.test(message))
    return `this runtime (${process.version}) lacks functions of Node-API 8 (${message}); use Node.js 20.9 or newer`
  if (/failed to map segment|Operation not permitted|noexec/.test(message))
    return `the system does not let code run from there (${message}), such as where a disk is mounted with noexec; install it elsewhere`
  return `${message}; install node-diffusion again, or: ${buildIt}`
}

/**
 * Files to try, in order: what NODE_DIFFUSION_ADDON names, and that alone; a build in the package, the prebuilt one, and one beside
 * the program, as bundlers put it.
 * @param root the package's folder
 */
export const addonFiles = (root: string, libc: string): string[] => {
  const given = process.env.NODE_DIFFUSION_ADDON
  if (given) return [given]
  const tag = libc ? `.${libc}` : ''
  const prebuilt = join('prebuilds', `${process.platform}-${process.arch}`, `node-diffusion${tag}.node`)
  return [
    join(root, 'build', 'Release', 'node_diffusion.node'),
    join(root, prebuilt),
    join(dirname(process.execPath), prebuilt)
  ]
}

const prebuiltFor = (root: string): string[] => {
  try {
    return readdirSync(join(root, 'prebuilds'))
  } catch {
    return []
  }
}

/**
 * @param root the package's folder
 * @throws DiffusionError ERR_ND_NO_BINARY: every file that was tried, why it could not be loaded, and what helps
 */
export const loadAddon = (root: string): unknown => {
  const require = createRequire(import.meta.url)
  const libc = libcName()
  const files = addonFiles(root, libc)
  const failures: string[] = []
  let cause: unknown
  for (const file of files) {
    if (!existsSync(file)) {
      failures.push(`${file}: there is no such file`)
      continue
    }
    try {
      return require(file)
    } catch (error) {
      cause ??= error
      failures.push(`${file}: ${diagnose(file, error as Error, libc)}`)
    }
  }
  const system = [`${process.platform}-${process.arch}`, libc === 'glibc' ? `glibc ${glibcVersion()}`.trim() : libc]
  const shipped = prebuiltFor(root)
  const remedy = process.env.NODE_DIFFUSION_ADDON
    ? 'NODE_DIFFUSION_ADDON names the one file to load: correct or unset it.'
    : cause !== undefined
      ? ''
      : shipped.length === 0
        ? `This copy of the package has no prebuilt addon: ${buildIt}.`
        : `The package has prebuilt addons for ${shipped.join(', ')}${libc === 'musl' ? ' (for glibc)' : ''}: ${buildIt}.`
  throw new DiffusionError(
    'ERR_ND_NO_BINARY',
    `Expected a native addon for ${system.filter(Boolean).join(', ')}, Node.js ${process.version}, but could load none of\n` +
      `${failures.map((line) => `  - ${line}`).join('\n')}${remedy && `\n${remedy}`}`,
    { cause }
  )
}
