/** Every program in the documentation runs: on tiny models under the real ones' names, with few steps and small pictures. */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { pathToFileURL } from 'node:url'
import sharp from 'sharp'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { docPrograms, documents, small } from './support/doc-programs.js'
import { root } from './support/paths.js'
import { placeModels } from './support/doc-models.js'

const test = suite('docs')
// Inside the package, so that 'node-diffusion' means this one.
const folder = join(root, 'build', 'doc-programs')

/** A folder with what programs read: pictures, and tiny models under the names that the program gives to them. */
const workplace = async (name: string, code: string): Promise<string> => {
  const place = join(folder, name)
  mkdirSync(place, { recursive: true })
  placeModels(code, place)
  for (const [file, background] of Object.entries({
    'photo.png': '#7799bb',
    'mask.png': '#ffffff',
    'cat.png': '#997755'
  }))
    if (code.includes(`'${file}'`))
      await sharp({ create: { width: 80, height: 72, channels: 3, background } })
        .png()
        .toFile(join(place, file))
  return place
}

test.before(() => rmSync(folder, { recursive: true, force: true }))

const programs = docPrograms()

test('links lead to files', () => {
  const broken = documents().flatMap((document) =>
    [...readFileSync(join(root, document), 'utf8').matchAll(/\]\((?!https?:|#)([^)#\s]+)/g)]
      .map((match) => match[1]!)
      .filter((target) => !existsSync(join(root, dirname(document), target)))
      .map((target) => `${document}: ${target}`)
  )
  assert.equal(broken, [])
})

test('docs/supported.md is what the registries say', async () => {
  const { document } = (await import(pathToFileURL(join(root, 'tools', 'support-table.mjs')).href)) as {
    document: () => string
  }
  const written = readFileSync(join(root, 'docs', 'supported.md'), 'utf8')
  assert.is(written, document(), 'run node tools/support-table.mjs --write')
})

test('the documentation has programs', () => assert.ok(programs.length >= 8, String(programs.length)))

for (const { at, code } of programs)
  test(at, async () => {
    const place = await workplace(at.replace(/[^\w.]/g, '-'), code)
    const file = join(place, 'program.mjs')
    writeFileSync(file, small(code))
    const { status, stdout, stderr } = spawnSync(process.execPath, [file], {
      cwd: place,
      encoding: 'utf8',
      timeout: 120_000,
      env: { ...process.env, HF_HUB_OFFLINE: '1' }
    })
    assert.is(status, 0, `${at}\n${stdout}${stderr}`)
  })

test.run()
