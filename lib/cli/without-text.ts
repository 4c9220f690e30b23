/** Painting with models that know no text. */
import { invalidArgument } from '../errors.js'
import type { Pipeline, UnconditionalOptions } from '../index.js'
import { given } from './arguments.js'
import type { PaintOptions } from './paint.js'

/** What `paint` takes for these models; all other options are about text, latents or another picture. */
const known: readonly (keyof PaintOptions)[] = [
  'output',
  'model',
  'device',
  'dtype',
  'threads',
  'quiet',
  'count',
  'showSteps',
  'animate',
  'steps',
  'seed',
  'scheduler',
  'width',
  'height',
  'eta',
  'rng'
]

export const paintsWithoutText = (pipe: Pipeline): boolean => pipe.tasks.includes('unconditional')

/** Every other model needs a prompt, and these take none. */
export const checkPrompt = (prompt: string | undefined, o: PaintOptions, pipe: Pipeline): void => {
  if (!paintsWithoutText(pipe)) {
    if (prompt === undefined) throw invalidArgument('prompt', 'what to paint', prompt)
    return
  }
  if (prompt !== undefined) throw invalidArgument('prompt', 'nothing, as this model knows no text,', prompt)
  for (const [name, value] of Object.entries(o))
    if (value !== undefined && !known.includes(name as keyof PaintOptions))
      throw invalidArgument(
        `--${name.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`)}`,
        'nothing, as this model paints from noise alone,',
        value
      )
}

export const withoutTextOptions = (o: PaintOptions): UnconditionalOptions =>
  given({
    steps: o.steps,
    scheduler: o.scheduler,
    width: o.width,
    height: o.height,
    eta: o.eta,
    rng: o.rng
  })
