/** Pipelines of the same file: the second one uses the weights of the first. */
import { spawnSync } from 'node:child_process'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { Pipeline } from 'node-diffusion'
import { root } from './support/paths.js'

const test = suite('shared weights')

test('eight more pipelines of a model take no memory for weights', () => {
  // In a process of its own: what else the tests hold would hide the difference.
  const code = `
    import { Pipeline } from 'node-diffusion'
    const open = () => Pipeline.fromPretrained('postcard', { threads: 1 })
    const pipes = [await open()]
    const { weights } = await pipes[0].memory()
    globalThis.gc()
    const before = process.memoryUsage().rss
    for (let i = 0; i < 8; i++) pipes.push(await open())
    globalThis.gc()
    const more = process.memoryUsage().rss - before
    const counted = await Promise.all(pipes.map(async (pipe) => (await pipe.memory()).weights))
    console.log(JSON.stringify({ weights, more, counted }))
    for (const pipe of pipes) await pipe.dispose()`
  const run = spawnSync(process.execPath, ['--expose-gc', '--input-type=module', '-e', code], {
    cwd: root,
    encoding: 'utf8'
  })
  assert.is(run.status, 0, run.stderr)
  const { weights, more, counted } = JSON.parse(run.stdout) as { weights: number; more: number; counted: number[] }
  assert.ok(weights > 11e6, `${weights} bytes of weights`)
  assert.equal(counted, Array(9).fill(weights), 'each counts what it uses')
  assert.ok(more < 4 * weights, `eight more took ${more} bytes, the weights of one are ${weights}`)
})

test('both give the same picture, also after the other one has gone', async () => {
  const options = { prompt: 'a red house', width: 32, height: 32, steps: 2, seed: 1 }
  const first = await Pipeline.fromPretrained('postcard')
  const alone = (await first.txt2img(options)).images[0]!.data
  const [second, third] = await Promise.all([Pipeline.fromPretrained('postcard'), Pipeline.fromPretrained('postcard')])
  await first.dispose()
  const pictures = await Promise.all([second, third].map((pipe) => pipe.txt2img(options)))
  for (const { images } of pictures) assert.equal(images[0]!.data, alone)
  await second.dispose()
  await third.dispose()
})

test('one thread and two give the same latents, bit for bit', async () => {
  const options = { prompt: 'a red house', width: 64, height: 64, steps: 2, seed: 1 }
  const [one, two] = await Promise.all([1, 2].map((threads) => Pipeline.fromPretrained('postcard', { threads })))
  const [a, b] = await Promise.all([one!, two!].map((pipe) => pipe.txt2img(options)))
  assert.equal(a!.latents, b!.latents)
  assert.equal(a!.images[0]!.data, b!.images[0]!.data)
  await one!.dispose()
  await two!.dispose()
})

test.run()
