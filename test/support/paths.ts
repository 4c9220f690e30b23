import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** The project's root: this file runs from build/test/support. */
export const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..')
export const reference = (...parts: string[]): string => join(root, 'test', 'reference', ...parts)
export const postcard = join(root, 'models', 'postcard')
