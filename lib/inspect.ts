import { availableParallelism, cpus, totalmem } from 'node:os'
import { native, version } from './binding.js'

/** What inspect() says of this installation and machine. */
export interface Inspection {
  readonly version: string
  readonly node: string
  readonly platform: string
  readonly cpu: { readonly model: string; readonly threads: number; readonly memory: number }
  /** What computes: instruction set and threads. */
  readonly backend: string
  /** In order of preference; NODE_DIFFUSION_CPU forces one. */
  readonly isas: readonly {
    readonly name: string
    readonly description: string
    readonly compiled: boolean
    readonly supported: boolean
    /** It can compute in dtype 'bfloat16' on this machine. */
    readonly bfloat16: boolean
  }[]
  /** NVIDIA GPUs; `reason` says why one of them cannot be used, or is empty. Null where none can: `cudaReason` says why. */
  readonly cuda:
    | readonly {
        readonly index: number
        readonly name: string
        readonly computeCapability: string
        /** In bytes. */
        readonly memory: number
        readonly reason: string
      }[]
    | null
  readonly cudaReason: string
}

/** What this installation runs on. @throws DiffusionError ERR_ND_NO_BINARY */
export const inspect = (): Inspection => {
  const { isas, backend, cuda, cudaReason } = native().inspect()
  return {
    version: version(),
    node: process.version,
    platform: `${process.platform}-${process.arch}`,
    cpu: { model: cpus()[0]?.model ?? 'unknown', threads: availableParallelism(), memory: totalmem() },
    backend,
    isas,
    cuda,
    cudaReason
  }
}
