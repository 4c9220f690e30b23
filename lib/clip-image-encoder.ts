/** CLIP's image tower: pictures → embeddings, and how its files are found. */
import { join } from 'node:path'
import { type NativeImageOutput, type NativeSession, translating } from './binding.js'
import type { SessionOwner } from './components.js'
import { invalidArgument } from './errors.js'
import { loadComponent } from './load-component.js'
import { loadImage, type ImageInput } from './image.js'
import {
  parseClipVisionConfig,
  parsePreprocessing,
  type ClipPreprocessing,
  type ClipVisionConfig
} from './models/clip-vision.js'
import { listFolder, readJson } from './models/files.js'
import type { Component } from './models/folder.js'
import { findWeights, type HeaderReader } from './models/weights.js'
import { checkTensor, type Tensor } from './tensor.js'

export interface ImageEncoderFiles extends Component<ClipVisionConfig> {
  readonly preprocessing: ClipPreprocessing
}

/**
 * A folder with config.json and weights of a CLIPVisionModelWithProjection or of a whole CLIPModel, and, if it is there,
 * preprocessor_config.json (else CLIP's own settings for the size that the model sees).
 * @throws ERR_ND_MODEL_NOT_FOUND, ERR_ND_MODEL_FORMAT, ERR_ND_UNSUPPORTED, naming the file
 */
export const readImageEncoder = async (
  folder: string,
  readHeader: HeaderReader,
  variant?: string
): Promise<ImageEncoderFiles> => {
  const names = await listFolder(folder, 'an image encoder')
  const source = join(folder, 'config.json')
  const config = parseClipVisionConfig(await readJson(source, "the image encoder's config"), source)
  const settings = join(folder, 'preprocessor_config.json')
  const json = names.includes('preprocessor_config.json')
    ? await readJson(settings, "the image encoder's preprocessing")
    : undefined
  const preprocessing = parsePreprocessing(json, config.imageSize, settings)
  return { folder, config, preprocessing, weights: await findWeights(folder, 'clip-vision', readHeader, variant) }
}

export const loadImageEncoder = (session: NativeSession, { config, weights }: ImageEncoderFiles): Promise<void> =>
  loadComponent(session, 'imageEncoder', config, weights)

const isTensor = (value: unknown): value is Tensor => typeof value === 'object' && value !== null && 'shape' in value

/** CLIPVisionModelWithProjection and its CLIPImageProcessor. */
export class ImageEncoder {
  constructor(
    private readonly owner: SessionOwner,
    /** Its config.json, resolved. */
    readonly config: Readonly<ClipVisionConfig>,
    /** Its preprocessor_config.json, resolved. */
    readonly preprocessing: Readonly<ClipPreprocessing>
  ) {}

  /**
   * Pictures of any size, or pixels [B, 3, size, size] as the preprocessing leaves them →
   * lastHiddenState [B, 1 + patches, width] (without a norm), pooled [B, width] (the class token, after the norm),
   * projected [B, projection]: the image embeddings; and, where asked for, hiddenStates: what the first layer takes, then
   * what each layer gives.
   * @throws DiffusionError ERR_ND_INVALID_ARGUMENT (a picture that cannot be read, another size), ERR_ND_DISPOSED
   */
  async encode(
    images: ImageInput | readonly ImageInput[] | Tensor,
    options: { hiddenStates?: boolean } = {}
  ): Promise<NativeImageOutput> {
    return this.run(images, options.hiddenStates ? 'all' : 'none')
  }

  /** The last but one of the hidden states, [B, 1 + patches, width]. */
  async penultimate(images: ImageInput | readonly ImageInput[] | Tensor): Promise<Tensor> {
    return (await this.run(images, 'penultimate')).penultimate!
  }

  private async run(
    images: ImageInput | readonly ImageInput[] | Tensor,
    hiddenStates: 'none' | 'penultimate' | 'all'
  ): Promise<NativeImageOutput> {
    if (isTensor(images)) {
      const side = this.config.imageSize
      const pixels = checkTensor('images', images, [null, this.config.channels, side, side])
      return translating(this.owner.session().encodeImages({ pixels, hiddenStates }))
    }
    const list = Array.isArray(images) ? (images as readonly ImageInput[]) : [images as ImageInput]
    if (list.length === 0) throw invalidArgument('images', 'at least one picture', images)
    const pictures = await Promise.all(list.map((one) => loadImage(one)))
    const { preprocessing } = this
    return translating(this.owner.session().encodeImages({ pictures, preprocessing, hiddenStates }))
  }
}
