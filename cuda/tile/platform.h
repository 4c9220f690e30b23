// The one include of kernels and of host code: the CUDA runtime under nvcc, the simulator under a host
// compiler with ND_CUDA_SIM. Both give the names listed in cuda/README.md.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/error.h"
#include "engine/tensor.h"

#if defined(ND_CUDA_SIM)
#include "cuda/sim/device.h"
#elif defined(__CUDACC__)
#include "cuda/tile/device.h"
#else
#include <cuda_runtime_api.h>  // host code: what kernels use is not there
#endif

namespace nd::cuda {

/// Throws what the CUDA runtime reports: OutOfMemory, or Internal with `what` and CUDA's own words.
inline void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  throw Error(error == cudaErrorMemoryAllocation ? ErrorCode::OutOfMemory : ErrorCode::Internal,
              format("%s: %s (%s)", what, cudaGetErrorString(error), cudaGetErrorName(error)));
}

struct LaunchShape {
  dim3 grid, block;
  uint32_t sharedBytes = 0;
  cudaStream_t stream = nullptr;
};

/// kernel<<<grid, block, sharedBytes, stream>>>(params). One parameter: a struct.
#ifdef ND_CUDA_SIM
template <class Params>
void launch(const char* name, void (*kernel)(Params), const LaunchShape& shape, const Params& params) {
  struct Call {
    void (*kernel)(Params);
    Params params;
  };
  sim::enqueue(shape.stream, [name, shape, call = Call{kernel, params}] {
    sim::runBlocks(
        name, {shape.grid.x, shape.grid.y, shape.grid.z}, {shape.block.x, shape.block.y, shape.block.z},
        shape.sharedBytes,
        [](const void* c) {
          const auto& it = *static_cast<const Call*>(c);
          it.kernel(it.params);
        },
        &call);
  });
}
#elif defined(__CUDACC__)
template <class Params>
void launch(const char* name, void (*kernel)(Params), const LaunchShape& shape, const Params& params) {
  const auto* function = reinterpret_cast<const void*>(kernel);
  if (shape.sharedBytes > 48 << 10)  // what a kernel gets without asking
    check(cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(shape.sharedBytes)),
          name);
  void* arguments[] = {const_cast<Params*>(&params)};
  check(cudaLaunchKernel(function, shape.grid, shape.block, arguments, shape.sharedBytes, shape.stream),
        name);
}
#endif

#if defined(ND_CUDA_SIM) || defined(__CUDACC__)
/// Calls `run` with a value of the element type: F16 or BF16.
template <class Run>
void withType(DType type, Run run) {
  if (type == DType::F16) return run(Half());
  expect(type == DType::BF16, "cuda: activations are F16 or BF16");
  run(Bfloat());
}
#endif

}  // namespace nd::cuda
