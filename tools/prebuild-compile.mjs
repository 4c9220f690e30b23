// What prebuildify runs in place of node-gyp: builds the addon, natively into build/Release or for another processor into
// build/cross-ARCH, and puts it where prebuildify looks for it: build/Release of the folder in which it runs.
import { copyFileSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { packageBin, root, runOrExit } from './process.mjs'

const { PREBUILD_ARCH: arch, ND_PREBUILD_NO_BUILD: noBuild } = process.env
const cross = arch !== process.arch
const folder = join(root, 'build', cross ? `cross-${arch}` : '')
if (cross) {
  const cmakeJs = (...args) =>
    runOrExit(process.execPath, [
      packageBin('cmake-js'),
      ...args,
      '--arch',
      arch,
      '--out',
      folder,
      '--log-level',
      'warn'
    ])
  const toolchain = join(root, 'cmake', 'aarch64-toolchain.cmake')
  if (!noBuild) {
    await cmakeJs('configure', `--CDCMAKE_TOOLCHAIN_FILE=${toolchain}`)
    await cmakeJs('build', '--parallel', process.env.ND_JOBS ?? '2')
  }
} else if (!noBuild) await runOrExit(process.execPath, [join(root, 'tools', 'build.mjs'), 'native'])
mkdirSync(join('build', 'Release'), { recursive: true })
copyFileSync(join(folder, 'Release', 'node_diffusion.node'), join('build', 'Release', 'node_diffusion.node'))
