/** `node-diffusion roundtrip`: what the autoencoder keeps of a picture. */
import { extname } from 'node:path'
import { Command } from 'commander'
import { Pipeline } from '../index.js'
import { checkOutput } from './paint.js'

interface RoundtripOptions {
  output?: string
  model: string
  device: string
  vaeTiling?: true
}

/** Writes the picture as it comes back and prints its path and the PSNR. */
const roundtrip = async (image: string, o: RoundtripOptions, signal: AbortSignal): Promise<void> => {
  const path = o.output ?? `${image.slice(0, image.length - extname(image).length)}-roundtrip.png`
  await checkOutput(path)
  const pipe = await Pipeline.fromPretrained(o.model, { device: o.device, signal })
  try {
    const result = await pipe.vae.roundtrip(image, o.vaeTiling ? { tiling: true } : {})
    signal.throwIfAborted()
    await result.image.save(path)
    process.stdout.write(`${path}\nPSNR ${result.psnr.toFixed(2)} dB\n`)
  } finally {
    await pipe.dispose()
  }
}

export const roundtripCommand = (signal: AbortSignal): Command =>
  new Command('roundtrip')
    .description('a picture through the autoencoder and back, and how much of it is left (PSNR)')
    .argument('<image>', 'the picture')
    .option('-o, --output <path>', 'where to write what comes back: .png, .jpg or .webp (default: IMAGE-roundtrip.png)')
    .option('-m, --model <source>', "'postcard' (bundled) or a model; its autoencoder is used", 'postcard')
    .option('--vae-tiling', 'in tiles, in bounded memory')
    .option('--device <name>', "'auto', 'cpu' or 'cuda'", 'auto')
    .action((image: string, options: RoundtripOptions) => roundtrip(image, options, signal))
