// Maps twice as large by nearest neighbour, or half as large by the means of 2 × 2 pixels. Bound: memory.
#pragma once

#include "cuda/launch.h"

namespace nd::cuda {

/// x [B, H, W, C] → y [B, 2H, 2W, C] or [B, ⌊H/2⌋, ⌊W/2⌋, C].
void resample(const Launch&, DType type, const Tensor& x, const Tensor& y);

}  // namespace nd::cuda
