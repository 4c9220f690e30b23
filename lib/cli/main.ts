#!/usr/bin/env node
import { Command } from 'commander'
import {
  choiceArgument,
  countArgument,
  embeddingArgument,
  integerArgument,
  integersArgument,
  loraArgument,
  numberArgument,
  seedArgument
} from './arguments.js'
import { buildAddon } from './build.js'
import { addControlOptions } from './control.js'
import { printInspection } from './inspect.js'
import { addModeOptions } from './modes.js'
import { noise, type NoiseOptions } from './noise.js'
import { paint, type PaintOptions } from './paint.js'
import { printScores, type ScoreOptions } from './score.js'
import { roundtripCommand } from './roundtrip-command.js'
import { serveCommand } from './serve-command.js'
import { packageVersion } from './version.js'
import { workerCommand } from './worker-command.js'

const interrupt = new AbortController()
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.once(signal, () => interrupt.abort(new Error('interrupted')))

const program = new Command('node-diffusion')
  .description('Paints pictures from text with Stable Diffusion models, natively in Node.js')
  .version(packageVersion())
  .showHelpAfterError('(node-diffusion --help lists the options)')

const paintCommand = program
  .command('paint', { isDefault: true })
  .description('paint a picture (the default command)')
  .argument('[prompt]', 'what to paint (not for models without text)')
  .option('-o, --output <path>', 'where to write: .png (with the parameters in it), .jpg or .webp', 'out.png')
  .option(
    '-m, --model <source>',
    "'postcard' (bundled) or a model: a folder in the diffusers layout or a .safetensors checkpoint",
    'postcard'
  )
  .option('-n, --negative <prompt>', 'what not to paint')
  .option('-i, --image <path>', 'a picture to begin with (or, for InstructPix2Pix models, to edit)')
  .option('--strength <number>', 'how much to change of --image, 0 to 1', numberArgument)
  .option('--mask <path>', 'with --image: paint anew only where this picture is white')
  .option('--image-guidance <number>', 'InstructPix2Pix: how strongly to keep to --image', numberArgument)
  .option('-s, --steps <number>', 'steps', integerArgument)
  .option('--seed <number>', 'seed of the first picture (default: random)', seedArgument)
  .option('--scheduler <name>', 'such as "DPM++ 2M Karras" or DDIMScheduler (default: the model\'s)')
  .option('-g, --guidance <number>', 'how strongly to follow the prompt', numberArgument)
  .option('--guidance-rescale <number>', 'against over-exposure, 0 to 1', numberArgument)
  .option('--width <pixels>', 'a multiple of 8', integerArgument)
  .option('--height <pixels>', 'a multiple of 8', integerArgument)
  .option('-c, --count <number>', 'pictures, with seed, seed + 1, …', countArgument, 1)
  .option('--clip-skip <number>', 'text layers to leave out at the end', integerArgument)
  .option('--eta <number>', "DDIM's noise, 0 to 1", numberArgument)
  .option(
    '--rng <device>',
    "whose noise a seed means: 'cpu' (PyTorch, diffusers) or 'cuda' (AUTOMATIC1111)",
    choiceArgument('cpu', 'cuda')
  )
  .option('--lora <file>', 'a LoRA, FILE or FILE:STRENGTH; may be given several times', loraArgument)
  .option(
    '--embedding <file>',
    'a textual inversion, FILE or FILE:TOKEN; may be given several times',
    embeddingArgument
  )
  .option('--weights', 'read (word:1.3), [word] and BREAK as AUTOMATIC1111 does, and prompts of any length')
  .option('--device <name>', "'auto', 'cpu' or 'cuda'", 'auto')
  .option('--dtype <name>', "what layers compute in: 'float32', 'float16' or 'bfloat16' (default: the device's)")
  .option('--threads <number>', 'CPU threads (default: the physical cores)', countArgument)
  .option('--show-steps', 'also write a sheet with the picture after every step')
  .option('--animate <path>', 'also write the steps as a moving picture: .webp or .gif')
  .option('--attention', 'also write a sheet that shows, word by word, where the picture was painted from it')
  .option('--vae-tiling', 'decode (and encode) in tiles, in bounded memory')
  .option('-q, --quiet', 'no progress, only the paths of the pictures')
  .action((prompt: string | undefined, options: PaintOptions) => paint(prompt, options, interrupt.signal))
addControlOptions(paintCommand)
addModeOptions(paintCommand)

program
  .command('noise')
  .description('forward diffusion: a sheet of a picture at growing amounts of noise')
  .argument('<image>', 'the picture')
  .option('-o, --output <path>', 'where to write the sheet: .png, .jpg or .webp (default: IMAGE-noise.png)')
  .option('-m, --model <source>', "'postcard' (bundled) or a model; its autoencoder and scheduler are used", 'postcard')
  .option(
    '-s, --steps <number>',
    'how many noise levels, evenly over the trained timesteps (default: 8)',
    countArgument
  )
  .option('--timesteps <list>', 'instead: the timesteps, such as 100,500,999', integersArgument)
  .option('--scheduler <name>', 'such as "Euler" or DDIMScheduler (default: the model\'s)')
  .option('--seed <number>', 'seed of the noise', seedArgument)
  .option('--width <pixels>', "default: the picture's own", integerArgument)
  .option('--height <pixels>', "default: the picture's own", integerArgument)
  .option('--device <name>', "'auto', 'cpu' or 'cuda'", 'auto')
  .action((image: string, options: NoiseOptions) => noise(image, options, interrupt.signal))

program.addCommand(roundtripCommand(interrupt.signal))
program.addCommand(serveCommand(interrupt.signal))
program.addCommand(workerCommand(interrupt.signal))

program
  .command('inspect')
  .description('print what this machine offers: CPU, instruction sets, GPU, versions')
  .option('--json', 'as JSON')
  .action((options: { json?: boolean }) => printInspection(options.json ?? false))

program
  .command('build')
  .description('build the addon from source into this package (needs cmake and a C++20 compiler; nvcc for CUDA)')
  .action(buildAddon)

program
  .command('score')
  .description('print how well a picture goes with texts (CLIP score: 100 times the cosine), best first')
  .argument('<image>', 'a picture')
  .argument('<texts...>', 'what it may show')
  .option('-m, --model <source>', "'postcard' (bundled) or the folder of a CLIPModel", 'postcard')
  .option('--device <name>', "'auto', 'cpu' or 'cuda'", 'auto')
  .option('--threads <number>', 'CPU threads (default: the physical cores)', countArgument)
  .option('--json', 'as JSON')
  .action((image: string, texts: string[], options: ScoreOptions) => printScores(image, texts, options))

/** One line, with the code where there is one. */
const describe = (error: unknown): string => {
  if (!(error instanceof Error)) return String(error)
  const { code } = error as { code?: unknown }
  return `${typeof code === 'string' ? `${code}: ` : ''}${error.message}`.replaceAll('\n', ' ')
}

try {
  await program.parseAsync()
} catch (error) {
  process.stderr.write(`node-diffusion: ${describe(error)}\n`)
  process.exitCode = interrupt.signal.aborted ? 130 : 1
}
