/** Finding and loading the addon: which files, in which order, and what is said where none can be loaded. */
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { DiffusionError } from 'node-diffusion'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { addonFiles, loadAddon } from '#lib/addon.js'
import { root } from './support/paths.js'

const test = suite('addon')
const folder = mkdtempSync(join(tmpdir(), 'nd-addon-'))
const real = join(root, 'build', 'Release', 'node_diffusion.node')
const platform = `${process.platform}-${process.arch}`
const libc = process.platform === 'linux' ? 'glibc' : ''
let count = 0

/** A package's folder with these files. */
const place = (files: Record<string, string | Buffer>): string => {
  const at = join(folder, String(count++))
  mkdirSync(at)
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(dirname(join(at, name)), { recursive: true })
    writeFileSync(join(at, name), content)
  }
  return at
}
const built = 'build/Release/node_diffusion.node'
const prebuilt = join('prebuilds', platform, `node-diffusion${libc ? `.${libc}` : ''}.node`)

const messageOf = (at: string): string => {
  try {
    loadAddon(at)
  } catch (error) {
    assert.instance(error, DiffusionError)
    assert.is((error as DiffusionError).code, 'ERR_ND_NO_BINARY')
    return (error as Error).message
  }
  throw new Error('it loaded')
}

test.after.each(() => {
  delete process.env.NODE_DIFFUSION_ADDON
})
test.after(() => rmSync(folder, { recursive: true, force: true }))

test('a build goes before the prebuilt file, and that before one beside the program', () => {
  const [first, second, third] = addonFiles('/package', libc)
  assert.is(first, join('/package', built))
  assert.is(second, join('/package', prebuilt))
  assert.is(third, join(dirname(process.execPath), prebuilt))
  assert.match(addonFiles('/package', 'musl')[1]!, /node-diffusion\.musl\.node$/)
  process.env.NODE_DIFFUSION_ADDON = '/elsewhere/x.node'
  assert.equal(addonFiles('/package', libc), ['/elsewhere/x.node'])
})

test('no file at all: every place, and how to build', () => {
  const at = place({})
  const message = messageOf(at)
  assert.ok(message.includes(platform))
  for (const file of [built, prebuilt]) assert.ok(message.includes(`${join(at, file)}: there is no such file`), message)
  assert.match(message, /no prebuilt addon.*npx node-diffusion build/)
})

test('prebuilt files of other systems are named', () => {
  assert.match(messageOf(place({ 'prebuilds/sunos-sparc/node-diffusion.node': '' })), /for sunos-sparc: .*build/)
})

test('damaged files and files of other systems', () => {
  assert.match(messageOf(place({ [built]: 'not a binary' })), /no addon, or damaged.*install/)
  const elf = readFileSync(real)
  if (elf.readUInt32BE(0) === 0x7f454c46) {
    const other = Buffer.from(elf.subarray(0, 4096))
    other.writeUInt16LE(process.arch === 'x64' ? 183 : 62, 18)
    const name = process.arch === 'x64' ? 'linux-arm64' : 'linux-x64'
    assert.match(messageOf(place({ [prebuilt]: other })), new RegExp(`made for ${name} and this is ${platform}`))
  }
  const mach = Buffer.concat([Buffer.from('cffaedfe', 'hex'), Buffer.alloc(64)])
  if (process.platform !== 'darwin') assert.match(messageOf(place({ [prebuilt]: mach })), /made for darwin/)
  if (process.platform !== 'win32') assert.match(messageOf(place({ [prebuilt]: 'MZ'.padEnd(64, '\0') })), /for win32/)
})

test('a system that is too old: the version that is needed and the one that is here', () => {
  if (process.platform !== 'linux') return console.log('  skip: not on Linux')
  // The newest version of glibc that the file needs becomes 9.x: its name, and the hash by which the loader looks for it.
  const file = readFileSync(real)
  const name = [...file.toString('latin1').matchAll(/GLIBC_2\.\d\d\0/g)]
    .map((match) => match[0])
    .sort()
    .at(-1)!
  const renamed = name.replace('GLIBC_2', 'GLIBC_9')
  const hashed = (text: string): Buffer => {
    let h = 0
    for (const c of Buffer.from(text.slice(0, -1))) {
      h = (h << 4) + c
      const high = h & 0xf0000000
      h = (h ^ (high >>> 24)) & ~high
    }
    const out = Buffer.alloc(4)
    out.writeUInt32LE(h >>> 0)
    return out
  }
  for (const [from, to] of [
    [Buffer.from(name), Buffer.from(renamed)],
    [hashed(name), hashed(renamed)]
  ] as const) {
    const at = file.indexOf(from)
    assert.ok(at > 0)
    to.copy(file, at)
  }
  const message = messageOf(place({ [prebuilt]: file }))
  assert.match(message, /needs glibc 9\.\d+ and this system has glibc 2\.\d+; use a newer system, or: .*build/)
})

test('where the first cannot be loaded, the second is', () => {
  const at = place({ [built]: 'damaged' })
  mkdirSync(dirname(join(at, prebuilt)), { recursive: true })
  copyFileSync(real, join(at, prebuilt))
  const addon = loadAddon(at) as { inspect(): { backend: string } }
  assert.type(addon.inspect().backend, 'string')
})

test('NODE_DIFFUSION_ADDON names the one file', () => {
  process.env.NODE_DIFFUSION_ADDON = join(folder, 'none.node')
  assert.match(messageOf(root), /none\.node: there is no such file[^]*NODE_DIFFUSION_ADDON/)
  process.env.NODE_DIFFUSION_ADDON = real
  assert.ok(loadAddon(place({})))
})

test.run()
