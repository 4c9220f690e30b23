// One layer of CLIP's transformers, text and image alike (transformers CLIPEncoderLayer):
//   x += attention(norm₁(x)); x += mlp(norm₂(x)).
#pragma once

#include "engine/weight-loader.h"

namespace nd {

struct ClipLayerConfig {
  int64_t hiddenSize = 768, intermediateSize = 3072;
  int heads = 12;
  Activation activation = Activation::QuickGelu;
  float layerNormEps = 1e-5f;
  bool causal = false;  // text: a token sees those before it; pictures: every patch sees all
};

class ClipLayer {
 public:
  ClipLayer(const WeightLoader&, const ClipLayerConfig&);
  /// x [B, L, hiddenSize] → the same shape; x is kept.
  Tensor operator()(Context&, const Tensor& x) const;

 private:
  ClipLayerConfig config_;
  Norm norm1_, norm2_;
  Linear qkv_, out_, up_, down_;
};

}  // namespace nd
