// y = γ (x − μ) / sqrt(σ² + ε) + β over the last dimension, biased variance. Bound: memory (one read, one
// write). One warp per row. Rows of up to 2048 elements stay in registers between the two sums (mean, then
// squared deviations, so that a large mean costs no digits); longer or unaligned ones are read again from the
// cache.
#pragma once

#include "cuda/launch.h"

namespace nd::cuda {

/// gamma and beta: float32 [C].
void layerNorm(const Launch&, DType type, const Tensor& x, const float* gamma, const float* beta,
               float epsilon, const Tensor& y);

}  // namespace nd::cuda
