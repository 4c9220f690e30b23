import { native } from './binding.js'
import { DiffusionError, invalidArgument, unsupported } from './errors.js'
import type { AutoencoderConfig } from './models/autoencoder.js'

/**
 * The device that `device` and `dtype` of LoadOptions mean on this machine, and why.
 * @throws DiffusionError ERR_ND_CUDA_UNAVAILABLE, ERR_ND_INVALID_ARGUMENT, ERR_ND_UNSUPPORTED
 */
export const chooseDevice = (device: string, dtype: string): { device: string; reason: string } => {
  if (!/^(auto|cpu|cuda(:\d+)?)$/.test(device))
    throw invalidArgument('device', "'auto', 'cpu', 'cuda' or 'cuda:N'", device)
  if (dtype === 'float8')
    throw unsupported(
      "dtype 'float8' is not supported: weights stored so are read, and computed with in 16 or 32 bits; use 'auto'"
    )
  if (!['auto', 'float32', 'float16', 'bfloat16'].includes(dtype))
    throw invalidArgument('dtype', "'auto', 'float32', 'float16' or 'bfloat16'", dtype)
  const { cuda, cudaReason } = device === 'cpu' ? { cuda: null, cudaReason: '' } : native().inspect()
  if (device.startsWith('cuda')) {
    const index = Number(device.split(':')[1] ?? 0)
    const gpu = cuda?.find((g) => g.index === index)
    if (!gpu || gpu.reason) {
      const reason = gpu?.reason ?? (cuda ? `there are only cuda:0 to cuda:${cuda.length - 1}` : cudaReason)
      throw new DiffusionError(
        'ERR_ND_CUDA_UNAVAILABLE',
        `Expected a CUDA device for '${device}' but ${reason}; use device 'auto' or 'cpu'`
      )
    }
    // What was asked to be float32 is computed by the CPU: the GPU's kernels take 16 bits.
    if (dtype === 'float32')
      throw unsupported(
        `dtype 'float32' is not supported on ${device}, which computes in float16 or bfloat16; use 'auto'`
      )
    return { device: `cuda:${index}`, reason: 'asked for' }
  }
  if (dtype === 'float16' || dtype === 'bfloat16')
    throw unsupported(`dtype '${dtype}' is not supported on the CPU, which computes in float32; use 'auto'`)
  if (device === 'cpu') return { device, reason: 'asked for' }
  // The CUDA kernels are checked in a simulator, not yet on GPUs: nobody gets them without asking.
  const found = cuda?.find((g) => !g.reason)
  const reason = found
    ? `found ${found.name}, whose backend has not been checked on a GPU yet: ask for it with device 'cuda:${found.index}'`
    : `no CUDA: ${cuda ? cuda.map((g) => g.reason).join('; ') : cudaReason}`
  return { device: 'cpu', reason }
}

/**
 * The autoencoder as it is loaded: Stable Diffusion XL's overflows in float16, so that a GPU computes it, and only it, in
 * bfloat16. Families before have the entry of the configuration as well, as its default, and are not concerned.
 */
export const inItsRange = <V extends { readonly config: AutoencoderConfig }>(vae: V, xl: boolean): V => ({
  ...vae,
  config: { ...vae.config, wideRange: xl && 'forceUpcast' in vae.config && vae.config.forceUpcast }
})
