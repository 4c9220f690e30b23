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

export const choiceArgument =
  (...choices: string[]) =>
  (text: string): string => {
    if (!choices.includes(text)) throw new InvalidArgumentError(`Expected ${choices.join(' or ')}.`)
    return text
  }

/** Options without those that were not given: the pipeline has the defaults. */
export const given = <T extends object>(options: T): { [K in keyof T]: Exclude<T[K], undefined> } =>
  Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as never
