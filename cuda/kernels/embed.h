// y[i, :] = table[ids[i], :] (+ positions[i mod length, :]). Bound: memory.
#pragma once

#include "cuda/launch.h"

namespace nd::cuda {

/// table and positions [.., C] contiguous, of `type`; ids on the device, one per row of y.
void embed(const Launch&, DType type, const void* table, const void* positions, const int32_t* ids,
           int64_t length, const Tensor& y);

}  // namespace nd::cuda
