// npm run prebuild [-- --arch ARCH] [-- --no-build]: the addon as it is shipped, in prebuilds/PLATFORM-ARCH/. prebuildify drives
// tools/prebuild-compile.mjs, which builds with cmake-js; then the file is checked: what it needs of the system, and what it shows.
// --arch arm64 on x64 Linux cross-compiles with cmake/aarch64-toolchain.cmake; --no-build takes what build/Release has.
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import prebuildify from 'prebuildify'
import { root } from './process.mjs'

/** The oldest glibc that the shipped addon may need: Debian 10, RHEL 8. */
export const glibcFloor = '2.28'
/** Every Linux with glibc has these. */
const allowedLibraries = /^(libc|libm|libpthread|libdl|librt|ld-linux-[\w-]+)\.so\.\d+$/
const allowedSymbols = ['napi_register_module_v1', 'node_api_module_get_api_version_v1']

const older = (a, b) => a.localeCompare(b, 'en', { numeric: true })

/** What readelf says of a Linux addon. */
export const examine = (path) => {
  const text = execFileSync('readelf', ['--dyn-syms', '--dynamic', '--version-info', '--wide', path], {
    encoding: 'utf8',
    maxBuffer: 64 << 20
  })
  const all = (pattern) => [...new Set([...text.matchAll(pattern)].map((match) => match[1]))]
  return {
    glibc: all(/Name: GLIBC_([\d.]+)/g)
      .sort(older)
      .at(-1),
    libraries: all(/\(NEEDED\)\s+Shared library: \[([^\]]+)\]/g),
    // Num: Value Size Type Bind Vis Ndx Name
    exported: all(/^\s*\d+: [0-9a-f]+\s+\d+ (?:FUNC|OBJECT|TLS|IFUNC)\s+(?:GLOBAL|WEAK|UNIQUE)\s+DEFAULT\s+\d+ (\S+)/gm)
  }
}

/** @returns what is wrong with a Linux addon, as lines */
export const complaints = ({ glibc, libraries, exported }) => [
  ...(glibc && older(glibc, glibcFloor) > 0 ? [`it needs glibc ${glibc}, and the floor is ${glibcFloor}`] : []),
  ...libraries.filter((name) => !allowedLibraries.test(name)).map((name) => `it needs ${name}`),
  ...exported.filter((name) => !allowedSymbols.includes(name)).map((name) => `it exports ${name}`)
]

const main = async () => {
  const args = process.argv.slice(2)
  const option = (name) => (args.includes(name) ? args[args.indexOf(name) + 1] : undefined)
  const { platform } = process
  const arch = option('--arch') ?? process.arch
  const cross = arch !== process.arch
  if (cross && !(platform === 'linux' && arch === 'arm64')) {
    console.error(`Expected ${process.arch}, or arm64 on Linux, for --arch but received ${arch}`)
    process.exit(2)
  }
  const stage = join(root, 'build', 'prebuild', `${platform}-${arch}`)
  rmSync(stage, { recursive: true, force: true })
  mkdirSync(stage, { recursive: true })
  process.env.ND_PREBUILD_NO_BUILD = args.includes('--no-build') ? '1' : ''
  await new Promise((resolve, reject) =>
    prebuildify(
      {
        cwd: stage,
        out: root,
        name: 'node-diffusion',
        arch,
        targets: [{ runtime: 'node', target: process.version.slice(1) }],
        napi: true,
        tagLibc: platform === 'linux',
        strip: platform !== 'win32',
        stripBin: cross ? 'aarch64-linux-gnu-strip' : 'strip',
        nodeGyp: `"${process.execPath}" "${join(root, 'tools', 'prebuild-compile.mjs')}"`,
        shell: true
      },
      (error) => (error ? reject(error) : resolve())
    )
  )
  const folder = join(root, 'prebuilds', `${platform}-${arch}`)
  let failed = false
  for (const name of readdirSync(folder)) {
    const path = join(folder, name)
    console.log(`${path.slice(root.length + 1)}: ${(statSync(path).size / 2 ** 20).toFixed(2)} MiB`)
    if (platform !== 'linux') continue
    const found = examine(path)
    console.log(`  glibc ${found.glibc} or newer; needs ${found.libraries.join(', ')}`)
    for (const line of complaints(found)) {
      failed = true
      console.error(`  FAIL: ${line}`)
    }
  }
  if (!existsSync(folder) || failed) process.exit(1)
}

if (process.argv[1]?.endsWith('prebuild.mjs')) await main()
