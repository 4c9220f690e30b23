import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { deflateSync } from 'node:zlib'
import sharp from 'sharp'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { contactSheet } from '#lib/contact-sheet.js'
import { DiffusionImage, loadImage } from '#lib/image.js'
import { formatParameters, parseParameters } from '#lib/infotext.js'
import { readPngText, writePngText } from '#lib/png-metadata.js'

const test = suite('image')
const folder = mkdtempSync(join(tmpdir(), 'nd-image-'))
test.after(() => rmSync(folder, { recursive: true, force: true }))

const ramp = (width: number, height: number): DiffusionImage =>
  new DiffusionImage({ data: Uint8Array.from({ length: width * height * 3 }, (_, i) => (i * 7) % 256), width, height })

const rejects = async (promise: Promise<unknown>, pattern: RegExp): Promise<void> => {
  try {
    await promise
  } catch (error) {
    assert.match((error as Error).message, pattern)
    assert.is((error as { code: string }).code, 'ERR_ND_INVALID_ARGUMENT')
    return
  }
  assert.unreachable('it must throw')
}

test('pixels survive PNG, buffers and files alike; nothing is left beside the file', async () => {
  const image = ramp(5, 3)
  for (const input of [image, await image.toBuffer('png'), image.toSharp()]) {
    const loaded = await loadImage(input)
    assert.equal([loaded.width, loaded.height, loaded.alpha], [5, 3, undefined])
    assert.equal(loaded.data, image.data)
  }
  const path = join(folder, 'a.png')
  await image.save(path)
  assert.equal((await loadImage(path)).data, image.data)
  await image.save(join(folder, 'b.JPG'), { quality: 50 })
  await image.save(join(folder, 'c.webp'))
  assert.is((await sharp(join(folder, 'b.JPG')).metadata()).format, 'jpeg')
  assert.is((await sharp(join(folder, 'c.webp')).metadata()).format, 'webp')
  assert.equal(readdirSync(folder).sort(), ['a.png', 'b.JPG', 'c.webp'])
})

test('floats are bytes over 255', () => {
  const image = new DiffusionImage({ data: Uint8Array.of(0, 51, 255), width: 1, height: 1 })
  assert.equal(image.toFloat32(), Float32Array.of(0, 0.2, 1))
})

test('unknown formats, folders that are missing and misshapen pixels are refused', async () => {
  const image = ramp(2, 2)
  await rejects(image.save(join(folder, 'a.bmp')), /ending in .png, .jpg, .jpeg, .webp for path/)
  await rejects(image.save(join(folder, 'none', 'a.png')), /Cannot write .*a\.png: ENOENT/)
  await rejects(image.toBuffer('gif' as 'png'), /'png', 'jpeg' or 'webp' for format/)
  assert.throws(() => new DiffusionImage({ data: new Uint8Array(5), width: 1, height: 2 }), /1 × 2 × 3 bytes/)
  assert.throws(
    () => new DiffusionImage({ data: new Uint8Array(0), width: 0, height: 2 }),
    /positive integer for width/
  )
})

test('grey, alpha, 16 bits, CMYK, EXIF orientation and animations', async () => {
  const grey = await sharp(Buffer.of(1, 2, 3, 200), { raw: { width: 2, height: 2, channels: 1 } })
    .toColourspace('b-w')
    .png()
    .toBuffer()
  assert.equal((await loadImage(grey)).data, Uint8Array.of(1, 1, 1, 2, 2, 2, 3, 3, 3, 200, 200, 200))

  const rgba = await sharp(Buffer.of(255, 0, 0, 0, 0, 255, 0, 128), { raw: { width: 2, height: 1, channels: 4 } })
    .png()
    .toBuffer()
  const kept = await loadImage(rgba)
  assert.equal(kept.data, Uint8Array.of(255, 0, 0, 0, 255, 0))
  assert.equal(kept.alpha, Uint8Array.of(0, 128))
  const flat = await loadImage(rgba, { flatten: '#fff' })
  assert.is(flat.alpha, undefined)
  assert.equal(flat.data, Uint8Array.of(255, 255, 255, 127, 255, 127))

  const sixteen = Uint16Array.from({ length: 12 }, (_, i) => i * 5000)
  const deep = await sharp(sixteen, { raw: { width: 2, height: 2, channels: 3 } })
    .toColourspace('rgb16')
    .png()
    .toBuffer()
  assert.is((await sharp(deep).metadata()).depth, 'ushort')
  const shallow = await loadImage(deep)
  sixteen.forEach((value, i) => assert.ok(Math.abs(shallow.data[i]! - value / 257) <= 1))

  const upright = sharp({ create: { width: 4, height: 6, channels: 3, background: '#808080' } })
  const turned = await loadImage(await upright.clone().jpeg().withMetadata({ orientation: 6 }).toBuffer())
  assert.equal([turned.width, turned.height], [6, 4])
  const cmyk = await loadImage(await upright.clone().toColourspace('cmyk').jpeg().toBuffer())
  assert.is(cmyk.data.length, 4 * 6 * 3)

  const frames = [10, 240].map((level) => Buffer.alloc(4 * 4 * 3, level))
  const gif = await sharp(Buffer.concat(frames), { raw: { width: 4, height: 8, channels: 3, pageHeight: 4 } })
    .gif({ delay: [10, 10], loop: 0 })
    .toBuffer()
  assert.is((await sharp(gif).metadata()).pages, 2)
  const first = await loadImage(gif)
  assert.equal([first.width, first.height], [4, 4])
  assert.ok(first.data.every((byte) => byte < 30))
})

test('raw pixels of one to four channels', async () => {
  const greyAlpha = await loadImage({ data: Uint8Array.of(9, 100, 8, 255), width: 2, height: 1, channels: 2 })
  assert.equal(greyAlpha.data, Uint8Array.of(9, 9, 9, 8, 8, 8))
  assert.equal(greyAlpha.alpha, Uint8Array.of(100, 255))
  const clamped = await loadImage({ data: Uint8ClampedArray.of(1, 2, 3, 4), width: 1, height: 1, channels: 4 })
  assert.equal([...clamped.data, ...clamped.alpha!], [1, 2, 3, 4])
  await rejects(
    loadImage({ data: new Uint8Array(5), width: 2, height: 1, channels: 3 }),
    /2 × 1 × 3 bytes for image.data/
  )
  await rejects(loadImage({ data: new Uint8Array(10), width: 2, height: 1, channels: 5 as 4 }), /1, 2, 3 or 4/)
})

test('what is no picture is refused', async () => {
  await rejects(loadImage(Buffer.from('hello')), /Cannot read the encoded picture/)
  await rejects(loadImage(join(folder, 'missing.png')), /missing\.png/)
  await rejects(loadImage(5 as unknown as string), /for image but received 5/)
  await rejects(loadImage(null as unknown as string), /for image but received null/)
  const png = await ramp(64, 64).toBuffer('png')
  await rejects(loadImage(png.subarray(0, png.length >> 1)), /Cannot read/)
})

test('PNG text: Latin-1 as tEXt, the rest as iTXt, replaced when written again', async () => {
  const png = await ramp(3, 3).toBuffer('png')
  const texts = ['a café, Steps: 3', 'line\nbreak', '日本 😀', 'x\u0085y', '']
  for (const text of texts) {
    const first = writePngText(png, 'parameters', text)
    const again = writePngText(writePngText(first, 'Comment', 'kept'), 'parameters', text + '!')
    assert.is(readPngText(first).parameters, text)
    assert.equal(readPngText(again), { parameters: text + '!', Comment: 'kept' })
    assert.is(first.includes('tEXt'), /^[\n -~\xa0-\xff]*$/.test(text))
    assert.equal((await loadImage(again)).data, ramp(3, 3).data)
  }
  // sharp reads what is written, so others do.
  const metadata = await sharp(writePngText(png, 'parameters', 'hello')).metadata()
  assert.equal(metadata.comments, [{ keyword: 'parameters', text: 'hello' }])
})

/** A PNG chunk with its checksum, made by this package's writer from a keyword's tEXt. */
const withChunk = (png: Buffer, type: string, data: Buffer): Buffer => {
  const carrier = writePngText(png, 'k', 'v'.repeat(data.length - 2))
  const at = carrier.indexOf('tEXt')
  carrier.write(type, at, 'latin1')
  data.copy(carrier, at + 4)
  let crc = 0xffffffff
  for (const byte of carrier.subarray(at, at + 4 + data.length)) {
    crc ^= byte
    for (let k = 0; k < 8; k++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0)
  }
  carrier.writeUInt32BE((crc ^ 0xffffffff) >>> 0, at + 4 + data.length)
  return carrier
}

test('compressed text of other writers is read', async () => {
  const png = await ramp(3, 3).toBuffer('png')
  const zTXt = Buffer.concat([Buffer.from('parameters\0\0', 'latin1'), deflateSync(Buffer.from('caf\xe9', 'latin1'))])
  assert.is(readPngText(withChunk(png, 'zTXt', zTXt)).parameters, 'café')
  const iTXt = Buffer.concat([Buffer.from('parameters\0\x01\0en\0Par\0', 'latin1'), deflateSync(Buffer.from('漢字'))])
  assert.is(readPngText(withChunk(png, 'iTXt', iTXt)).parameters, '漢字')
  assert.throws(() => readPngText(withChunk(png, 'zTXt', Buffer.from('k\0\0nonsense'))), /Cannot unpack a zTXt/)
  assert.throws(() => readPngText(withChunk(png, 'tEXt', Buffer.from('no zero'))), /lacks the zero/)
})

test('broken PNG files are errors, never more', async () => {
  const png = writePngText(await ramp(8, 8).toBuffer('png'), 'parameters', 'text')
  assert.throws(() => readPngText(Buffer.from('GIF89a..')), /not the PNG signature/)
  assert.throws(() => readPngText(new Uint8Array(0)), /not the PNG signature/)
  for (let length = 8; length < png.length; length++)
    assert.throws(() => readPngText(png.subarray(0, length)), /PNG/, `cut at ${length}`)
  for (let at = 0; at < png.length; at++) {
    const bad = Buffer.from(png)
    bad[at]! ^= 0x41
    assert.throws(() => readPngText(bad), /PNG/, `byte ${at}`)
  }
  assert.throws(() => writePngText(png, '', 'x'), /Latin-1 characters/)
  assert.throws(() => writePngText(png, ' x', 'x'), /Latin-1 characters/)
})

test('saved PNG files carry the parameters text', async () => {
  const image = ramp(2, 2)
  image.parameters = 'a cat\nSteps: 3, Sampler: Euler, Seed: 5'
  const path = join(folder, 'p.png')
  await image.save(path)
  assert.is(readPngText(await image.toBuffer('png')).parameters, image.parameters)
  assert.is((await sharp(path).metadata()).comments?.[0]?.text, image.parameters)
})

test('the parameters text is AUTOMATIC1111’s', () => {
  const parameters = {
    prompt: 'a red house, (sunset:1.2)\nsecond line',
    negativePrompt: 'blurry, ugly',
    steps: 30,
    sampler: 'DPM++ 2M',
    scheduleType: 'Karras',
    cfgScale: 5.5,
    seed: 7,
    width: 512,
    height: 768,
    model: 'a, "strange": name',
    version: 'node-diffusion 0.1.0',
    other: { 'Clip skip': '2' }
  }
  const text = formatParameters(parameters)
  assert.is(
    text,
    'a red house, (sunset:1.2)\nsecond line\nNegative prompt: blurry, ugly\n' +
      'Steps: 30, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 5.5, Seed: 7, Size: 512x768, ' +
      'Model: "a, \\"strange\\": name", Clip skip: 2, Version: node-diffusion 0.1.0'
  )
  assert.equal(parseParameters(text), parameters)
  assert.equal(parseParameters(formatParameters({ prompt: 'cat', steps: 3 })), { prompt: 'cat', steps: 3 })
  assert.equal(parseParameters('just, a prompt: with colons'), { prompt: 'just, a prompt: with colons' })
  assert.equal(parseParameters(''), { prompt: '' })
  assert.is(parseParameters('a\nSteps: 1, Sampler: x, Seed: 18446744073709551615').seed, '18446744073709551615')
  const real =
    'photo\nNegative prompt: a\nb\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, Model hash: 6ce0161689, ' +
    'Lora hashes: "x: 1, y: 2", Version: v1.6.0'
  const read = parseParameters(real)
  assert.is(read.negativePrompt, 'a\nb')
  assert.equal(read.other, { 'Model hash': '6ce0161689', 'Lora hashes': 'x: 1, y: 2' })
})

test('a contact sheet', async () => {
  const images = [ramp(4, 4), ramp(4, 4), ramp(2, 3)]
  const sheet = await contactSheet(images, { columns: 2, gap: 1 })
  assert.equal([sheet.width, sheet.height], [11, 11])
  const at = (x: number, y: number): number[] => [...sheet.data.subarray((y * 11 + x) * 3, (y * 11 + x) * 3 + 3)]
  assert.equal(at(0, 0), [255, 255, 255])
  assert.equal(at(1, 1), [...images[0]!.data.subarray(0, 3)])
  assert.equal(at(9, 4), [...images[1]!.data.subarray(-3)])
  assert.equal(at(2, 8), [...images[2]!.data.subarray(-3)])
  assert.equal(at(3, 6), [255, 255, 255])
  const labelled = await contactSheet([ramp(40, 20)], { gap: 2, labels: ['a < b & "c"'] })
  assert.equal([labelled.width, labelled.height], [44, 40])
  assert.equal(
    [...labelled.data.subarray((2 * 44 + 2) * 3, (2 * 44 + 42) * 3)],
    [...ramp(40, 20).data.subarray(0, 120)]
  )
  await rejects(contactSheet([]), /at least one picture/)
  await rejects(contactSheet(images, { columns: 0 }), /positive integer for columns/)
  await rejects(contactSheet(images, { labels: ['x'] }), /as many labels as pictures/)
})

test('a picture that is broken in the middle of the file is refused too', async () => {
  const path = join(folder, 'broken.jpg')
  writeFileSync(path, Buffer.concat([Buffer.of(0xff, 0xd8, 0xff, 0xe0), Buffer.alloc(64, 7)]))
  await rejects(loadImage(path), /Cannot read/)
})

test.run()
