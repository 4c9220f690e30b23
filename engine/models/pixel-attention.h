// Self-attention over all pixels of a map, as the autoencoder and UNet2DModel have it (diffusers' Attention
// with a residual connection; Ho et al. 2020, appendix B).
#pragma once

#include "engine/weight-loader.h"

namespace nd {

class PixelAttention {
 public:
  PixelAttention(const WeightLoader&, int64_t channels, int heads, float epsilon, int groups);
  /// x [B, H, W, C] += out(attention(norm(x))).
  void operator()(Context&, const Tensor& x) const;

 private:
  int heads_;
  Norm norm_;
  Linear qkv_, out_;
};

}  // namespace nd
