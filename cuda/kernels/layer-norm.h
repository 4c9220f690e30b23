// y = γ (x − μ) / sqrt(σ² + ε) + β over the last dimension, biased variance; μ is 0 where it is not
// centred. Bound: memory (one read, one
// write). One warp per row. Rows of up to 2048 elements stay in registers between the two sums (mean, then
// squared deviations, so that a large mean costs no digits); longer or unaligned ones are read again from the
// cache.
#pragma once

#include "cuda/launch.h"
#include "engine/backend.h"

namespace nd::cuda {

/// The engine's arguments on device tensors; its Weight pointers are not looked at. gamma and beta (or null):
/// float32 [C].
void layerNorm(const Launch&, DType type, const LayerNormArgs&, const float* gamma, const float* beta);

}  // namespace nd::cuda
