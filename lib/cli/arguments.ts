/** Values of command-line options. */
import { InvalidArgumentError } from 'commander'

export const numberArgument = (text: string): number => {
  const value = Number(text)
  if (text.trim() === '' || !Number.isFinite(value)) throw new InvalidArgumentError('Expected a number.')
  return value
}

export const integerArgument = (text: string): number => {
  const value = numberArgument(text)
  if (!Number.isSafeInteger(value)) throw new InvalidArgumentError('Expected an integer.')
  return value
}

export const integersArgument = (text: string): number[] => text.split(',').map(integerArgument)

export const countArgument = (text: string): number => {
  const value = integerArgument(text)
  if (value < 1) throw new InvalidArgumentError('Expected an integer of at least 1.')
  return value
}

/** Seeds go up to 2⁶⁴ − 1, beyond what a number holds. */
export const seedArgument = (text: string): bigint => {
  if (!/^\d+$/.test(text) || BigInt(text) >= 1n << 64n)
    throw new InvalidArgumentError('Expected an integer from 0 to 2^64 - 1.')
  return BigInt(text)
}

/** FILE.safetensors:REST; a file of another kind has nothing behind it. */
const fileAnd = (text: string): { path: string; rest: string | undefined } => {
  const match = /^(.+?\.safetensors):(.*)$/i.exec(text)
  return match ? { path: match[1]!, rest: match[2]! } : { path: text, rest: undefined }
}

/** FILE[:STRENGTH], once more. */
export const loraArgument = (
  text: string,
  before: readonly { path: string; strength?: number }[] = []
): { path: string; strength?: number }[] => {
  const { path, rest } = fileAnd(text)
  return [...before, rest === undefined ? { path } : { path, strength: numberArgument(rest) }]
}

/** FILE[:TOKEN], once more. */
export const embeddingArgument = (
  text: string,
  before: readonly { path: string; token?: string }[] = []
): { path: string; token?: string }[] => {
  const { path, rest } = fileAnd(text)
  if (rest === '') throw new InvalidArgumentError('Expected a token behind the colon.')
  return [...before, rest === undefined ? { path } : { path, token: rest }]
}

export const choiceArgument =
  (...choices: string[]) =>
  (text: string): string => {
    if (!choices.includes(text)) throw new InvalidArgumentError(`Expected ${choices.join(' or ')}.`)
    return text
  }

/** Options without those that were not given: the pipeline has the defaults. */
export const given = <T extends object>(options: T): { [K in keyof T]: Exclude<T[K], undefined> } =>
  Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as never

/** For options that may be given several times. */
export const repeated = (value: string, all: string[] = []): string[] => [...all, value]
