// node examples/worker-pool.mjs WORKERS PROMPT…: a pool of worker threads with a pipeline in each. One pipeline uses all cores by itself and never
// blocks the event loop: a pool is for several GPUs (DEVICES=cuda:0,cuda:1), several models, or many small pictures on many cores.
import { availableParallelism } from 'node:os'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { Pipeline } from 'node-diffusion'

if (isMainThread) {
  const [size = '2', ...prompts] = process.argv.slice(2)
  const devices = process.env.DEVICES?.split(',') ?? ['cpu']
  const count = Number(size)
  const threads = Math.max(1, Math.floor(availableParallelism() / count))
  const waiting = prompts.map((prompt, i) => ({ prompt, seed: i, file: `worker-pool-${i + 1}.png` }))

  /** Gives a worker one job after another until none is left. */
  const employ = (i) =>
    new Promise((resolve, reject) => {
      const device = devices[i % devices.length]
      const worker = new Worker(new URL(import.meta.url), { workerData: { device, threads } })
      worker.on('message', (done) => {
        if (done) console.log(`worker ${i + 1}: ${done.file} in ${done.seconds.toFixed(2)} s`)
        worker.postMessage(waiting.shift() ?? null)
      })
      worker.once('error', reject)
      worker.once('exit', resolve)
    })
  await Promise.all(Array.from({ length: count }, (_, i) => employ(i)))
} else {
  const { device, threads } = workerData
  const pipe = await Pipeline.fromPretrained(process.env.MODEL ?? 'postcard', { device, threads })
  parentPort.on('message', async (job) => {
    if (!job) {
      await pipe.dispose()
      return parentPort.close()
    }
    const { images, timings } = await pipe.txt2img({ prompt: job.prompt, seed: job.seed, steps: 20 })
    await images[0].save(job.file)
    parentPort.postMessage({ file: job.file, seconds: timings.total })
  })
  parentPort.postMessage(null) // ready
}
