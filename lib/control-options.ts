/** The options of ControlNets and T2I-Adapters, in every task that paints: their meaning, defaults and checks. */
import type { NativeGenerateJob } from './binding.js'
import type { ControlNet, T2iAdapter } from './control.js'
import { invalidArgument } from './errors.js'
import { loadImage, type ImageInput, type LoadedImage } from './image.js'
import type { StepPlan } from './step-plan.js'
import { bool, finite, knownKeys } from './validate.js'

/**
 * A ControlNet's picture. With a mask, for ControlNets that inpaint (control_v11p_sd15_inpaint): where it is bright the net
 * is told −1, that there is nothing, instead of a colour.
 */
export type ControlPicture = ImageInput | MaskedPicture
/** A ControlNet's picture and what of it is to be painted anew: the mask, of any size, is resized to the picture's. */
export interface MaskedPicture {
  readonly image: ImageInput
  readonly mask: ImageInput
}

/** One ControlNet in a call. */
export interface Control {
  /** Which one; may be left out where only one is loaded. */
  name?: string
  /** One picture, or one per prompt. */
  image: ControlPicture | readonly ControlPicture[]
  /** controlnet_conditioning_scale; default as there. */
  scale?: number
  /** Share of the steps, 0..1, from which and up to which it works. Default 0 and 1. */
  start?: number
  end?: number
}

/**
 * diffusers' StableDiffusionControlNetPipeline and its kin, and StableDiffusionAdapterPipeline. With several loaded,
 * arrays have one entry for each, in the order of loading.
 */
export interface ControlOptions {
  /**
   * The ControlNet's picture (its edges, depth, pose…), or one per prompt. With several ControlNets one picture for each, or
   * per prompt an array of one for each. Resized to the output; txt2img's size defaults to its own. (diffusers' txt2img
   * calls it `image`.)
   */
  controlImage?: ControlPicture | readonly (ControlPicture | readonly ControlPicture[])[]
  /** How much the ControlNets add. Default 1; as in diffusers 0.8 in img2img and 0.5 in inpaint (SDXL 1). */
  controlnetConditioningScale?: number | readonly number[]
  /** Share of the steps, 0..1, at which they begin (default 0) and end (default 1). */
  controlGuidanceStart?: number | readonly number[]
  controlGuidanceEnd?: number | readonly number[]
  /** ControlNets steer only the branch with the prompt, more in the deeper layers: for empty prompts. Default false. */
  guessMode?: boolean
  /** The same, named: instead of controlImage and the options beside it. */
  control?: readonly Control[]
  /** The T2I-Adapter's picture, or several that divide the batch (image k takes k mod n). With several adapters one for each. */
  adapterImage?: ImageInput | readonly (ImageInput | readonly ImageInput[])[]
  /** How much the adapters add; default 1. */
  adapterConditioningScale?: number | readonly number[]
  /** Share of the steps, 0..1, in which the adapters work, from the first; default 1. */
  adapterConditioningFactor?: number
}

const netNames = [
  'controlImage',
  'controlnetConditioningScale',
  'controlGuidanceStart',
  'controlGuidanceEnd'
] as const satisfies readonly (keyof ControlOptions)[]
const adapterNames = [
  'adapterImage',
  'adapterConditioningScale',
  'adapterConditioningFactor'
] as const satisfies readonly (keyof ControlOptions)[]
export const controlOptionNames = [
  ...netNames,
  'guessMode',
  'control',
  ...adapterNames
] as const satisfies readonly (keyof ControlOptions)[]

/** One ControlNet or adapter of a call, checked and decoded. */
export interface ResolvedControl {
  readonly adapter: boolean
  readonly id: number
  readonly name: string
  readonly pictures: readonly LoadedImage[]
  /** One per picture, or none. */
  readonly masks: readonly LoadedImage[]
  readonly scale: number
  /** It works in rows i of n with i / n ≥ start and (i + 1) / n ≤ end; adapters where i < ⌊n · end⌋. */
  readonly start: number
  readonly end: number
  /** Sides of the output must be multiples of it. */
  readonly multiple: number
}

export interface ResolvedControls {
  readonly controls: readonly ResolvedControl[]
  readonly guess: boolean
}

export interface LoadedControls {
  readonly controlNets: readonly ControlNet[]
  readonly t2iAdapters: readonly T2iAdapter[]
}

/** Whether a call has pictures for ControlNets. */
export const usesControlNet = (o: ControlOptions): boolean => o.controlImage !== undefined || o.control !== undefined

/** Whether a call says anything about them: if not, nothing of this file concerns it. */
export const mentionsControl = (o: ControlOptions): boolean =>
  typeof o === 'object' && o !== null && controlOptionNames.some((name) => o[name] !== undefined)

/** A value for all, or an array with one for each. */
const each = (
  name: string,
  value: unknown,
  count: number,
  what: string,
  check: (name: string, v: unknown) => number
): number[] => {
  if (!Array.isArray(value)) return Array<number>(count).fill(check(name, value))
  if (value.length !== count)
    throw invalidArgument(name, `a number, or one for each of the ${count} loaded ${what}`, value)
  return value.map((v, i) => check(`${name}[${i}]`, v))
}

const share = (name: string, value: unknown): number => finite(name, value, 0, 1)

const loadAll = (images: readonly ImageInput[]): Promise<LoadedImage[]> =>
  Promise.all(images.map((image) => loadImage(image)))

const isMasked = (picture: ControlPicture): picture is MaskedPicture =>
  typeof picture === 'object' && picture !== null && 'mask' in picture

/** Pictures and their masks. */
const loadPictures = async (
  name: string,
  images: readonly ControlPicture[]
): Promise<Pick<ResolvedControl, 'pictures' | 'masks'>> => {
  const masked = images.filter(isMasked)
  for (const one of masked) knownKeys(name, one, ['image', 'mask'])
  if (masked.length > 0 && masked.length < images.length)
    throw invalidArgument(name, 'a mask with every picture, or with none', `${masked.length} masks`)
  const [pictures, masks] = await Promise.all([
    loadAll(images.map((one) => (isMasked(one) ? one.image : one))),
    loadAll(masked.map(({ mask }) => mask))
  ])
  return { pictures, masks }
}

const someOf = <T = ControlPicture>(name: string, value: unknown): T[] => {
  if (value === undefined || value === null) throw invalidArgument(name, 'a picture', value)
  const list = Array.isArray(value) ? (value as T[]) : [value as T]
  if (list.length === 0 || list.some((v) => Array.isArray(v)))
    throw invalidArgument(name, 'a picture, or several', value)
  return list
}

/** diffusers' rules for images: pictures by ControlNet. */
const controlImages = (value: ControlOptions['controlImage'], count: number): ControlPicture[][] => {
  const name = 'controlImage'
  if (count === 1) {
    // One for all prompts, or one per prompt; per prompt it may stand in an array of its own.
    const list = Array.isArray(value) ? (value as unknown[]) : [value]
    const flat = list.every((v) => Array.isArray(v) && v.length === 1) ? list.map((v) => (v as unknown[])[0]) : list
    return [someOf(name, flat)]
  }
  if (!Array.isArray(value))
    throw invalidArgument(name, `an array of ${count} pictures, one for each loaded ControlNet,`, value)
  const perPrompt = (value as unknown[]).some((v) => Array.isArray(v))
  const rows = (perPrompt ? value : [value]) as unknown[]
  for (const row of rows)
    if (!Array.isArray(row) || row.length !== count)
      throw invalidArgument(
        name,
        `${count} pictures${perPrompt ? ' per prompt' : ''}, one for each loaded ControlNet (${count}),`,
        row
      )
  return Array.from({ length: count }, (_, i) => (rows as ControlPicture[][]).map((row) => row[i]!))
}

const checkWindow = (name: string, start: number, end: number): void => {
  if (!(start < end)) throw invalidArgument(name, `a start below the end (${end})`, start)
}

/** controlnet_conditioning_scale where none is given, as diffusers' pipelines have it. */
const defaultScale = (task: 'txt2img' | 'img2img' | 'inpaint', xl: boolean): number =>
  task === 'img2img' ? 0.8 : task === 'inpaint' && !xl ? 0.5 : 1

const controlList = (
  o: ControlOptions,
  nets: readonly ControlNet[],
  scale: number
): { net: ControlNet; images: ControlPicture[]; scale: number; start: number; end: number }[] => {
  if (o.control !== undefined) {
    for (const name of netNames)
      if (o[name] !== undefined) throw invalidArgument(name, 'nothing next to control, which has its own,', o[name])
    if (!Array.isArray(o.control))
      throw invalidArgument('control', 'an array of { name, image, scale, start, end }', o.control)
    return o.control.map((c: Control, i) => {
      const at = `control[${i}]`
      if (typeof c !== 'object' || c === null) throw invalidArgument(at, 'an object { name, image, … }', c)
      knownKeys(at, c, ['name', 'image', 'scale', 'start', 'end'])
      const net = c.name === undefined && nets.length === 1 ? nets[0] : nets.find((n) => n.name === c.name)
      if (!net)
        throw invalidArgument(
          `${at}.name`,
          `one of the loaded ControlNets ${nets.map((n) => `'${n.name}'`).join(', ')}`,
          c.name
        )
      const start = share(`${at}.start`, c.start ?? 0)
      const end = share(`${at}.end`, c.end ?? 1)
      checkWindow(`${at}.start`, start, end)
      return { net, images: someOf(`${at}.image`, c.image), scale: finite(`${at}.scale`, c.scale ?? scale), start, end }
    })
  }
  const images = controlImages(o.controlImage, nets.length)
  const numbers = (
    name: (typeof netNames)[number],
    fallback: number,
    check: (n: string, v: unknown) => number
  ): number[] => each(name, o[name] ?? fallback, nets.length, nets.length === 1 ? 'ControlNet' : 'ControlNets', check)
  const scales = numbers('controlnetConditioningScale', scale, (n, v) => finite(n, v))
  const starts = numbers('controlGuidanceStart', 0, share)
  const ends = numbers('controlGuidanceEnd', 1, share)
  return nets.map((net, i) => {
    checkWindow('controlGuidanceStart', starts[i]!, ends[i]!)
    return { net, images: images[i]!, scale: scales[i]!, start: starts[i]!, end: ends[i]! }
  })
}

const adapterList = (
  o: ControlOptions,
  adapters: readonly T2iAdapter[]
): { adapter: T2iAdapter; images: ImageInput[]; scale: number; end: number }[] => {
  const count = adapters.length
  const given = o.adapterImage
  if (count > 1 && (!Array.isArray(given) || given.length !== count))
    throw invalidArgument('adapterImage', `an array of ${count} pictures, one for each loaded T2I-Adapter,`, given)
  const scales = each(
    'adapterConditioningScale',
    o.adapterConditioningScale ?? 1,
    count,
    count === 1 ? 'T2I-Adapter' : 'T2I-Adapters',
    (n, v) => finite(n, v)
  )
  const end = share('adapterConditioningFactor', o.adapterConditioningFactor ?? 1)
  return adapters.map((adapter, i) => ({
    adapter,
    images: someOf<ImageInput>('adapterImage', count > 1 ? (given as readonly unknown[])[i] : given),
    scale: scales[i]!,
    end
  }))
}

/**
 * Checks what a call says about ControlNets and adapters, and decodes their pictures.
 * @throws ERR_ND_INVALID_ARGUMENT
 */
export const resolveControls = async (
  o: ControlOptions,
  loaded: LoadedControls,
  model: { readonly xl: boolean; readonly factor: number },
  task: 'txt2img' | 'img2img' | 'inpaint'
): Promise<ResolvedControls> => {
  const { controlNets, t2iAdapters } = loaded
  const guessMode = bool('guessMode', o.guessMode ?? false)
  for (const name of [...netNames.slice(1), 'guessMode' as const])
    if (o[name] !== undefined && !usesControlNet(o))
      throw invalidArgument('controlImage', `a picture for ${name}`, o.controlImage)
  for (const name of adapterNames)
    if (o[name] !== undefined && o.adapterImage === undefined)
      throw invalidArgument('adapterImage', `a picture for ${name}`, o.adapterImage)
  if (usesControlNet(o) && controlNets.length === 0)
    throw invalidArgument(o.control ? 'control' : 'controlImage', 'a ControlNet first (loadControlNet)', 'none loaded')
  if (o.adapterImage !== undefined && t2iAdapters.length === 0)
    throw invalidArgument('adapterImage', 'a T2I-Adapter first (loadT2iAdapter)', 'none loaded')
  const nets = usesControlNet(o) ? controlList(o, controlNets, defaultScale(task, model.xl)) : []
  const adapters = o.adapterImage === undefined ? [] : adapterList(o, t2iAdapters)
  const controls = await Promise.all([
    ...nets.map(async ({ net, images, scale, start, end }): Promise<ResolvedControl> => {
      const { id, name } = net
      const loaded = await loadPictures('controlImage', images)
      return { adapter: false, id, name, ...loaded, scale, start, end, multiple: model.factor }
    }),
    ...adapters.map(async ({ adapter, images, scale, end }): Promise<ResolvedControl> => {
      const { id, name, config } = adapter
      const multiple = config.downscaleFactor
      return { adapter: true, id, name, pictures: await loadAll(images), masks: [], scale, start: 0, end, multiple }
    })
  ])
  // As diffusers: the first of several decides.
  const guess = nets.length > 0 && (guessMode || nets[0]!.net.config.globalPool)
  return { controls, guess }
}

/** txt2img's size where none is given: the first picture's own, rounded down. */
export const controlSize = ({ controls }: ResolvedControls): { width: number; height: number } | undefined => {
  const first = controls[0]
  if (!first) return undefined
  const [{ width, height }] = first.pictures as [LoadedImage]
  const multiple = Math.max(...controls.map((c) => c.multiple))
  if (width < multiple || height < multiple)
    throw invalidArgument(
      first.adapter ? 'adapterImage' : 'controlImage',
      `at least ${multiple} × ${multiple} pixels`,
      `${width} × ${height}`
    )
  return { width: width - (width % multiple), height: height - (height % multiple) }
}

interface Call {
  readonly prompts: readonly string[]
  readonly count: number
  readonly batch: number
  readonly width: number
  readonly height: number
}

/** ControlNets: one picture, or one per prompt, for all of its images. Adapters: image k takes picture k mod n. */
const pictureOf = (control: ResolvedControl, o: Call): Int32Array => {
  const n = control.pictures.length
  if (control.adapter) {
    if (o.batch % n)
      throw invalidArgument('adapterImage', `one picture, or a number that divides the batch (${o.batch} images)`, n)
    return Int32Array.from({ length: o.batch }, (_, k) => k % n)
  }
  if (n !== 1 && n !== o.prompts.length)
    throw invalidArgument('controlImage', `one picture, or one per prompt (${o.prompts.length})`, n)
  return Int32Array.from({ length: o.batch }, (_, k) => (n === 1 ? 0 : Math.floor(k / o.count)))
}

/** The native job's part. @throws ERR_ND_INVALID_ARGUMENT where numbers of pictures or sizes do not go with the call */
export const controlInputs = (
  { controls, guess }: ResolvedControls,
  o: Call
): Pick<NativeGenerateJob, 'controls' | 'guess'> => {
  for (const { adapter, multiple } of controls)
    for (const side of ['width', 'height'] as const)
      if (adapter && o[side] % multiple)
        throw invalidArgument(side, `a multiple of ${multiple}, as the T2I-Adapter needs,`, o[side])
  return {
    controls: controls.map((c) => ({
      id: c.id,
      adapter: c.adapter,
      pictures: c.pictures,
      masks: c.masks.length ? c.masks : undefined,
      pictureOf: pictureOf(c, o)
    })),
    guess
  }
}

/** The plan with the strength of every control in every row: 0 outside of its window. */
export const withControlScales = (plan: StepPlan, { controls }: ResolvedControls): StepPlan => {
  const n = plan.rows.length
  const works = (c: ResolvedControl, i: number): boolean =>
    c.adapter ? i < Math.floor(n * c.end) : !(i / n < c.start || (i + 1) / n > c.end)
  return {
    ...plan,
    rows: plan.rows.map((row, i) => ({ ...row, controlScales: controls.map((c) => (works(c, i) ? c.scale : 0)) }))
  }
}

/** Fields of a picture's parameters, as AUTOMATIC1111's ControlNet extension writes them. */
export const controlParameters = ({ controls, guess }: ResolvedControls): Record<string, string> =>
  Object.fromEntries(
    controls.map((c, i) => [
      `ControlNet ${i}`,
      [
        'Module: none',
        `Model: ${c.name}`,
        `Weight: ${c.scale}`,
        `Guidance Start: ${c.start}`,
        `Guidance End: ${c.end}`,
        `Control Mode: ${guess && !c.adapter ? 'ControlNet is more important' : 'Balanced'}`
      ].join(', ')
    ])
  )
