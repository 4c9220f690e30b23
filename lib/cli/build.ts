import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { packageRoot } from '../binding.js'

/** Builds the addon in the package's folder, where it goes before the prebuilt one from then on. */
export const buildAddon = (): void => {
  const { status, error } = spawnSync(process.execPath, [join(packageRoot, 'tools', 'build.mjs'), 'native'], {
    cwd: packageRoot,
    stdio: 'inherit'
  })
  if (error) throw error
  process.exitCode = status ?? 1
}
