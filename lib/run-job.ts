/** Running a native job: its events, its end by a signal or by a listener that throws. */
import { translated, type NativeResult, type NativeStepEvent } from './binding.js'
import { DiffusionImage } from './image.js'
import type { StepEvent } from './txt2img-options.js'

/** A batch's RGB bytes [images, height, width, 3] as pictures. */
export const splitPictures = (pixels: Uint8Array, width: number, height: number): DiffusionImage[] => {
  const each = width * height * 3
  return Array.from(
    { length: pixels.length / each },
    (_, i) => new DiffusionImage({ data: pixels.slice(i * each, (i + 1) * each), width, height })
  )
}

interface CallParts {
  readonly width: number
  readonly height: number
  readonly signal?: AbortSignal | undefined
  readonly onStep?: ((event: StepEvent) => void) | undefined
}

const stepEvent = (event: NativeStepEvent, o: CallParts): StepEvent => {
  const { step, steps, timestep, latents, predictedNoise, predictedOriginal } = event
  const images = event.preview ? splitPictures(event.preview, o.width, o.height) : undefined
  return {
    evaluation: event.row + 1,
    step,
    steps,
    timestep,
    ...(latents && predictedNoise && predictedOriginal ? { latents, predictedNoise, predictedOriginal } : {}),
    ...(images ? { images, image: images[0]! } : {})
  }
}

/** @param start begins the job. A listener that throws ends the call with its error. */
export const runJob = async (
  o: CallParts,
  start: (onStep?: (event: NativeStepEvent) => void) => { promise: Promise<NativeResult>; abort(): void }
): Promise<NativeResult> => {
  let thrown: { error: unknown } | undefined
  const listener = o.onStep
  const onStep = (event: NativeStepEvent): void => {
    if (thrown || o.signal?.aborted) return
    try {
      listener?.(stepEvent(event, o))
    } catch (error) {
      thrown = { error }
      running.abort()
    }
  }
  const running = start(listener ? onStep : undefined)
  const abort = (): void => running.abort()
  o.signal?.addEventListener('abort', abort, { once: true })
  let result
  try {
    result = await running.promise
  } catch (error) {
    o.signal?.throwIfAborted()
    throw thrown ? thrown.error : translated(error)
  } finally {
    o.signal?.removeEventListener('abort', abort)
  }
  if (thrown) throw thrown.error
  return result
}
