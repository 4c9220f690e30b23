/** Checks of options; each failure is one sentence: "Expected … for … but received …". */
import { invalidArgument } from './errors.js'

export const integerIn = (name: string, value: unknown, low: number, high: number): number => {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < low || value > high)
    throw invalidArgument(name, `an integer from ${low} to ${high}`, value)
  return value
}

export const finite = (name: string, value: unknown, low = -Infinity, high = Infinity): number => {
  if (typeof value !== 'number' || !Number.isFinite(value) || value < low || value > high) {
    const range =
      Number.isFinite(low) && Number.isFinite(high)
        ? ` from ${low} to ${high}`
        : Number.isFinite(low)
          ? ` of at least ${low}`
          : ''
    throw invalidArgument(name, `a finite number${range}`, value)
  }
  return value
}

export const oneOf = <T extends string>(name: string, value: unknown, allowed: readonly T[]): T => {
  if (typeof value !== 'string' || !allowed.includes(value as T))
    throw invalidArgument(name, allowed.map((a) => `'${a}'`).join(' or '), value)
  return value as T
}

export const bool = (name: string, value: unknown): boolean => {
  if (typeof value !== 'boolean') throw invalidArgument(name, 'true or false', value)
  return value
}

/** [height, width] and the like: two integers. */
export const pairOfIntegers = (name: string, value: unknown): readonly [number, number] => {
  if (!Array.isArray(value) || value.length !== 2 || !value.every((v) => Number.isInteger(v)))
    throw invalidArgument(name, 'two integers', value)
  return value as unknown as readonly [number, number]
}

/** A seed of torch's generators: an integer from 0 to 2⁶⁴ − 1. */
export const seedOf = (name: string, value: unknown): bigint => {
  const ok = typeof value === 'bigint' || (typeof value === 'number' && Number.isSafeInteger(value))
  const seed = ok ? BigInt(value) : -1n
  if (seed < 0n || seed >= 1n << 64n)
    throw invalidArgument(name, 'an integer from 0 to 2^64 − 1 (a bigint beyond 2^53)', value)
  return seed
}

/** Refuses names that no option has: a misspelt option must not be ignored. */
export const knownKeys = (what: string, value: object, known: readonly string[]): void => {
  for (const key of Object.keys(value))
    if (!known.includes(key)) throw invalidArgument(what, `options among ${known.join(', ')}`, key)
}
