// One model's bench, in a process of its own so that the peak of its memory is its own:
//   node bench/model.mjs FOLDER STEPS → JSON on stdout
import { Pipeline } from '../dist/index.js'

const [folder, steps] = [process.argv[2], Number(process.argv[3])]
const options = {
  prompt: 'a red house on a beach at sunset',
  steps,
  guidanceScale: 5,
  seed: 1,
  scheduler: 'DPM++ 2M Karras'
}

const started = performance.now()
const pipe = await Pipeline.fromPretrained(folder)
const load = (performance.now() - started) / 1000
const cold = await pipe.txt2img({ ...options, steps: 1 }) // memory is touched for the first time
const firstPicture = performance.now() / 1000 // since node started
await pipe.profile(true)
const run = await pipe.txt2img(options)
const operations = await pipe.profile(false)
const memory = await pipe.memory()
const peak = process.resourceUsage().maxRSS * 1024
const picture = run.images[0]

// A second pipeline of the same files shares the weights.
const held = process.memoryUsage().rss
const again = performance.now()
const second = await Pipeline.fromPretrained(folder)
const loadAgain = (performance.now() - again) / 1000
const secondPipeline = Math.max(0, process.memoryUsage().rss - held)
await second.dispose()
console.log(
  JSON.stringify({
    size: `${picture.width}x${picture.height}`,
    steps,
    seconds: {
      load,
      loadAgain,
      firstPicture,
      coldStep: cold.timings.denoise,
      text: run.timings.text,
      step: run.timings.denoise / steps,
      decode: run.timings.decode
    },
    memory: { weights: memory.weights, activations: memory.activations, peak, secondPipeline },
    operations
  })
)
await pipe.dispose()
