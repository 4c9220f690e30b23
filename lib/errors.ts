/** Errors of this package: each says what was expected, what came and what to do, and has a stable `code`. */

export type ErrorCode =
  | 'ERR_ND_INVALID_ARGUMENT'
  | 'ERR_ND_MODEL_NOT_FOUND'
  | 'ERR_ND_MODEL_FORMAT'
  | 'ERR_ND_UNSUPPORTED'
  | 'ERR_ND_DOWNLOAD'
  | 'ERR_ND_ACCESS'
  | 'ERR_ND_QUEUE_FULL'
  | 'ERR_ND_CLOSED'
  | 'ERR_ND_UNAVAILABLE'
  | 'ERR_ND_OUT_OF_MEMORY'
  | 'ERR_ND_DISPOSED'
  | 'ERR_ND_ABORTED'
  | 'ERR_ND_NO_BINARY'
  | 'ERR_ND_CUDA_UNAVAILABLE'
  | 'ERR_ND_INTERNAL'

/** Every error of this package: a stable `code`, and a message that says what was expected, what came and what to do. */
export class DiffusionError extends Error {
  override readonly name = 'DiffusionError'
  constructor(
    readonly code: ErrorCode,
    message: string,
    options?: ErrorOptions
  ) {
    super(message, options)
  }
}

const describe = (value: unknown): string => {
  if (value === null || value === undefined) return String(value)
  if (typeof value === 'string')
    return `${JSON.stringify(value.length > 60 ? value.slice(0, 57) + '...' : value)} of type string`
  if (typeof value === 'object')
    return Array.isArray(value) ? `an array of ${value.length}` : `an object (${value.constructor?.name ?? 'no class'})`
  return `${String(value)} of type ${typeof value}`
}

/** "Expected EXPECTED for NAME but received VALUE": the one form of argument errors. */
export const invalidArgument = (name: string, expected: string, value: unknown): DiffusionError =>
  new DiffusionError('ERR_ND_INVALID_ARGUMENT', `Expected ${expected} for ${name} but received ${describe(value)}`)

export const unsupported = (message: string): DiffusionError => new DiffusionError('ERR_ND_UNSUPPORTED', message)

export const modelFormat = (message: string): DiffusionError => new DiffusionError('ERR_ND_MODEL_FORMAT', message)
