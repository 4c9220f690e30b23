import { DiffusionError, type ErrorCode } from 'node-diffusion'
import * as assert from 'uvu/assert'

/** The call must reject with a DiffusionError of this code whose message matches. */
export const fails = async (run: () => Promise<unknown>, code: ErrorCode, words: RegExp): Promise<void> => {
  try {
    await run()
  } catch (error) {
    assert.instance(error, DiffusionError)
    const e = error as DiffusionError
    assert.is(e.code, code, e.message)
    assert.match(e.message, words)
    return
  }
  assert.unreachable(`expected an error ${code}`)
}
