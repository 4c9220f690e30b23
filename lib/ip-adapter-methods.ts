/** What a pipeline does with IP-Adapters: its methods, apart from the rest for their length. */
import { translating } from './binding.js'
import type { ImageEncoder } from './clip-image-encoder.js'
import type { SessionOwner } from './components.js'
import { invalidArgument } from './errors.js'
import { IpAdapters, type IpAdapterInput, type IpAdapterOptions, type IpAdapterScale } from './ip-adapter.js'
import type { ModelFolder } from './models/folder.js'
import type { CheckpointReader } from './models/single-file/checkpoint.js'
import type { Tensor } from './tensor.js'

export abstract class WithIpAdapters {
  protected ipAdapters: IpAdapters | undefined

  /** @throws DiffusionError ERR_ND_DISPOSED, ERR_ND_UNSUPPORTED where the model has no text that pictures could stand beside */
  protected abstract ipAdapterHost(): { owner: SessionOwner; folder: ModelFolder; readHeader: CheckpointReader }

  /**
   * Pictures as prompts: one IP-Adapter or several (.safetensors), in place of those that are loaded; from then on every call
   * needs `ipAdapterImage` or `ipAdapterImageEmbeds`. For SD1, SD2 and SDXL.
   * @throws DiffusionError ERR_ND_MODEL_NOT_FOUND, ERR_ND_MODEL_FORMAT (a tensor that does not fit this model, by name),
   *   ERR_ND_UNSUPPORTED (FaceID), ERR_ND_INVALID_ARGUMENT
   */
  async loadIpAdapter(source: string | readonly string[], options: IpAdapterOptions = {}): Promise<void> {
    const { owner, folder, readHeader } = this.ipAdapterHost()
    this.ipAdapters = await IpAdapters.load(owner, folder, source, options, readHeader, () => {
      this.ipAdapters = undefined
    })
  }

  /** How much the pictures count: one scale for all IP-Adapters, or one for each. */
  setIpAdapterScale(scale: IpAdapterScale | readonly IpAdapterScale[]): void {
    this.loadedIpAdapters().setScale(scale)
  }

  /** What ipAdapterImage becomes, to be kept and given as ipAdapterImageEmbeds: with `guidance` (default) for calls with guidance. */
  async prepareIpAdapterImageEmbeds(
    images: NonNullable<IpAdapterInput['ipAdapterImage']>,
    options: { guidance?: boolean } = {}
  ): Promise<Tensor[]> {
    return this.loadedIpAdapters().embeds(images, options.guidance ?? true)
  }

  /** Ends the use of all IP-Adapters and frees them and the image encoder. */
  async unloadIpAdapter(): Promise<void> {
    const { owner } = this.ipAdapterHost()
    this.ipAdapters = undefined
    await translating(owner.session().unloadIpAdapters())
  }

  /** The one that IP-Adapters were loaded with. */
  get imageEncoder(): ImageEncoder | undefined {
    return this.ipAdapters?.encoder
  }

  private loadedIpAdapters(): IpAdapters {
    this.ipAdapterHost().owner.session()
    if (!this.ipAdapters) throw invalidArgument('loadIpAdapter', 'a call of it before', undefined)
    return this.ipAdapters
  }
}
