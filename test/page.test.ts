/** The server's web page in a real browser. Skipped where there is no Chromium (Debian: apt install chromium). */
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createServer, type DiffusionServer } from 'node-diffusion/server'
import { chromium, type Browser, type Page } from 'playwright-core'
import sharp from 'sharp'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'

const test = suite('page')
const executablePath = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find((path) =>
  existsSync(path)
)
/** Pictures of the page are written here where it is set; docs/images has some. */
const shots = process.env.ND_PAGE_SHOTS

let folder: string
let server: DiffusionServer
let browser: Browser
let page: Page
const errors: string[] = []

const openPage = async (options: object = {}): Promise<Page> => {
  const context = await browser.newContext({ viewport: { width: 1200, height: 900 }, ...options })
  const opened = await context.newPage()
  opened.on('pageerror', (error) => errors.push(error.message))
  await opened.goto(server.app.listeningOrigin)
  await opened.waitForFunction(() => document.querySelectorAll('#scheduler option').length > 3)
  return opened
}
const shoot = async (name: string): Promise<void> => {
  if (shots) await page.screenshot({ path: join(shots, `${name}.png`), fullPage: true })
}
const painted = (count: number): Promise<unknown> =>
  page.waitForFunction((n) => document.querySelectorAll('#pictures img').length === n, count, { timeout: 60_000 })

if (!executablePath) {
  console.log('skip page: no Chromium here (Debian: apt install chromium)')
  test.skip('the page in Chromium', () => {})
} else {
  test.before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'nd-page-'))
    server = await createServer({ models: ['postcard'] })
    await server.listen(0)
    browser = await chromium.launch({
      executablePath,
      args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--disable-background-networking', '--disable-sync']
    })
    page = await openPage()
  })
  test.after(async () => {
    await browser.close()
    await server.close(true)
    rmSync(folder, { recursive: true, force: true })
  })

  test('paints with previews and progress, by keyboard; the gallery keeps the picture and its settings', async () => {
    await page.fill('#prompt', 'a red house on a beach at sunset')
    await page.fill('#negative', 'dark')
    await page.selectOption('#scheduler', 'DPM++ 2M')
    await page.selectOption('#schedule', 'Karras')
    await page.fill('#steps', '12')
    await page.fill('#seed', '7')
    await page.keyboard.press('Control+Enter')
    await page.waitForFunction(() =>
      document.querySelector('#preview')!.getAttribute('src')?.startsWith('data:image/webp')
    )
    await painted(1)
    await page.reload()
    await painted(1)
    assert.is(await page.inputValue('#prompt'), 'a red house on a beach at sunset', 'the form is kept')
    await page.click('#pictures button')
    const text = (await page.textContent('#parameters'))!
    for (const part of ['Steps: 12', 'Sampler: DPM++ 2M', 'Schedule type: Karras', 'Seed: 7', 'Negative prompt: dark'])
      assert.ok(text.includes(part), `${part} in ${text}`)
    await page.keyboard.press('Escape')
    await page.fill('#prompt', 'something else')
    await page.fill('#seed', '')
    await page.click('#pictures button')
    await page.click('#reuse')
    assert.is(await page.inputValue('#prompt'), 'a red house on a beach at sunset')
    assert.is(await page.inputValue('#seed'), '7')
    await shoot('page')
  })

  test('a picture and a brush: only what is painted over changes', async () => {
    const file = join(folder, 'green.png')
    await sharp({ create: { width: 64, height: 64, channels: 3, background: '#2f9e44' } })
      .png()
      .toFile(file)
    await page.click('#picture-part summary')
    await page.setInputFiles('#file', file)
    await page.waitForSelector('.canvas:not([hidden])')
    const box = (await page.locator('#mask').boundingBox())!
    await page.mouse.move(box.x + box.width * 0.1, box.y + box.height * 0.5)
    await page.mouse.down()
    await page.mouse.move(box.x + box.width * 0.35, box.y + box.height * 0.5, { steps: 5 })
    await page.mouse.up()
    assert.is(await page.textContent('#status'), 'inpaint')
    await page.fill('#prompt', 'a red circle on a white background')
    await page.fill('#steps', '4')
    await page.click('#paint')
    await painted(2)
    assert.is(server.painter.queue.running.length, 0)
    const data = await page.evaluate(async () => {
      const image = document.querySelector<HTMLImageElement>('#pictures img')!
      return [...new Uint8Array(await (await fetch(image.src)).arrayBuffer())]
    })
    const right = await sharp(Buffer.from(data)).extract({ left: 44, top: 0, width: 20, height: 64 }).raw().toBuffer()
    const mean = (channel: number): number =>
      right.reduce((sum, value, i) => sum + (i % 3 === channel ? value : 0), 0) / (20 * 64)
    assert.ok(mean(1) > mean(0) + 30, `the right side stays green: ${mean(0)}, ${mean(1)}`)
    await page.click('#clear-picture')
    assert.is(await page.isVisible('.canvas'), false)
  })

  test('cancel by keyboard', async () => {
    await page.fill('#steps', '900')
    await page.click('#paint')
    await page.waitForFunction(() => /step \d+ of 900/.test(document.querySelector('#status')!.textContent))
    await page.keyboard.press('Escape')
    await page.waitForFunction(() => !document.querySelector<HTMLButtonElement>('#paint')!.disabled)
    assert.match((await page.textContent('#message'))!, /cancelled/)
    assert.is(server.painter.queue.running.length, 0)
  })

  test('errors are shown', async () => {
    await page.fill('#steps', '4')
    await page.fill('#width', '16')
    await page.$eval('#width', (input) => ((input as HTMLInputElement).step = 'any'))
    await page.fill('#width', '17')
    await page.click('#paint')
    await page.waitForFunction(() => /width/.test(document.querySelector('#message')!.textContent))
    await page.fill('#width', '')
  })

  test('light and dark, phone width: nothing is cut off', async () => {
    const color = (): Promise<string> => page.evaluate(() => getComputedStyle(document.body).backgroundColor)
    const first = await color()
    await page.click('#theme')
    assert.is.not(await color(), first)
    await shoot('page-dark')
    await page.setViewportSize({ width: 375, height: 800 })
    const overflow = await page.evaluate(
      () => document.documentElement.scrollWidth - document.documentElement.clientWidth
    )
    assert.ok(overflow <= 0, `${overflow} pixels too wide`)
    await shoot('page-phone')
  })

  test('every control has a name, and no script failed', async () => {
    const nameless = await page.$$eval('button, input, select, textarea, canvas', (controls) =>
      controls
        .filter(
          (c) => !(c.textContent?.trim() || c.getAttribute('aria-label') || (c as HTMLInputElement).labels?.length)
        )
        .map((c) => c.id)
    )
    assert.equal(nameless, [])
    assert.equal(errors, [])
  })
}

test.run()
