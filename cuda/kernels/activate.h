// y = act(x), element by element. Bound: memory (one read, one write).
#pragma once

#include "cuda/launch.h"
#include "engine/backend.h"

namespace nd::cuda {

/// Tensors of device pointers to `type`; rows may be strided.
void activate(const Launch&, DType type, const Tensor& x, Activation, const Tensor& y);

}  // namespace nd::cuda
