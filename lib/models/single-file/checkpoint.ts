import { modelFormat, unsupported } from '../../errors.js'
import type { ComponentWeights, TensorSource, TensorView } from '../weights.js'

/** What is asked of a single file's header. */
export interface CheckpointHeader {
  readonly tensors: readonly { readonly name: string; readonly shape: readonly number[] }[]
  readonly metadata: Readonly<Record<string, string>>
}
/** Reads and checks one; the native binding's readHeader. */
export type CheckpointReader = (path: string) => CheckpointHeader | Promise<CheckpointHeader>

type Shape = readonly number[]

/** The tensors of a file, or those under a prefix, by name: names and shapes alone, nothing is read. */
export class Checkpoint {
  constructor(
    /** For messages, and where the tensors are. */
    readonly path: string,
    readonly metadata: Readonly<Record<string, string>>,
    private readonly shapes: ReadonlyMap<string, Shape>,
    /** What was cut off the names. */
    readonly prefix = ''
  ) {}

  static async read(path: string, readHeader: CheckpointReader): Promise<Checkpoint> {
    const { tensors, metadata } = await readHeader(path)
    return new Checkpoint(path, metadata, new Map(tensors.map(({ name, shape }) => [name, shape])))
  }

  /** The tensors whose names begin with the prefix, without it. */
  under(prefix: string): Checkpoint {
    const found = [...this.shapes].filter(([name]) => name.startsWith(prefix))
    const shapes = new Map(found.map(([name, shape]) => [name.slice(prefix.length), shape]))
    return new Checkpoint(this.path, this.metadata, shapes, this.prefix + prefix)
  }

  /** The same tensors under other names, for their shapes. */
  renamed(name: (stored: string) => string): Checkpoint {
    const shapes = new Map([...this.shapes].map(([stored, shape]) => [name(stored), shape]))
    return new Checkpoint(this.path, this.metadata, shapes, this.prefix)
  }

  get names(): readonly string[] {
    return [...this.shapes.keys()]
  }
  get size(): number {
    return this.shapes.size
  }
  has(name: string): boolean {
    return this.shapes.has(name)
  }
  some(pattern: RegExp): boolean {
    return this.names.some((name) => pattern.test(name))
  }

  /**
   * A dimension of a tensor.
   * @throws ERR_ND_MODEL_FORMAT where there is no such tensor or dimension
   */
  dimension(name: string, index: number): number {
    const shape = this.shapes.get(name)
    if (!shape)
      throw modelFormat(
        `${this.path}: expected a tensor ${this.prefix}${name} but the file has none; is it damaged, or of a kind that is not known here?`
      )
    const size = shape[index]
    if (size === undefined || size < 1)
      throw modelFormat(
        `${this.path}: expected a size for dimension ${index} of ${this.prefix}${name} but its shape is [${shape.join(', ')}]`
      )
    return size
  }
  rank(name: string): number {
    return this.shapes.get(name)?.length ?? 0
  }

  /** How many of NAME.0, NAME.1, … there are; `list` ends with a dot. */
  count(list: string): number {
    const found = new Set<number>()
    for (const name of this.names) {
      if (!name.startsWith(list)) continue
      const index = /^\d+(?=\.)/.exec(name.slice(list.length))
      if (index) found.add(Number(index[0]))
    }
    for (let i = 0; i < found.size; i++)
      if (!found.has(i))
        throw modelFormat(
          `${this.path}: expected tensors ${this.prefix}${list}${i}.*, as there are later ones, but the file has none; is it damaged?`
        )
    return found.size
  }
}

/** Present names to stored tensors; collects what a component's native model may ask for. */
export class TensorNames {
  private readonly sources: TensorSource[] = []

  constructor(private readonly checkpoint: Checkpoint) {}

  /** @param stored as the checkpoint has it, without its prefix */
  add(name: string, stored: string, view?: TensorView): void {
    const source = { name, file: 0, stored: this.checkpoint.prefix + stored }
    this.sources.push(view ? { ...source, view } : source)
  }

  weights(): ComponentWeights {
    return { files: [this.checkpoint.path], tensors: this.sources, variant: undefined }
  }
}

/** A tensor that belongs to a component but to no part of it that is known: another architecture, so nothing is guessed. */
export const unknownTensor = (checkpoint: Checkpoint, name: string, what: string): Error =>
  unsupported(
    `${checkpoint.path}: tensor ${checkpoint.prefix}${name} belongs to no part of ${what} that is known here; ` +
      'the file is of a variant that is not supported'
  )
