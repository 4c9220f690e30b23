/** AUTOMATIC1111's sampler names and schedule types, as class names and options. */
import { DiffusionError } from '../errors.js'
import type { Schema } from './options.js'

export interface SamplerLabel {
  readonly label: string
  readonly className: string
  readonly settings: Readonly<Record<string, unknown>>
}

const sampler = (label: string, className: string, settings: Record<string, unknown> = {}): SamplerLabel => ({
  label,
  className,
  settings
})
const multistep = (label: string, settings: Record<string, unknown>): SamplerLabel =>
  sampler(label, 'DPMSolverMultistepScheduler', { solverOrder: 2, solverType: 'midpoint', ...settings })

/** Only names whose method is the class's own; the others are in `nearest`. */
export const samplerLabels: readonly SamplerLabel[] = [
  sampler('Euler', 'EulerDiscreteScheduler'),
  sampler('Euler a', 'EulerAncestralDiscreteScheduler'),
  sampler('LMS', 'LMSDiscreteScheduler'),
  sampler('Heun', 'HeunDiscreteScheduler'),
  sampler('DPM2', 'KDPM2DiscreteScheduler'),
  sampler('DPM2 a', 'KDPM2AncestralDiscreteScheduler'),
  multistep('DPM++ 2M', { algorithmType: 'dpmsolver++' }),
  multistep('DPM++ 2M SDE', { algorithmType: 'sde-dpmsolver++' }),
  multistep('DPM++ 2M SDE Heun', { algorithmType: 'sde-dpmsolver++', solverType: 'heun' }),
  sampler('DDIM', 'DDIMScheduler', { clipSample: false }),
  sampler('DDPM', 'DDPMScheduler', { clipSample: false }),
  sampler('PLMS', 'PNDMScheduler', { skipPrkSteps: true }),
  sampler('UniPC', 'UniPCMultistepScheduler'),
  sampler('DEIS', 'DEISMultistepScheduler'),
  sampler('LCM', 'LCMScheduler'),
  sampler('TCD', 'TCDScheduler')
]

/** Schedule types, as a second word of the label or alone behind it: 'DPM++ 2M Karras'. */
const scheduleTypes: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  Karras: { useKarrasSigmas: true },
  Exponential: { useExponentialSigmas: true },
  Beta: { useBetaSigmas: true },
  'SGM Uniform': { timestepSpacing: 'trailing' },
  Simple: { timestepSpacing: 'trailing' },
  Normal: { timestepSpacing: 'linspace' },
  Uniform: { timestepSpacing: 'linspace' },
  Automatic: {}
}
export const scheduleTypeNames: readonly string[] = Object.keys(scheduleTypes)
const sigmaFlags = ['useKarrasSigmas', 'useExponentialSigmas', 'useBetaSigmas'] as const

/** Methods of k-diffusion that no class here computes, with the nearest that exists. */
const nearest: Readonly<Record<string, string>> = {
  'dpm++ sde': "DPMSolverSinglestepScheduler with algorithmType 'sde-dpmsolver++', or 'DPM++ 2M SDE'",
  'dpm++ 2s a': 'DPMSolverSinglestepScheduler (without the ancestral noise)',
  'dpm++ 3m sde': "DPMSolverMultistepScheduler with solverOrder 3 and algorithmType 'sde-dpmsolver++'",
  'dpm fast': "'DPM++ 2M'",
  'dpm adaptive': "'DPM++ 2M'",
  restart: "'Heun'"
}

const same = (a: string, b: string): boolean => a.toLowerCase() === b.toLowerCase()

/** The sampler and the schedule type of a label, or undefined. The longest sampler name wins ('DPM++ 2M SDE Heun' is no 'Heun'). */
export const parseLabel = (text: string): { sampler: SamplerLabel; scheduleType?: string } | undefined => {
  const name = text.trim().replace(/\s+/g, ' ')
  const exact = samplerLabels.find((s) => same(s.label, name))
  if (exact) return { sampler: exact }
  for (const scheduleType of Object.keys(scheduleTypes)) {
    if (!name.toLowerCase().endsWith(` ${scheduleType.toLowerCase()}`)) continue
    const found = samplerLabels.find((s) => same(s.label, name.slice(0, -scheduleType.length - 1)))
    if (found) return { sampler: found, scheduleType }
  }
  return undefined
}

/** The options that a label stands for in its class. Throws where the class has no such schedule type. */
export const labelSettings = (
  { sampler: { label, className, settings }, scheduleType }: { sampler: SamplerLabel; scheduleType?: string },
  options: Schema
): Record<string, unknown> => {
  const type = scheduleType ? scheduleTypes[scheduleType]! : {}
  const missing = Object.keys(type).find((key) => !Object.hasOwn(options, key))
  if (missing)
    throw new DiffusionError(
      'ERR_ND_INVALID_ARGUMENT',
      `Expected a schedule type that ${label} has for scheduler but received "${scheduleType}": ${className} has no option ${missing}`
    )
  // the label says which sigmas: those of the model's own config do not stay
  const flags = Object.fromEntries(sigmaFlags.filter((f) => Object.hasOwn(options, f)).map((f) => [f, false]))
  return { ...settings, ...flags, ...type }
}

/** What to say about a name that is neither a class nor a label. */
export const unknownScheduler = (name: string, classNames: readonly string[]): DiffusionError => {
  const key = Object.keys(nearest).find((k) => name.toLowerCase().startsWith(k))
  const hint = key ? `; ${name} has no counterpart here, the nearest is ${nearest[key]}` : ''
  return new DiffusionError(
    'ERR_ND_INVALID_ARGUMENT',
    `Expected a scheduler class (${classNames.join(', ')}) or a label (${samplerLabels.map((s) => s.label).join(', ')}, ` +
      `each also with ${Object.keys(scheduleTypes).join(', ')}) for scheduler but received ${JSON.stringify(name)}${hint}`
  )
}

/** The AUTOMATIC1111 name of a class with a config, for metadata; the class name where there is none. */
export const labelOf = (
  className: string,
  config: Readonly<Record<string, unknown>>
): { readonly sampler: string; readonly scheduleType?: string } => {
  const found = samplerLabels.find(
    (s) => s.className === className && Object.entries(s.settings).every(([key, value]) => config[key] === value)
  )
  const type = Object.entries(scheduleTypes).find(([, set]) =>
    sigmaFlags.some((f) => set[f] === true && config[f] === true)
  )?.[0]
  return { sampler: found?.label ?? className, ...(type && { scheduleType: type }) }
}
