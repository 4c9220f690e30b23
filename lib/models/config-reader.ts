import { modelFormat, unsupported, type DiffusionError } from '../errors.js'

/** A parsed config.json: nothing in it is trusted. */
export type ConfigJson = Readonly<Record<string, unknown>>

const largest = 2 ** 31 - 1 // sizes are 32-bit integers in the engine

const show = (value: unknown): string => {
  const text = JSON.stringify(value) ?? String(value)
  return text.length > 60 ? text.slice(0, 57) + '...' : text
}

export const isObject = (value: unknown): value is ConfigJson =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/**
 * Reads the fields of one component's config.json with the defaults of its class. A value of the wrong type is
 * ERR_ND_MODEL_FORMAT; a well-formed value that nothing here implements is ERR_ND_UNSUPPORTED. Both name the field.
 * Fields that nobody asks for are ignored, as diffusers does.
 */
export class ConfigReader {
  /** `source` says in messages where the config came from: a path. */
  constructor(
    readonly className: string,
    readonly source: string,
    private readonly json: ConfigJson
  ) {
    if (!isObject(json)) throw modelFormat(`${source}: expected a JSON object but received ${show(json)}`)
    this.only('quantization_config', [null])
  }

  has(key: string): boolean {
    return this.json[key] !== undefined
  }

  /** The raw value; undefined where the field is missing. */
  raw(key: string): unknown {
    return this.json[key]
  }

  wrong(key: string, expected: string): DiffusionError {
    return modelFormat(
      `${this.source}: expected ${expected} for ${this.className}.${key} but received ${show(this.json[key])}`
    )
  }

  refused(key: string, supported: string): DiffusionError {
    return unsupported(
      `${this.className}: ${key} ${show(this.json[key])} is not supported, only ${supported} (${this.source})`
    )
  }

  /** The class's name where the config has one. */
  checkClass(key = '_class_name'): void {
    const name = this.json[key]
    if (name === undefined || name === this.className) return
    if (typeof name !== 'string') throw this.wrong(key, `"${this.className}"`)
    throw unsupported(`${this.source}: expected the class ${this.className} but received ${show(name)}`)
  }

  /** A field that is accepted only with these values, or missing. */
  only(key: string, accepted: readonly (string | number | boolean | null)[]): void {
    const value = this.json[key]
    if (value === undefined || accepted.some((a) => a === value)) return
    throw this.refused(key, accepted.map(show).join(' or '))
  }

  private check<T>(key: string, fallback: T, expected: string, valid: (value: unknown) => boolean): T {
    const value = this.json[key]
    if (value === undefined) return fallback
    if (!valid(value)) throw this.wrong(key, expected)
    return value as T
  }

  integer<T = number>(key: string, fallback: number | T, minimum = 1): number | T {
    return this.check(key, fallback, `an integer of at least ${minimum}`, (v) => isInteger(v, minimum))
  }

  /** null and a missing field give undefined. */
  optionalInteger(key: string): number | undefined {
    return this.json[key] === null ? undefined : this.integer(key, undefined)
  }

  number(key: string, fallback: number): number {
    return this.check(key, fallback, 'a number', (v) => Number.isFinite(v))
  }

  positive(key: string, fallback: number): number {
    return this.check(key, fallback, 'a positive number', (v) => Number.isFinite(v) && (v as number) > 0)
  }

  boolean(key: string, fallback: boolean): boolean {
    return this.check(key, fallback, 'true or false', (v) => typeof v === 'boolean')
  }

  string(key: string, fallback: string): string {
    return this.check(key, fallback, 'a string', (v) => typeof v === 'string')
  }

  strings(key: string, fallback: readonly string[]): readonly string[] {
    return this.check(key, fallback, 'an array of strings', (v) => isArrayOf(v, (e) => typeof e === 'string'))
  }

  integers(key: string, fallback: readonly number[]): readonly number[] {
    return this.check(key, fallback, 'an array of positive integers', (v) => isArrayOf(v, (e) => isInteger(e, 1)))
  }

  /** `count` numbers, or undefined for null and a missing field. */
  optionalNumbers(key: string, count: number): readonly number[] | undefined {
    if (this.json[key] === null) return undefined
    const valid = (v: unknown): boolean => isArrayOf(v, Number.isFinite) && v.length === count
    return this.check<readonly number[] | undefined>(key, undefined, `null or an array of ${count} numbers`, valid)
  }

  /** One integer for every level, or an array with one for each. */
  perLevel(key: string, fallback: number, levels: number): readonly number[] {
    const value = this.check<unknown>(
      key,
      fallback,
      `a positive integer or an array of ${levels} of them`,
      (v) => isInteger(v, 1) || (isArrayOf(v, (e) => isInteger(e, 1)) && v.length === levels)
    )
    return typeof value === 'number' ? Array.from({ length: levels }, () => value) : (value as number[])
  }

  /** diffusers' sample_size: one side or [height, width]; undefined for null and a missing field. */
  size(key: string): { height: number; width: number } | undefined {
    const value = this.json[key] ?? undefined
    if (value === undefined) return undefined
    if (isInteger(value, 1)) return { height: value, width: value }
    if (isArrayOf(value, (e) => isInteger(e, 1)) && value.length === 2)
      return { height: value[0] as number, width: value[1] as number }
    throw this.wrong(key, 'a positive integer or two of them')
  }
}

export const isInteger = (value: unknown, minimum: number): value is number =>
  Number.isInteger(value) && (value as number) >= minimum && (value as number) <= largest

export const isArrayOf = (value: unknown, element: (e: unknown) => boolean): value is unknown[] =>
  Array.isArray(value) && value.every(element)
