import { readFileSync } from 'node:fs'

/** From package.json, two folders above dist/cli. */
export const packageVersion = (): string =>
  (JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string }).version
