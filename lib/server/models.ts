/** The models that a server offers: loaded when first asked for, at most `keep` of them at once. */
import { basename } from 'node:path'
import { invalidArgument } from '../errors.js'
import { Pipeline, type LoadOptions } from '../pipeline.js'

export interface ModelEntry {
  /** What clients call it. */
  readonly name: string
  /** fromPretrained's source. */
  readonly source: string
}

/** 'name=source', or a source alone, which is called by its last part. */
export const parseModel = (text: string): ModelEntry => {
  const [, name, source] = /^([\w.-]+)=(.+)$/.exec(text) ?? [undefined, basename(text, '.safetensors'), text]
  if (!name || !source) throw invalidArgument('model', "'name=source' or a source", text)
  return { name, source }
}

export class ModelStore {
  private readonly loaded = new Map<string, Promise<Pipeline>>()
  /** The one that is used where a request names none. */
  current: string

  constructor(
    readonly entries: readonly ModelEntry[],
    private readonly options: LoadOptions = {},
    private readonly keep = 1
  ) {
    if (entries.length === 0) throw invalidArgument('models', 'at least one model', entries)
    this.current = entries[0]!.name
  }

  find(name: string): ModelEntry | undefined {
    // AUTOMATIC1111's clients send titles with a hash: "model.safetensors [abcdef]".
    const plain = name.replace(/ \[[0-9a-f]+\]$/, '').replace(/\.safetensors$/, '')
    return this.entries.find((entry) => entry.name === plain)
  }

  /** @throws ERR_ND_INVALID_ARGUMENT for a name that is not offered */
  entry(name: string): ModelEntry {
    const entry = this.find(name)
    if (!entry) throw invalidArgument('model', this.entries.map((e) => `'${e.name}'`).join(' or '), name)
    return entry
  }

  /** Loads it where needed; the least recently used model goes first. Not for two callers at once: the queue is serial. */
  async use(name: string): Promise<Pipeline> {
    const entry = this.entry(name)
    let pipeline = this.loaded.get(entry.name)
    if (pipeline) this.loaded.delete(entry.name)
    else {
      while (this.loaded.size >= this.keep) await this.drop([...this.loaded.keys()][0]!)
      pipeline = Pipeline.fromPretrained(entry.source, this.options)
    }
    this.loaded.set(entry.name, pipeline)
    try {
      return await pipeline
    } catch (error) {
      this.loaded.delete(entry.name)
      throw error
    }
  }

  async dispose(): Promise<void> {
    for (const name of [...this.loaded.keys()]) await this.drop(name)
  }

  private async drop(name: string): Promise<void> {
    const pipeline = this.loaded.get(name)
    this.loaded.delete(name)
    await pipeline?.then(
      (p) => p.dispose(),
      () => {}
    )
  }
}
