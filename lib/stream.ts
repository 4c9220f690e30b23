/** A call as an iterator over its steps. */
import type { GenerationResult } from './txt2img.js'
import type { StepEvent } from './txt2img-options.js'

/** What `for await (const e of pipe.stream(…))` yields: the steps, and at the end the result. */
export type StreamEvent =
  ({ readonly type: 'step' } & StepEvent) | { readonly type: 'result'; readonly result: GenerationResult }

interface Listening {
  readonly signal?: AbortSignal
  readonly onStep?: (event: StepEvent) => void
}

/** @param run begins the call with this signal and this listener. Leaving the loop early ends it. */
export async function* streamCall(
  options: Listening,
  run: (o: { signal: AbortSignal; onStep: (event: StepEvent) => void }) => Promise<GenerationResult>
): AsyncGenerator<StreamEvent, void, undefined> {
  const queue: StreamEvent[] = []
  let wake = (): void => {}
  let failure: { error: unknown } | undefined
  let done = false
  const stop = new AbortController()
  const signal = options.signal ? AbortSignal.any([options.signal, stop.signal]) : stop.signal
  const onStep = (event: StepEvent): void => {
    options.onStep?.(event)
    queue.push({ type: 'step', ...event })
    wake()
  }
  const ended = run({ signal, onStep })
    .then((result) => void queue.push({ type: 'result', result }))
    .catch((error: unknown) => void (failure = { error }))
    .finally(() => {
      done = true
      wake()
    })
  try {
    for (;;) {
      while (queue.length) yield queue.shift()!
      if (failure) throw failure.error
      if (done) return
      await new Promise<void>((resolve) => (wake = resolve))
    }
  } finally {
    stop.abort()
    await ended
  }
}
