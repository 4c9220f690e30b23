import { invalidArgument } from './errors.js'
import { finite, knownKeys } from './validate.js'

/**
 * FreeU (Si et al. 2023; diffusers' enable_freeu): better pictures from weighing the decoder's two deepest up blocks anew,
 * at no cost. b1 and b2 multiply half of the backbone's channels, s1 and s2 the lowest frequencies of the skips; 1 leaves
 * both as trained. The authors' values for SD 1.5: s1 0.9, s2 0.2, b1 1.5, b2 1.6; SDXL: 0.9, 0.2, 1.3, 1.4.
 */
export interface FreeU {
  s1: number
  s2: number
  b1: number
  b2: number
}

const names = ['s1', 's2', 'b1', 'b2'] as const

export const checkFreeU = (value: FreeU | undefined): void => {
  if (value === undefined) return
  if (typeof value !== 'object' || value === null) throw invalidArgument('freeU', '{ s1, s2, b1, b2 }', value)
  knownKeys('freeU', value, names)
  for (const name of names) finite(`freeU.${name}`, value[name])
}
