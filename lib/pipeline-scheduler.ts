/** The scheduler that a pipeline begins with. */
import { invalidArgument } from './errors.js'
import type { ModelFolder } from './models/folder.js'
import { partsOf } from './models/pipeline-classes.js'
import { createScheduler, Scheduler } from './schedulers/index.js'

export const checkScheduler = (value: unknown): Scheduler => {
  if (!(value instanceof Scheduler))
    throw invalidArgument('scheduler', 'a scheduler instance, class name or label', value)
  return value as Scheduler
}

/** The model's own, corrected as its pipeline class does, or the choice with the model's settings. */
export const chooseScheduler = (
  choice: Scheduler | string | undefined,
  folder: Pick<ModelFolder, 'className' | 'scheduler'>
): Scheduler => {
  if (choice !== undefined && typeof choice !== 'string') return checkScheduler(choice)
  const config = { ...folder.scheduler.config, _class_name: folder.scheduler.className }
  const make = (corrections: object): Scheduler =>
    choice === undefined
      ? createScheduler({ ...config, ...corrections })
      : createScheduler(choice, { ...config, ...corrections })
  const scheduler = make({})
  // As some pipelines of diffusers correct configs that are older than these fields.
  const { corrected } = partsOf(folder.className)
  if (!corrected) return scheduler
  const { stepsOffset, clipSample, skipPrkSteps } = scheduler.config as {
    stepsOffset?: number
    clipSample?: boolean
    skipPrkSteps?: boolean
  }
  const corrections = {
    ...(stepsOffset !== undefined && stepsOffset !== 1 ? { steps_offset: 1 } : {}),
    ...(clipSample && corrected === 'clipSample' ? { clip_sample: false } : {}),
    ...(skipPrkSteps === false && corrected === 'skipPrkSteps' ? { skip_prk_steps: true } : {})
  }
  return Object.keys(corrections).length ? make(corrections) : scheduler
}
