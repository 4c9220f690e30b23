/** A pipeline's LoRAs: loaded, given strengths, taken away, and those of a single call. */
import { existsSync, statSync } from 'node:fs'
import { basename, join } from 'node:path'
import { native, translating, translatingSync, type NativeSession } from '../binding.js'
import { DiffusionError, invalidArgument, unsupported } from '../errors.js'
import { modelNotFound } from '../models/files.js'
import { resolveFile } from '../source.js'
import { finite, knownKeys } from '../validate.js'
import { familyOf, readLoraChanges } from './lora-file.js'
import { ModuleNames, type AdaptableComponent } from './module-names.js'
import { loraTag, parseLoraTags, type LoraTag } from './prompt-tags.js'

/** Options of Pipeline.loadLora. */
export interface LoadLoraOptions {
  /** What to call it; default: the file's name without its extension. */
  name?: string
  /** Of the change to the UNet; default 1, any finite number. */
  strength?: number
  /** Of the change to the text encoders; default `strength`. */
  textEncoderStrength?: number
}

/** A loaded LoRA by its name, and how strongly it is applied: see Pipeline.setLoras. */
export interface LoraStrength {
  /** One that is loaded. */
  name: string
  strength?: number
  textEncoderStrength?: number
}

/** For one call: a loaded LoRA, or a file that is loaded for this call alone. */
export type CallLora = string | LoraStrength | { path: string; strength?: number; textEncoderStrength?: number }

/** A LoRA that a pipeline has loaded. */
export interface LoadedLora extends LoraTag {
  readonly path: string
}

/** Adapters of a call and what its pictures' text says of them. */
export interface CallAdapters {
  /** Submits native work that is to run with them. */
  around<T>(submit: (session: NativeSession) => T): T
  /** The prompt as it was given, with tags for the LoRAs that it does not name itself. @param index of the prompt */
  written(prompt: string, index: number): string
}

export interface AdapterUse {
  readonly id: number
  readonly unet: number
  readonly textEncoder: number
}

interface Entry extends LoadedLora {
  id: number
}

const strengths = (o: { strength?: number; textEncoderStrength?: number }) => {
  const strength = finite('strength', o.strength ?? 1)
  return { strength, textEncoderStrength: finite('textEncoderStrength', o.textEncoderStrength ?? strength) }
}

/**
 * The file of an adapter: itself, or in a folder the one that diffusers saves. Refuses pickles, with the remedy.
 * @param what "LoRA"
 */
export const adapterFile = (path: unknown, what: string, saved: string): string => {
  if (typeof path !== 'string' || path === '')
    throw invalidArgument('path', `the path of a ${what}'s .safetensors file`, path)
  if (/\.(ckpt|pt|pth|bin)$/i.test(path))
    throw unsupported(
      `${path}: pickled ${what} files can run code and are not loaded; convert it to safetensors ` +
        '(in Python: safetensors.torch.save_file(torch.load(path, weights_only=True), "out.safetensors")), or download its .safetensors version'
    )
  if (!statSync(path, { throwIfNoEntry: false })?.isDirectory()) return path
  const file = join(path, saved)
  if (existsSync(file)) return file
  throw modelNotFound(
    `${path}: expected a ${what}'s file, or ${saved} in this folder, but there is none; give the file's path`
  )
}

const savedLora = 'pytorch_lora_weights.safetensors'

const nameOf = (path: string, given: string | undefined): string => {
  const name = given ?? basename(path).replace(/\.safetensors$/i, '')
  if (typeof name !== 'string' || name === '' || /[<>:]/.test(name))
    throw invalidArgument('name', 'a name without <, > and : (they mark it in prompts)', name)
  return name
}

const use = ({ id, strength, textEncoderStrength }: Entry): AdapterUse => ({
  id,
  unet: strength,
  textEncoder: textEncoderStrength
})

/** The options of a call that LoRAs concern. */
interface CallOptions {
  loras?: readonly CallLora[]
  prompt?: string | readonly string[]
  prompt2?: string | readonly string[]
  promptWeighting?: boolean
}

export class Loras {
  private entries: readonly Entry[] = []
  private readonly names: ModuleNames
  private nextId = 1
  /** Loading, changing and unloading happen one after another, in the order of the calls. */
  private last: Promise<unknown> = Promise.resolve()

  constructor(
    private readonly session: () => NativeSession,
    components: readonly AdaptableComponent[]
  ) {
    this.names = new ModuleNames(components)
  }

  get list(): readonly LoadedLora[] {
    return this.entries.map(({ name, path, strength, textEncoderStrength }) => ({
      name,
      path,
      strength,
      textEncoderStrength
    }))
  }

  load(path: string, options: LoadLoraOptions = {}): Promise<void> {
    return this.inOrder(async () => {
      knownKeys('loadLora', options, ['name', 'strength', 'textEncoderStrength'])
      const file = adapterFile(await resolveFile(path), 'LoRA', savedLora)
      const name = nameOf(path, options.name)
      const given = strengths(options)
      if (this.entries.some((e) => e.name === name))
        throw invalidArgument('name', 'a name that no loaded LoRA has (unload it first, or give another name)', name)
      const id = await this.add(file)
      try {
        await this.change([...this.entries, { id, name, path, ...given }])
      } catch (error) {
        await this.drop(id)
        throw error
      }
    })
  }

  set(list: readonly LoraStrength[]): Promise<void> {
    return this.inOrder(async () => {
      if (!Array.isArray(list)) throw invalidArgument('loras', 'an array of { name, strength }', list)
      const given = new Map<string, LoraStrength>()
      for (const one of list as readonly LoraStrength[]) {
        if (typeof one !== 'object' || one === null) throw invalidArgument('loras', '{ name, strength }', one)
        knownKeys('setLoras', one, ['name', 'strength', 'textEncoderStrength'])
        this.find(one.name)
        if (given.has(one.name)) throw invalidArgument('loras', 'each name once', one.name)
        given.set(one.name, one)
      }
      const off = { strength: 0, textEncoderStrength: 0 }
      await this.change(
        this.entries.map((e) => ({ ...e, ...(given.has(e.name) ? strengths(given.get(e.name)!) : off) }))
      )
    })
  }

  unload(name?: string): Promise<void> {
    return this.inOrder(async () => {
      const gone = name === undefined ? this.entries : [this.find(name)]
      await this.change(this.entries.filter((e) => !gone.includes(e)))
      for (const { id } of gone) await this.drop(id)
    })
  }

  /**
   * Runs a call with the LoRAs that its options and its prompts' tags ask for, and without them in its options.
   * Files that only this call names are loaded before and unloaded after it.
   */
  async during<O extends object, R>(options: O, run: (options: O, adapters: CallAdapters) => Promise<R>): Promise<R> {
    const { loras, ...rest } = (options ?? {}) as CallOptions
    if (loras !== undefined && !Array.isArray(loras))
      throw invalidArgument('loras', 'an array of names or { name | path, strength }', loras)
    const own: number[] = []
    const chosen: Entry[] = loras ? [] : [...this.entries]
    try {
      for (const one of (loras ?? []) as readonly CallLora[]) {
        const entry = this.ofCall(one)
        if (entry.id === 0) own.push((entry.id = await this.add(entry.path)))
        chosen.push(entry)
      }
      const { options: clean, tags, written } = this.withoutTags(rest)
      const named = tags.map((tag) => ({ ...this.find(tag.name), ...tag }))
      const kept = chosen.filter((e) => !named.some((n) => n.name === e.name))
      const active = [...kept, ...named].filter((e) => e.strength !== 0 || e.textEncoderStrength !== 0)
      const suffix = kept.filter((e) => active.includes(e)).map((e) => ' ' + loraTag(e))
      return await run((options === null || typeof options !== 'object' ? options : clean) as O, {
        around: (submit) => this.around(active, submit),
        written: (prompt, index) => (written?.[index] ?? prompt) + suffix.join('')
      })
    } finally {
      for (const id of own) await this.drop(id)
    }
  }

  /** A file that is still to be loaded has the id 0. */
  private ofCall(one: CallLora): Entry {
    if (typeof one === 'string') return { ...this.find(one), strength: 1, textEncoderStrength: 1 }
    if (typeof one !== 'object' || one === null)
      throw invalidArgument('loras', 'names or { name | path, strength }', one)
    knownKeys('loras', one, ['name', 'path', 'strength', 'textEncoderStrength'])
    if (!('path' in one)) return { ...this.find(one.name), ...strengths(one) }
    if ('name' in one) throw invalidArgument('loras', 'a name or a path, and not both', one.path)
    const path = adapterFile(one.path, 'LoRA', savedLora)
    return { id: 0, path, name: nameOf(one.path, undefined), ...strengths(one) }
  }

  /** Tags count where prompts have AUTOMATIC1111's syntax; every prompt of a batch must ask for the same. */
  private withoutTags(o: CallOptions): { options: CallOptions; tags: LoraTag[]; written?: readonly string[] } {
    if (o.promptWeighting !== true || o.prompt === undefined) return { options: o, tags: [] }
    const given: readonly string[] = typeof o.prompt === 'string' ? [o.prompt] : o.prompt
    if (!Array.isArray(given) || !given.every((p) => typeof p === 'string')) return { options: o, tags: [] } // checked later
    const parsed = given.map(parseLoraTags)
    const asked = parsed.map((p) => p.tags.map(loraTag).join(' '))
    const other = asked.find((tags) => tags !== asked[0])
    if (other !== undefined)
      throw invalidArgument('prompt', `the same LoRA tags in every prompt of a batch ("${asked[0]}")`, other)
    const strip = (prompt: string | readonly string[]): string | string[] =>
      typeof prompt === 'string' ? parseLoraTags(prompt).prompt : prompt.map((p) => parseLoraTags(p).prompt)
    return {
      options: { ...o, prompt: strip(o.prompt), ...(o.prompt2 === undefined ? {} : { prompt2: strip(o.prompt2) }) },
      tags: parsed[0]?.tags ?? [],
      written: given
    }
  }

  private find(name: string): Entry {
    const entry = this.entries.find((e) => e.name === name)
    if (entry) return entry
    const loaded = this.entries.map((e) => `'${e.name}'`).join(', ')
    throw invalidArgument(
      'a LoRA',
      loaded ? `one that is loaded (${loaded})` : 'one that is loaded (there is none)',
      name
    )
  }

  private inOrder<T>(run: () => Promise<T>): Promise<T> {
    const result = this.last.then(run)
    this.last = result.catch(() => {})
    return result
  }

  private around<T>(entries: readonly Entry[], submit: (session: NativeSession) => T): T {
    const session = this.session()
    session.useAdapters(entries.map(use))
    try {
      return submit(session)
    } finally {
      session.useAdapters(this.entries.map(use))
    }
  }

  /** Reads and checks a file natively. */
  private async add(path: string): Promise<number> {
    const header = translatingSync(() => native().readHeader(path))
    const changes = readLoraChanges(path, header, this.names)
    const id = this.nextId++
    try {
      await translating(this.session().addAdapter(id, path, changes))
    } catch (error) {
      const family = familyOf(header)
      if (!(error instanceof DiffusionError) || error.code !== 'ERR_ND_MODEL_FORMAT' || !family) throw error
      throw new DiffusionError(error.code, `${error.message}; the file looks like one for ${family}`, { cause: error })
    }
    return id
  }

  /** Lets go of a file; a pipeline that was disposed of meanwhile has done so. */
  private async drop(id: number): Promise<void> {
    try {
      await this.session().removeAdapter(id)
    } catch {
      // disposed of
    }
  }

  /** Makes these the pipeline's, now; where that fails, it keeps those that it has. */
  private async change(entries: readonly Entry[]): Promise<void> {
    await translating(this.around(entries, (session) => session.applyAdapters()))
    this.entries = entries
    this.session().useAdapters(entries.map(use))
  }
}
