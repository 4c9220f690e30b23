/** The registry of schedulers. */
import { invalidArgument } from '../errors.js'
import { DDIMScheduler } from './ddim.js'
import { DDPMScheduler } from './ddpm.js'
import { DPMSolverMultistepScheduler } from './dpm-solver-multistep.js'
import { EulerAncestralDiscreteScheduler } from './euler-ancestral-discrete.js'
import { EulerDiscreteScheduler } from './euler-discrete.js'
import { labelSettings, parseLabel, unknownScheduler } from './labels.js'
import { LCMScheduler } from './lcm.js'
import { camelCase } from './options.js'
import { PNDMScheduler } from './pndm.js'
import { LMSDiscreteScheduler } from './lms-discrete.js'
import { HeunDiscreteScheduler } from './heun-discrete.js'
import { KDPM2DiscreteScheduler } from './k-dpm-2-discrete.js'
import { KDPM2AncestralDiscreteScheduler } from './k-dpm-2-ancestral-discrete.js'
import { DPMSolverSinglestepScheduler } from './dpm-solver-singlestep.js'
import { DEISMultistepScheduler } from './deis-multistep.js'
import { TCDScheduler } from './tcd.js'
import { IPNDMScheduler } from './ipndm.js'
import { SASolverScheduler } from './sa-solver.js'
import { EDMEulerScheduler } from './edm-euler.js'
import { EDMDPMSolverMultistepScheduler } from './edm-dpm-solver-multistep.js'
import { CMStochasticIterativeScheduler } from './cm-stochastic-iterative.js'
import { UnCLIPScheduler } from './unclip.js'
import { FlowMatchEulerDiscreteScheduler } from './flow-match-euler-discrete.js'
import { FlowMatchHeunDiscreteScheduler } from './flow-match-heun-discrete.js'
import { DDIMInverseScheduler } from './ddim-inverse.js'
import { DPMSolverMultistepInverseScheduler } from './dpm-solver-multistep-inverse.js'
import { Scheduler, type SchedulerClass } from './scheduler.js'
import { UniPCMultistepScheduler } from './unipc-multistep.js'

export { Scheduler, type SchedulerClass } from './scheduler.js'
export type { PlanOptions } from './plan-options.js'
export { parseConfigJson } from '../json.js'
export { samplerLabels } from './labels.js'
export { DDIMScheduler, type DDIMConfig } from './ddim.js'
export { DDPMScheduler, type DDPMConfig } from './ddpm.js'
export { DPMSolverMultistepScheduler, type DPMSolverMultistepConfig } from './dpm-solver-multistep.js'
export { EulerAncestralDiscreteScheduler, type EulerAncestralDiscreteConfig } from './euler-ancestral-discrete.js'
export { EulerDiscreteScheduler, type EulerDiscreteConfig } from './euler-discrete.js'
export { LCMScheduler, type LCMConfig } from './lcm.js'
export { PNDMScheduler, type PNDMConfig } from './pndm.js'
export { LMSDiscreteScheduler, type LMSDiscreteConfig } from './lms-discrete.js'
export { HeunDiscreteScheduler, type HeunDiscreteConfig } from './heun-discrete.js'
export { KDPM2DiscreteScheduler, type KDPM2DiscreteConfig } from './k-dpm-2-discrete.js'
export { KDPM2AncestralDiscreteScheduler, type KDPM2AncestralDiscreteConfig } from './k-dpm-2-ancestral-discrete.js'
export { DPMSolverSinglestepScheduler, type DPMSolverSinglestepConfig } from './dpm-solver-singlestep.js'
export { DEISMultistepScheduler, type DEISMultistepConfig } from './deis-multistep.js'
export { TCDScheduler, type TCDConfig } from './tcd.js'
export { IPNDMScheduler, type IPNDMConfig } from './ipndm.js'
export { SASolverScheduler, type SASolverConfig } from './sa-solver.js'
export { EDMEulerScheduler, type EDMEulerConfig } from './edm-euler.js'
export { EDMDPMSolverMultistepScheduler, type EDMDPMSolverMultistepConfig } from './edm-dpm-solver-multistep.js'
export { CMStochasticIterativeScheduler, type CMStochasticIterativeConfig } from './cm-stochastic-iterative.js'
export { UnCLIPScheduler, type UnCLIPConfig } from './unclip.js'
export { FlowMatchEulerDiscreteScheduler, type FlowMatchEulerDiscreteConfig } from './flow-match-euler-discrete.js'
export { FlowMatchHeunDiscreteScheduler, type FlowMatchHeunDiscreteConfig } from './flow-match-heun-discrete.js'
export { DDIMInverseScheduler, type DDIMInverseConfig } from './ddim-inverse.js'
export {
  DPMSolverMultistepInverseScheduler,
  type DPMSolverMultistepInverseConfig
} from './dpm-solver-multistep-inverse.js'
export { UniPCMultistepScheduler, type UniPCMultistepConfig } from './unipc-multistep.js'

type AnyClass = SchedulerClass & {
  fromConfig: (json: Readonly<Record<string, unknown>>, overrides?: Readonly<Record<string, unknown>>) => Scheduler
}

/** Every class by diffusers' name. */
export const schedulerClasses: ReadonlyMap<string, AnyClass> = new Map(
  (
    [
      DDIMScheduler,
      DDPMScheduler,
      PNDMScheduler,
      EulerDiscreteScheduler,
      EulerAncestralDiscreteScheduler,
      DPMSolverMultistepScheduler,
      UniPCMultistepScheduler,
      LCMScheduler,
      LMSDiscreteScheduler,
      HeunDiscreteScheduler,
      KDPM2DiscreteScheduler,
      KDPM2AncestralDiscreteScheduler,
      DPMSolverSinglestepScheduler,
      DEISMultistepScheduler,
      TCDScheduler,
      IPNDMScheduler,
      SASolverScheduler,
      EDMEulerScheduler,
      EDMDPMSolverMultistepScheduler,
      CMStochasticIterativeScheduler,
      UnCLIPScheduler,
      FlowMatchEulerDiscreteScheduler,
      FlowMatchHeunDiscreteScheduler,
      DDIMInverseScheduler,
      DPMSolverMultistepInverseScheduler
    ] as unknown as AnyClass[]
  ).map((c) => [c.className, c])
)

/** A key that some class has: a config taken over from another class may hold it without a warning. */
const isKnown = (key: string): boolean =>
  [...schedulerClasses.values()].some((c) => Object.hasOwn(c.options, camelCase(key)))

/**
 * Makes a scheduler.
 * @param spec a diffusers class name, an AUTOMATIC1111 label ('DPM++ 2M Karras'), a diffusers config (snake_case, with
 *   `_class_name` or `class`), or a scheduler (returned as it is).
 * @param baseConfig diffusers config of the model's own scheduler: its β schedule, prediction type and so on are taken
 *   over, as `Class.from_config(pipe.scheduler.config)` would.
 * @throws ERR_ND_INVALID_ARGUMENT for an unknown name (the known ones are listed) or a bad value.
 */
export const createScheduler = (
  spec: string | Readonly<Record<string, unknown>> | Scheduler,
  baseConfig: Readonly<Record<string, unknown>> = {}
): Scheduler => {
  if (spec instanceof Scheduler) return spec
  if (typeof spec === 'string') {
    const scheduler = fromName(spec, baseConfig)
    scheduler.warnings.splice(0, Infinity, ...unknownKeys(scheduler, baseConfig))
    return scheduler
  }
  if (typeof spec !== 'object' || spec === null || Array.isArray(spec))
    throw invalidArgument('scheduler', 'a class name, a label or a diffusers config', spec)
  const name = spec['_class_name'] ?? spec['class'] ?? baseConfig['_class_name'] ?? baseConfig['class']
  if (typeof name !== 'string') throw invalidArgument('_class_name of the scheduler config', 'a class name', name)
  return classNamed(name).fromConfig({ ...baseConfig, ...spec })
}

const classNamed = (name: string): AnyClass => {
  const found = schedulerClasses.get(name)
  if (!found) throw unknownScheduler(name, [...schedulerClasses.keys()])
  return found
}

const fromName = (name: string, base: Readonly<Record<string, unknown>>): Scheduler => {
  const found = schedulerClasses.get(name)
  if (found) return found.fromConfig(base)
  const label = parseLabel(name)
  if (!label) throw unknownScheduler(name, [...schedulerClasses.keys()])
  const labelled = classNamed(label.sampler.className)
  return labelled.fromConfig(base, labelSettings(label, labelled.options))
}

/** Base keys that no class has. */
const unknownKeys = (scheduler: Scheduler, base: Readonly<Record<string, unknown>>): string[] => {
  const unknown = Object.keys(base).filter((key) => !key.startsWith('_') && key !== 'class' && !isKnown(key))
  return unknown.length
    ? [`${scheduler.className} does not use the config ${unknown.length > 1 ? 'keys' : 'key'} ${unknown.join(', ')}`]
    : []
}
