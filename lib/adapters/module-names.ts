/** Which module of the model a name in an adapter's file means. */
import { resnetModules, topModules } from '../models/single-file/unet.js'

/** A component as adapters see it. */
export interface AdaptableComponent {
  readonly component: 'unet' | 'textEncoder'
  /** Which of the loaded ones: the native session's number. */
  readonly index: number
  /** 0 for text_encoder (and the UNet), 1 for text_encoder_2. */
  readonly slot: 0 | 1
  /** Canonical names of its tensors. */
  readonly tensors: ReadonlySet<string>
}

/** Two spellings of a module that differ in dots and underscores only are the same: kohya's names have no dots. */
const plain = (name: string): string => name.replaceAll('.', '_')

const inverse = (table: Iterable<readonly [string, string]>): Map<string, string> =>
  new Map([...table].map(([stored, name]) => [name, stored]))

const originalTop = inverse(topModules)
const originalResnet = inverse(Object.entries(resnetModules))

/**
 * The names that the original layout (openaimodel.UNetModel) has for a UNet's modules, by diffusers' name: input_blocks and
 * output_blocks are flat lists, which follow from how many residual blocks each level has. Adapters for SDXL are often
 * named so.
 */
export const originalModules = (modules: Iterable<string>): Map<string, string> => {
  const block = /^(down_blocks|up_blocks)\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)$/
  const middle = /^mid_block\.(resnets|attentions)\.(\d+)\.(.+)$/
  const all = [...modules]
  const resnets: Record<string, number[]> = { down_blocks: [], up_blocks: [] }
  const attention = new Set<string>()
  for (const name of all) {
    const [, list, level, kind, i] = block.exec(name) ?? []
    if (list === undefined) continue
    const counts = resnets[list]!
    if (kind === 'resnets') counts[Number(level)] = Math.max(counts[Number(level)] ?? 0, Number(i) + 1)
    if (kind === 'attentions') attention.add(`${list}.${level}`)
  }
  /** Entries of the flat list before a level: on the way down conv_in, and a downsampler after each level. */
  const start = (list: string, level: number): number => {
    const before = resnets[list]!.slice(0, level).map((n) => (n ?? 0) + (list === 'down_blocks' ? 1 : 0))
    return before.reduce((a, b) => a + b, list === 'down_blocks' ? 1 : 0)
  }
  const inResnet = (at: string, rest: string): string | undefined => {
    const part = originalResnet.get(rest)
    return part === undefined ? undefined : `${at}.${part}`
  }
  const original = (name: string): string | undefined => {
    const top = originalTop.get(name)
    if (top !== undefined) return top
    const mid = middle.exec(name)
    if (mid)
      return mid[1] === 'attentions'
        ? `middle_block.1.${mid[3]}`
        : inResnet(`middle_block.${2 * Number(mid[2])}`, mid[3]!)
    const found = block.exec(name)
    if (!found) return undefined
    const [, list, level, kind, i, rest] = found as unknown as [string, string, string, string, string, string]
    const first = start(list, Number(level))
    const flat = list === 'down_blocks' ? 'input_blocks' : 'output_blocks'
    const count = resnets[list]![Number(level)] ?? 0
    switch (kind) {
      case 'resnets':
        return inResnet(`${flat}.${first + Number(i)}.0`, rest)
      case 'attentions':
        return `${flat}.${first + Number(i)}.1.${rest}`
      case 'downsamplers':
        return `${flat}.${first + count}.0.op`
      default:
        return `${flat}.${first + count - 1}.${attention.has(`${list}.${level}`) ? 2 : 1}.${rest}`
    }
  }
  const names = new Map<string, string>()
  for (const name of all) {
    const stored = original(name)
    if (stored !== undefined) names.set(name, stored)
  }
  return names
}

/** Beginnings of names, and the component that each means. Kohya's, PEFT's and diffusers', LyCORIS', ComfyUI's. */
const prefixes: readonly (readonly [RegExp, 'unet' | 'textEncoder', 0 | 1])[] = [
  [/^lora_unet[._]/, 'unet', 0],
  [/^lora_te1?[._]/, 'textEncoder', 0],
  [/^lora_te2[._]/, 'textEncoder', 1],
  [/^lycoris_(?:unet_)?/, 'unet', 0],
  [/^unet\./, 'unet', 0],
  [/^text_encoder\./, 'textEncoder', 0],
  [/^text_encoder_2\./, 'textEncoder', 1],
  [/^(?:model\.)?diffusion_model\./, 'unet', 0],
  [/^(?=(?:down_blocks|mid_block|up_blocks|conv_in|conv_out|time_embedding|add_embedding|text_model)\.)/, 'unet', 0]
]

export interface ModuleMatch {
  readonly part: AdaptableComponent
  /** Canonical: "down_blocks.0.attentions.0.proj_in". */
  readonly module: string
  /** Found under a name of the original layout. */
  readonly original: boolean
}

/** Attention processors (diffusers before 0.20) named their adapters after the projection: to_q_lora. */
const withoutProcessor = (name: string): string =>
  name.replace(/\.processor\./, '.').replace(/(\.to_(?:q|k|v|out))_lora$/, '$1')

const textProjection = (name: string): string =>
  name.replace(/\.to_(q|k|v)$/, '.$1_proj').replace(/\.to_out$/, '.out_proj')

/** Finds modules by the names that adapters give them. */
export class ModuleNames {
  private readonly modules = new Map<AdaptableComponent, Map<string, { module: string; original: boolean }>>()

  constructor(private readonly parts: readonly AdaptableComponent[]) {}

  /** What a name's beginning says: the component, or undefined where it says nothing; `part` is missing where the model lacks it. */
  private component(name: string): { part: AdaptableComponent | undefined; rest: string } | undefined {
    const bare = name.replace(/^base_model\.model\./, '')
    for (const [pattern, component, slot] of prefixes) {
      const match = pattern.exec(bare)
      if (!match) continue
      const part = this.parts.find((p) => p.component === component && p.slot === slot)
      return { part, rest: bare.slice(match[0].length) }
    }
    return undefined
  }

  /** @returns undefined where the model has no such module */
  find(name: string): ModuleMatch | undefined {
    const found = this.component(withoutProcessor(name))
    if (!found?.part) return undefined
    const { part, rest } = found
    const known = this.of(part)
    const spellings =
      part.component === 'unet' ? [rest, `${rest}.0`] : [rest, textProjection(rest), `text_model.${rest}`]
    for (const spelling of spellings) {
      const match = known.get(plain(spelling))
      if (match) return { part, ...match }
    }
    return undefined
  }

  private of(part: AdaptableComponent): Map<string, { module: string; original: boolean }> {
    let known = this.modules.get(part)
    if (known) return known
    known = new Map()
    const modules = new Set([...part.tensors].map((name) => name.replace(/\.(weight|bias)$/, '')))
    if (part.component === 'unet')
      for (const [module, stored] of originalModules(modules)) known.set(plain(stored), { module, original: true })
    for (const module of modules) known.set(plain(module), { module, original: false })
    this.modules.set(part, known)
    return known
  }
}
