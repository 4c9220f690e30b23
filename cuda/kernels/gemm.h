// Linear layers: y[M, N] = act(x[M, K] Wᵀ + bias) + residual, GEGLU and attention projections.
#pragma once

#include "cuda/launch.h"
#include "engine/backend.h"

namespace nd::cuda {

/// `type` is F16 or BF16, of x, w, residual and y. With geglu, n counts outputs and w has 2n rows, value and
/// gate in turn, while bias holds all values and then all gates. Strides in elements.
struct GemmArgs {
  DType type = DType::F16;
  int64_t m = 0, n = 0, k = 0;
  const void* x = nullptr;
  int64_t xStride = 0;
  const void* w = nullptr;
  int64_t wPitch = 0;
  const float* bias = nullptr;
  bool geglu = false;
  Activation activation = Activation::None;
  const void* residual = nullptr;
  int64_t residualStride = 0;
  void* y = nullptr;
  int64_t yStride = 0;
};
void gemm(const Launch& launch, const GemmArgs& args);

}  // namespace nd::cuda
