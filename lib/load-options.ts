/** The options of Pipeline.fromPretrained. */
import type { Scheduler } from './schedulers/index.js'

/** How the hub is asked. */
export type HubAccess = Pick<LoadOptions, 'cacheDir' | 'token' | 'localFilesOnly' | 'signal'>

/** Options of Pipeline.fromPretrained. */
export interface LoadOptions {
  /** 'auto' (default): the best there is; 'cpu'; 'cuda', 'cuda:1': that one, or an error. */
  device?: string
  /**
   * 'auto' (default): float32 on the CPU, whose weights keep the file's type; 'float16' on a GPU, or 'bfloat16', whose range
   * is larger and whose precision is less. What overflows in float16 (Stable Diffusion XL's autoencoder, T5) is computed in
   * bfloat16 there in any case. 'bfloat16' on the CPU: layers multiply bfloat16 and sum in float32, where the CPU has dot
   * products of it (AMX, AVX512_BF16, FEAT_BF16 of AArch64). float8 is not built.
   */
  dtype?: string
  /** CPU threads; default: the physical cores. */
  threads?: number
  /** Instead of the model's own: an instance, a diffusers class name or an AUTOMATIC1111 label. */
  scheduler?: Scheduler | string
  /**
   * Another AutoencoderKL or AutoencoderTiny (TAESD): a folder, a .safetensors file in the original layout, 'org/name' (or
   * 'org/name/folder', 'org/name/file.safetensors') on the hub, or an https address. A whole model means its autoencoder.
   */
  vae?: string
  /** An autoencoder for previews alone, small and fast: as `vae`. See loadPreviewVae. */
  previewVae?: string
  /**
   * Single files: a diffusers folder, or 'org/name' on the hub, with the configurations and tokenizers to use; its weights are
   * neither read nor downloaded.
   */
  config?: string
  /** What the UNet predicts, where the model does not say it (single files of Stable Diffusion 2) or says it wrongly. */
  predictionType?: 'epsilon' | 'v_prediction' | 'sample'
  /** Take *.VARIANT.safetensors. */
  variant?: string
  /** Ends the loading between two components. */
  signal?: AbortSignal
  /** Components laid out; before that, of models from the hub, bytes of all files (`component: 'download'`). */
  onProgress?: (event: { component: string; loaded: number; total: number; file?: string }) => void
  /** Hub: a branch, tag or commit; 'main' by default. */
  revision?: string
  /** Hub: where models are kept; default HF_HUB_CACHE, or hub/ in HF_HOME: Python's cache, read and filled in place. */
  cacheDir?: string
  /** Hub: instead of HF_TOKEN or what `hf auth login` stored; false sends none. */
  token?: string | false
  /** Hub: read the cache alone, as HF_HUB_OFFLINE=1 does. */
  localFilesOnly?: boolean
  /** SHA-256 that a downloaded single file must have. */
  sha256?: string
}

export const knownLoadOptions: readonly (keyof LoadOptions)[] = [
  'device',
  'dtype',
  'threads',
  'scheduler',
  'vae',
  'previewVae',
  'config',
  'predictionType',
  'variant',
  'signal',
  'onProgress',
  'revision',
  'cacheDir',
  'token',
  'localFilesOnly',
  'sha256'
]
