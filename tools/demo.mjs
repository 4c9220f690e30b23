// npm run demo: builds what is missing or old, then paints six postcards with the bundled model into demo.png.
import { existsSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { root, runOrExit } from './process.mjs'

const prompts = [
  'a red house on a beach at sunset',
  'a white sailboat on the sea by day',
  'a pink balloon in front of mountains with a rainbow',
  'a yellow lighthouse on the sea at night',
  'a green palm tree in a desert under a cosmic sky',
  'a black cat in the snow with a crescent moon'
]

const newest = (folder) =>
  Math.max(
    0,
    ...readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => statSync(join(entry.parentPath ?? entry.path, entry.name)).mtimeMs)
  )
const isOld = (built, folders) => {
  const path = join(root, built)
  return !existsSync(path) || statSync(path).mtimeMs < Math.max(...folders.map(newest))
}
const targets = []
if (isOld('build/Release/node_diffusion.node', ['engine', 'cpu', 'binding'])) targets.push('native')
if (isOld('dist/cjs/package.json', ['lib'])) targets.push('lib')
if (targets.length) await runOrExit(process.execPath, [join(root, 'tools', 'build.mjs'), ...targets])

const { Pipeline, contactSheet } = await import('../dist/index.js')
const { makeProgress } = await import('../dist/cli/progress.js')
const seconds = (since) => ((performance.now() - since) / 1000).toFixed(2)

const loading = performance.now()
const pipe = await Pipeline.fromPretrained('postcard')
console.log(`postcard on ${pipe.device}, loaded in ${seconds(loading)} s`)
const painting = performance.now()
const progress = makeProgress(false)
const steps = 20
const images = []
progress.start('painting', prompts.length * steps)
for (const [i, prompt] of prompts.entries()) {
  const { images: painted } = await pipe.txt2img({
    prompt,
    steps,
    seed: 7,
    guidanceScale: 5,
    scheduler: 'DPM++ 2M Karras',
    onStep: (event) => progress.update(i * steps + event.step)
  })
  images.push(...painted)
}
progress.stop()
const elapsed = seconds(painting)
await (await contactSheet(images, { columns: 3, gap: 4 })).save(join(root, 'demo.png'))
console.log(`demo.png: ${images.length} pictures of ${images[0].width} × ${images[0].height} in ${elapsed} s`)
await pipe.dispose()
