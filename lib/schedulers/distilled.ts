/** The timesteps of consistency-distilled models (LCM, TCD): a selection from the schedule of the distillation. */
import { invalidArgument } from '../errors.js'
import { linspace } from './numerics.js'
import { checkFalling, type PlanOptions } from './plan-options.js'

/**
 * @param original steps of the distillation's schedule: t = k·T/original − 1.
 * @param dense take every training timestep instead (TCD with an explicit originalInferenceSteps).
 */
export const distilledTimesteps = (
  numTrain: number,
  original: number,
  steps: number,
  options: PlanOptions,
  dense = false
): number[] => {
  if (original > numTrain)
    throw invalidArgument('originalInferenceSteps', `at most ${numTrain} (numTrainTimesteps)`, original)
  const { timesteps, scheduleStrength = 1 } = options
  if (timesteps) {
    checkFalling(timesteps, numTrain)
    const kept = Math.min(Math.floor(timesteps.length * scheduleStrength), timesteps.length)
    return timesteps.slice(timesteps.length - kept)
  }
  const stride = Math.floor(numTrain / original)
  const count = Math.floor((dense ? numTrain : original) * scheduleStrength)
  if (steps > original || count < steps)
    throw invalidArgument(
      'steps',
      `at most ${Math.min(original, count)} (originalInferenceSteps ${original}, strength ${scheduleStrength})`,
      steps
    )
  const falling = Array.from({ length: count }, (_, i) => (dense ? count - 1 - i : (count - i) * stride - 1))
  return linspace(0, count, steps, false).map((i) => falling[Math.floor(i)]!)
}
