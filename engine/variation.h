// AUTOMATIC1111's variations: the initial noise of a seed drawn a little towards another seed's, or taken
// from the noise of another picture size.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/denoise.h"

namespace nd {

struct Variation {
  std::vector<uint64_t> seeds;            // of the images, as the job has them
  std::vector<uint64_t> subseeds;         // one, continued over the images, or one per image; empty: none
  double strength = 0;                    // 0: the seed's noise; 1: the subseed's
  int64_t fromHeight = 0, fromWidth = 0;  // latents' size whose noise lies in the middle; 0: their own
  NoiseKind kind = NoiseKind::Cpu;
  bool none() const { return subseeds.empty() && fromHeight == 0; }
};

/// The initial noise [batch, C, H, W]: drawn from `noise`, and varied.
void drawVaried(BatchNoise& noise, const Variation&, const Shape& shape, float* out);

/// Spherical interpolation along the columns of every channel's map [C, H, W]: each column of `low` is turned
/// towards that of `high`. All but parallel maps are mixed linearly.
void slerpColumns(double share, const float* low, const float* high, int64_t channels, int64_t height,
                  int64_t width, float* out);

}  // namespace nd
