// node examples/video-frames.mjs frames out 'prompt' [strength]: every picture of a folder painted anew, and out/animation.webp of all of them. One seed
// for all frames keeps the noise where it is, so that what does not move stays alike. Frames of a video, and back:
//   ffmpeg -i in.mp4 -vf fps=12,scale=512:512 frames/%04d.png        ffmpeg -framerate 12 -i out/%04d.png -pix_fmt yuv420p out.mp4
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { animation, Pipeline } from 'node-diffusion'

const [frames, out, prompt, strength = '0.5'] = process.argv.slice(2)
if (!prompt) throw new Error('Expected FRAMES OUT PROMPT [STRENGTH]')
const names = readdirSync(frames)
  .filter((name) => /\.(png|jpe?g|webp)$/i.test(name))
  .sort()
if (names.length === 0) throw new Error(`Expected pictures in ${frames} but there are none`)
mkdirSync(out, { recursive: true })

const pipe = await Pipeline.fromPretrained(process.env.MODEL ?? 'postcard')
const painted = []
for (const name of names) {
  const { images } = await pipe.img2img({
    prompt,
    image: join(frames, name),
    strength: Number(strength),
    steps: 20,
    seed: 1
  })
  painted.push(images[0])
  await images[0].save(join(out, name.replace(/\.\w+$/, '.png')))
  process.stderr.write(`\r${painted.length}/${names.length}`)
}
process.stderr.write('\n')
writeFileSync(join(out, 'animation.webp'), await animation(painted, { delay: 83, lastDelay: 83 }))
await pipe.dispose()
