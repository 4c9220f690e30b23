/** The parts of a model that adapters change. */
import { isUnconditional, type Component, type ModelFolder, type UnconditionalFolder } from '../models/folder.js'
import type { AdaptableComponent } from './module-names.js'
import type { EncoderTraits } from './textual-inversion.js'

const tensorNames = ({ weights }: Component<unknown>): ReadonlySet<string> =>
  new Set(weights.tensors.map((t) => t.name))

type Folder = ModelFolder | UnconditionalFolder

const clipEncoders = (folder: Folder) =>
  ([folder.textEncoder, folder.textEncoder2] as const)
    .flatMap((encoder, i) => (encoder ? [{ encoder, slot: i as 0 | 1 }] : []))
    .map((entry, index) => ({ ...entry, index })) // as the native session numbers those that are there
    .filter(({ encoder }) => encoder.kind === 'clip-text')

/** The UNet and the text encoders of CLIP's kind, for LoRAs. */
export const adaptableComponents = (folder: Folder): AdaptableComponent[] => [
  ...(isUnconditional(folder)
    ? []
    : [{ component: 'unet', index: 0, slot: 0, tensors: tensorNames(folder.unet) } as const]),
  ...clipEncoders(folder).map(({ index, slot, encoder }): AdaptableComponent => {
    return { component: 'textEncoder', index, slot, tensors: tensorNames(encoder) }
  })
]

/** The text encoders that can learn new tokens. */
export const inversionEncoders = (folder: Folder): EncoderTraits[] =>
  clipEncoders(folder).map(({ index, slot, encoder: { config } }) => {
    return { index, slot, vocabSize: config.vocabSize, width: config.hiddenSize }
  })
