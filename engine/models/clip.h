// CLIP's text tower (transformers CLIPTextModel, CLIPTextModelWithProjection):
//   ids [B·L] → embeddings → layers × (x += attention(norm(x)); x += mlp(norm(x))) → final norm [B, L, C].
#pragma once

#include "engine/models/clip-layer.h"
#include "engine/models/text-encoder.h"

namespace nd {

struct ClipTextConfig {
  int64_t vocabSize = 49408, hiddenSize = 768, intermediateSize = 3072, maxPositions = 77;
  int layers = 12, heads = 12;
  Activation activation = Activation::QuickGelu;
  float layerNormEps = 1e-5f;
  int eosTokenId =
      49407;  // the pooled row is its first position; 2 (old configs): the position of the largest id
  int64_t projectionDim = 0;  // 0: no projection
};

class ClipText final : public TextEncoder {
 public:
  ClipText(const ClipTextConfig& config, const WeightLoader& loader);

  /// length ≤ maxPositions; `pooled` is `last` at the end-of-text token. No mask: tokens see those before.
  Output encode(Context&, std::span<const int32_t> ids, int64_t length,
                std::span<const uint8_t> mask = {}) const override;
  Tensor finalNorm(Context& context, const Tensor& hidden) const override {
    return layerNorm(context, hidden, finalNorm_);
  }
  int64_t width() const override { return config_.hiddenSize; }
  const ClipTextConfig& config() const { return config_; }

 private:
  ClipTextConfig config_;
  WeightPtr tokens_, positions_;
  std::vector<ClipLayer> layers_;
  Norm finalNorm_;
  Linear projection_;
};

}  // namespace nd
