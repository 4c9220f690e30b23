/** AUTOMATIC1111's variations of a seed: their options, checks and names in `parameters` texts. */
import type { NativeGenerateJob } from './binding.js'
import { invalidArgument } from './errors.js'
import { finite, integerIn, seedOf } from './validate.js'

/** Variations of a seed, and seamless tiles. */
export interface VariationOptions {
  /**
   * Another seed, towards whose noise the initial noise is turned (spherically, column by column). One is one generator
   * continued over all images, an array has one for each image, as `seed`. Default with subseedStrength: a random one.
   */
  subseed?: number | bigint | readonly (number | bigint)[]
  /** How far: 0 (default) is the seed's picture, 1 the subseed's. */
  subseedStrength?: number
  /** Keeps the composition of the size, in pixels, that a seed was found at: its noise lies in the middle. Both or none. */
  seedResizeFromWidth?: number
  seedResizeFromHeight?: number
  /** Pictures that can be laid side by side without a seam: in both directions, or along one; default false. */
  tiling?: boolean | 'x' | 'y'
}

export const variationNames = [
  'subseed',
  'subseedStrength',
  'seedResizeFromWidth',
  'seedResizeFromHeight',
  'tiling'
] as const

export interface ResolvedVariation {
  readonly subseeds: readonly bigint[]
  readonly strength: number
  /** The pixels given, 0 without. */
  readonly fromWidth: number
  readonly fromHeight: number
  readonly tileX: boolean
  readonly tileY: boolean
}

export const resolveVariation = (
  o: VariationOptions & { latents?: unknown },
  batch: number,
  factor: number,
  randomSeed: () => bigint
): ResolvedVariation => {
  const strength = finite('subseedStrength', o.subseedStrength ?? 0, 0, 1)
  let subseeds: bigint[] = []
  if (o.subseed !== undefined || strength > 0) {
    const given = o.subseed ?? randomSeed()
    subseeds = Array.isArray(given) ? given.map((s, i) => seedOf(`subseed[${i}]`, s)) : [seedOf('subseed', given)]
    if (Array.isArray(given) && subseeds.length !== batch)
      throw invalidArgument('subseed', `one subseed or one per image (${batch})`, given)
  }
  const { seedResizeFromWidth, seedResizeFromHeight } = o
  if ((seedResizeFromWidth === undefined) !== (seedResizeFromHeight === undefined))
    throw invalidArgument(
      'seedResizeFromWidth and seedResizeFromHeight',
      'both or none',
      seedResizeFromWidth ?? seedResizeFromHeight
    )
  const resize = seedResizeFromWidth !== undefined
  const fromWidth = resize ? integerIn('seedResizeFromWidth', seedResizeFromWidth, factor, 8192) : 0
  const fromHeight = resize ? integerIn('seedResizeFromHeight', seedResizeFromHeight, factor, 8192) : 0
  if (o.latents !== undefined && (strength > 0 || resize))
    throw invalidArgument('latents', 'no noise of its own where a seed is varied', o.latents)
  const { tiling = false } = o
  if (typeof tiling !== 'boolean' && tiling !== 'x' && tiling !== 'y')
    throw invalidArgument('tiling', "true, false, 'x' or 'y'", tiling)
  return {
    subseeds,
    strength,
    fromWidth,
    fromHeight,
    tileX: tiling === true || tiling === 'x',
    tileY: tiling === true || tiling === 'y'
  }
}

export const nativeVariation = (
  v: ResolvedVariation,
  factor: number
): Pick<NativeGenerateJob, 'variation' | 'tileX' | 'tileY'> => {
  const { tileX, tileY } = v
  const varied = v.strength > 0 || v.fromWidth > 0
  const variation = {
    subseeds: v.strength > 0 ? [...v.subseeds] : [],
    strength: v.strength,
    fromHeight: Math.floor(v.fromHeight / factor),
    fromWidth: Math.floor(v.fromWidth / factor)
  }
  return { tileX, tileY, variation: varied ? variation : undefined }
}

/** Whether image `image`'s seed repaints it next to the same options, the subseed of its place among them. */
export const repaintsAlone = (v: ResolvedVariation, image: number): boolean =>
  v.strength === 0 || v.subseeds.length > 1 || image === 0

export const variationFields = (v: ResolvedVariation, image: number): Record<string, string> => ({
  ...(v.strength > 0
    ? {
        'Variation seed': String(v.subseeds[image] ?? v.subseeds[0]!),
        'Variation seed strength': String(v.strength)
      }
    : {}),
  ...(v.fromWidth > 0 ? { 'Seed resize from': `${v.fromWidth}x${v.fromHeight}` } : {}),
  ...(v.tileX || v.tileY ? { Tiling: v.tileX && v.tileY ? 'True' : v.tileX ? 'x' : 'y' } : {})
})
