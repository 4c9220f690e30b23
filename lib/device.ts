/** Where a pipeline computes. */
import { native } from './binding.js'
import { DiffusionError, invalidArgument, unsupported } from './errors.js'

export const chooseDevice = (device: string, dtype: string): { device: string; reason: string } => {
  if (!/^(auto|cpu|cuda(:\d+)?)$/.test(device))
    throw invalidArgument('device', "'auto', 'cpu', 'cuda' or 'cuda:N'", device)
  if (!['auto', 'float32', 'float16', 'bfloat16'].includes(dtype))
    throw invalidArgument('dtype', "'auto' or 'float32'", dtype)
  const { cudaReason } = native().inspect()
  if (device.startsWith('cuda'))
    throw new DiffusionError(
      'ERR_ND_CUDA_UNAVAILABLE',
      `Expected a CUDA device for '${device}' but ${cudaReason}; use device 'auto' or 'cpu'`
    )
  if (dtype === 'float16' || dtype === 'bfloat16')
    throw unsupported(`dtype '${dtype}' is not supported on the CPU, which computes in float32; use 'auto'`)
  return { device: 'cpu', reason: device === 'cpu' ? 'asked for' : `no CUDA: ${cudaReason}` }
}
