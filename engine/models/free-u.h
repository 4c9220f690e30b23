// FreeU (Si et al. 2023; diffusers' enable_freeu): in the two deepest up blocks the first half of the
// backbone's channels weighs more, and the skips' lowest frequencies less.
#pragma once

#include <vector>

#include "engine/ops.h"

namespace nd {

struct FreeU {
  double s1 = 1, s2 = 1;  // of the skips' lowest frequencies, in the deepest up block and the next
  double b1 = 1, b2 = 1;  // of the backbone's first half
};

/// x [B, H, W, C] with its first C / 2 channels times `scale`.
Tensor scaleBackbone(Context&, const Tensor& x, double scale);

/// x [B, H, W, C] with frequencies −1 and 0 of both axes times `scale`.
Tensor scaleLowFrequencies(Context&, const Tensor& x, double scale);

/// The same over one map [H, W, C] on the host, in place. diffusers takes the 2 × 2 block around the middle
/// of the shifted spectrum: four terms of the Fourier sum, which are added here with weight scale − 1.
void scaleLowFrequencies(float* map, int64_t height, int64_t width, int64_t channels, double scale);

}  // namespace nd
