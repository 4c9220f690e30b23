/** ControlNets and T2I-Adapters on the command line: repeated options, the k-th of each belonging together. */
import type { Command } from 'commander'
import { invalidArgument } from '../errors.js'
import type { ControlOptions, Pipeline } from '../index.js'
import { numberArgument } from './arguments.js'

/** As commander hands them over. */
export interface ControlArguments {
  controlnet?: string[]
  controlImage?: string[]
  controlScale?: number[]
  controlStart?: number[]
  controlEnd?: number[]
  guessMode?: boolean
  adapter?: string[]
  adapterImage?: string[]
  adapterScale?: number[]
  adapterFactor?: number
}

const texts = (text: string, before: string[] = []): string[] => [...before, text]
const numbers = (text: string, before: number[] = []): number[] => [...before, numberArgument(text)]

export const addControlOptions = (command: Command): Command =>
  command
    .option('--controlnet <source>', 'a ControlNet: a folder or .safetensors file (may be repeated)', texts)
    .option('--control-image <path>', 'its picture: edges, depth, pose… (one for each)', texts)
    .option('--control-scale <number>', 'how much it adds (default: 1; with --image 0.8, with --mask 0.5)', numbers)
    .option('--control-start <number>', 'share of the steps, 0 to 1, from which it works', numbers)
    .option('--control-end <number>', 'share of the steps, 0 to 1, up to which it works', numbers)
    .option('--guess-mode', 'ControlNets steer only the branch with the prompt')
    .option('--adapter <source>', 'a T2I-Adapter: a folder or .safetensors file (may be repeated)', texts)
    .option('--adapter-image <path>', 'its picture (one for each)', texts)
    .option('--adapter-scale <number>', 'how much it adds (default: 1)', numbers)
    .option('--adapter-factor <number>', 'share of the steps, 0 to 1, in which adapters work', numberArgument)

/** As many values as models, or none. */
const perModel = <T>(
  name: string,
  values: readonly T[] | undefined,
  models: readonly string[],
  needed: boolean
): void => {
  if (values === undefined && !(needed && models.length)) return
  if (values?.length !== models.length)
    throw invalidArgument(`--${name}`, `as many as models (${models.length})`, values?.length ?? 0)
}

export const checkControlArguments = (o: ControlArguments): void => {
  const nets = o.controlnet ?? []
  perModel('control-image', o.controlImage, nets, true)
  perModel('control-scale', o.controlScale, nets, false)
  perModel('control-start', o.controlStart, nets, false)
  perModel('control-end', o.controlEnd, nets, false)
  const adapters = o.adapter ?? []
  perModel('adapter-image', o.adapterImage, adapters, true)
  perModel('adapter-scale', o.adapterScale, adapters, false)
  if (o.guessMode && !nets.length) throw invalidArgument('--controlnet', 'a ControlNet for --guess-mode', undefined)
  if (o.adapterFactor !== undefined && !adapters.length)
    throw invalidArgument('--adapter', 'a T2I-Adapter for --adapter-factor', undefined)
}

/** Loads what the arguments name and gives the call's options. */
export const loadControls = async (pipe: Pipeline, o: ControlArguments): Promise<ControlOptions> => {
  const control: NonNullable<ControlOptions['control']>[number][] = []
  for (const [i, source] of (o.controlnet ?? []).entries()) {
    // The same one twice is loaded once.
    const first = o.controlnet!.indexOf(source)
    const net = first < i ? control[first]!.name! : (await pipe.loadControlNet(source, nameOf(pipe, source))).name
    const [scale, start, end] = [o.controlScale?.[i], o.controlStart?.[i], o.controlEnd?.[i]]
    control.push({
      name: net,
      image: o.controlImage![i]!,
      ...(scale === undefined ? {} : { scale }),
      ...(start === undefined ? {} : { start }),
      ...(end === undefined ? {} : { end })
    })
  }
  for (const [i, source] of (o.adapter ?? []).entries())
    await pipe.loadT2iAdapter(source, i > 0 ? { name: `${i + 1}: ${source}` } : {})
  return {
    ...(control.length ? { control } : {}),
    ...(o.guessMode ? { guessMode: true } : {}),
    ...(o.adapter ? { adapterImage: o.adapterImage! } : {}),
    ...(o.adapterScale ? { adapterConditioningScale: o.adapterScale } : {}),
    ...(o.adapterFactor === undefined ? {} : { adapterConditioningFactor: o.adapterFactor })
  }
}

/** Two folders of the same name in different places need names of their own. */
const nameOf = (pipe: Pipeline, source: string): { name?: string } => {
  const name = source
    .replace(/[\\/]+$/, '')
    .split(/[\\/]/)
    .at(-1)!
    .replace(/\.safetensors$/, '')
  return pipe.controlNets.some((net) => net.name === name) ? { name: source } : {}
}
