import { extname } from 'node:path'
import { contactSheet } from '../contact-sheet.js'
import { Pipeline } from '../index.js'
import { given } from './arguments.js'
import { checkOutput } from './paint.js'

/** The options of the command line, as commander hands them over. */
export interface NoiseOptions {
  output?: string
  model: string
  device: string
  steps?: number
  timesteps?: number[]
  scheduler?: string
  seed?: bigint
  width?: number
  height?: number
}

/** Writes a sheet: the picture through the autoencoder, then at every noise level; prints its path. */
export const noise = async (image: string, o: NoiseOptions, signal: AbortSignal): Promise<void> => {
  const path = o.output ?? `${image.slice(0, image.length - extname(image).length)}-noise.png`
  await checkOutput(path)
  const pipe = await Pipeline.fromPretrained(o.model, { device: o.device, signal })
  try {
    const { steps, timesteps, scheduler, seed, width, height } = o
    const result = await pipe.addNoise(given({ image, steps, timesteps, scheduler, seed, width, height }))
    signal.throwIfAborted()
    const sheet = await contactSheet([result.original, ...result.images], {
      labels: ['picture', ...result.timesteps.map((t) => `t = ${t}`)]
    })
    await sheet.save(path)
    process.stdout.write(`${path}\n`)
  } finally {
    await pipe.dispose()
  }
}
