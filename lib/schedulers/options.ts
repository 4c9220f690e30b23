/** Config schemas: what each scheduler class takes, its defaults and its checks; types are derived from the schema. */
import { invalidArgument } from '../errors.js'

/** One constructor option: diffusers' default, and a parser that gives undefined for a value it does not accept. */
export interface Field<T> {
  readonly default: T
  readonly expected: string
  readonly parse: (value: unknown) => T | undefined
}
export type Schema = Readonly<Record<string, Field<unknown>>>
/** The complete config, every option with its value. */
export type ValuesOf<S extends Schema> = { readonly [K in keyof S]: S[K] extends Field<infer T> ? T : never }
/** What the constructor takes: any part of the config. */
export type ConfigOf<S extends Schema> = { readonly [K in keyof S]?: ValuesOf<S>[K] | undefined }

const field = <T>(initial: T, expected: string, parse: (value: unknown) => T | undefined): Field<T> => ({
  default: initial,
  expected,
  parse
})

const finite = (value: unknown): number | undefined =>
  typeof value === 'number' && Number.isFinite(value) ? value : undefined

export const number = (initial: number): Field<number> => field(initial, 'a finite number', finite)

export const positive = (initial: number): Field<number> =>
  field(initial, 'a number above 0', (v) => (finite(v) !== undefined && (v as number) > 0 ? (v as number) : undefined))

/** Far above all that anybody trains: tables are as long as numTrainTimesteps says, and a broken config must not fill memory. */
const largest = 1_000_000

export const integer = (initial: number, smallest = 0): Field<number> =>
  field(initial, `an integer of at least ${smallest} and at most ${largest}`, (v) =>
    Number.isInteger(v) && (v as number) >= smallest && (v as number) <= largest ? (v as number) : undefined
  )

/** As `number`, with the infinities: diffusers' default of lambda_min_clipped is −Infinity. */
export const extended = (initial: number): Field<number> =>
  field(initial, 'a number', (v) => (typeof v === 'number' && !Number.isNaN(v) ? v : undefined))

export const flag = (initial: boolean): Field<boolean> =>
  field(initial, 'a boolean', (v) => (typeof v === 'boolean' ? v : undefined))

/** One of `values`; `aliases` are other classes' words that diffusers translates when a config is taken over. */
export const choice = <const T extends string>(
  initial: T,
  values: readonly T[],
  aliases: Readonly<Record<string, T>> = {}
): Field<T> =>
  field<T>(initial, `one of ${values.map((v) => `'${v}'`).join(', ')}`, (v) => {
    if (typeof v !== 'string') return undefined
    return values.includes(v as T) ? (v as T) : Object.hasOwn(aliases, v) ? aliases[v] : undefined
  })

/** Null (diffusers' None) is allowed and is the default. */
export const maybe = <T>(inner: Field<T>): Field<T | null> =>
  field<T | null>(null, `${inner.expected}, or null`, (v) => (v === null ? null : inner.parse(v)))

export const numbers: Field<readonly number[]> = field<readonly number[]>([], 'a list of finite numbers', (v) =>
  Array.isArray(v) && v.every((x) => finite(x) !== undefined) ? Object.freeze(v.slice() as number[]) : undefined
)

export const integers: Field<readonly number[]> = field<readonly number[]>([], 'a list of integers', (v) =>
  Array.isArray(v) && v.every((x) => Number.isSafeInteger(x)) ? Object.freeze(v.slice() as number[]) : undefined
)

/** A function of one number; only from code, never from JSON. */
export const fn: Field<((t: number) => number) | null> = field<((t: number) => number) | null>(
  null,
  'a function of the timestep, or null',
  (v) => (v === null ? null : typeof v === 'function' ? (v as (t: number) => number) : undefined)
)

/** Checks `given` against the schema. Throws ERR_ND_INVALID_ARGUMENT for unknown options (the known ones listed) and bad values. */
export const resolveOptions = <S extends Schema>(className: string, schema: S, given: unknown): ValuesOf<S> => {
  if (typeof given !== 'object' || given === null || Array.isArray(given))
    throw invalidArgument(`the options of ${className}`, 'an object', given)
  const values: Record<string, unknown> = {}
  for (const [name, entry] of Object.entries(schema)) values[name] = entry.default
  for (const [name, value] of Object.entries(given)) {
    const entry = Object.hasOwn(schema, name) ? schema[name] : undefined
    if (!entry)
      throw invalidArgument(`the options of ${className}`, `only the names ${Object.keys(schema).join(', ')}`, name)
    if (value === undefined) continue
    const parsed = entry.parse(value)
    if (parsed === undefined) throw invalidArgument(`${className} option ${name}`, entry.expected, value)
    values[name] = parsed
  }
  return Object.freeze(values) as ValuesOf<S>
}

/** beta_start → betaStart, predict_x0 → predictX0: diffusers' keys as this package spells them. */
export const camelCase = (key: string): string => key.replace(/_([a-z0-9])/g, (_, c: string) => c.toUpperCase())
export const snakeCase = (key: string): string => key.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`)
