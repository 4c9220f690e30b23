/** What a user of the package gets: both entries, types beside them, nothing that installs by script. */
import { existsSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { root } from './support/paths.js'

const test = suite('package')
const require = createRequire(join(root, 'package.json'))
const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
  exports: { '.': Record<'import' | 'require', { types: string; default: string }> }
  dependencies: Record<string, string>
  devDependencies: Record<string, string>
  bin: Record<string, string>
}

interface Entry {
  ClipTokenizer: { clip(): { encode(text: string): { ids: number[] } } }
  inspect(): { backend: string }
}

test('import and require give the same names, files and numbers', async () => {
  const esm = (await import('#lib/index.js')) as unknown as Entry
  const cjs = require('node-diffusion') as Entry
  assert.equal(Object.keys(cjs).sort(), Object.keys(esm).sort())
  const encode = (entry: Entry): number[] => entry.ClipTokenizer.clip().encode('a photo of a cat').ids
  assert.equal(encode(cjs), encode(esm))
  assert.equal(cjs.inspect(), esm.inspect())
})

test('both forms share one addon', async () => {
  await import('#lib/index.js').then((esm) => esm.inspect())
  ;(require('node-diffusion') as Entry).inspect()
  const loaded = Object.keys(require.cache).filter((path) => path.endsWith('.node') && path.includes('node_diffusion'))
  assert.is(loaded.length, 1)
})

test('the manifest’s files are there', () => {
  for (const { types, default: code } of Object.values(manifest.exports['.']))
    for (const path of [types, code]) assert.ok(existsSync(join(root, path)), path)
  for (const path of Object.values(manifest.bin))
    assert.ok(readFileSync(join(root, path), 'utf8').startsWith('#!/usr/bin/env node\n'), path)
})

test('versions are exact, and no dependency runs a script when it is installed', () => {
  for (const [name, version] of Object.entries({ ...manifest.dependencies, ...manifest.devDependencies }))
    assert.match(version, /^\d+\.\d+\.\d+$/, name)
  const lock = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { hasInstallScript?: boolean; optional?: boolean }>
  }
  const scripted = Object.entries(lock.packages).filter(
    ([, { hasInstallScript, optional }]) => hasInstallScript && !optional
  )
  assert.equal(scripted, [])
})

test.run()
