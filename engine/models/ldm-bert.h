// The text encoder of latent diffusion's first text-to-image model (Rombach et al. 2022; diffusers
// LDMBertModel): a transformer without causal mask, layer norms first, over BERT's tokens.
//   ids [B·L] → embeddings → layers × (x += attention(norm(x)); x += mlp(norm(x))) → final norm [B, L, C].
#pragma once

#include "engine/models/text-encoder.h"

namespace nd {

struct LdmBertConfig {
  int64_t vocabSize = 30522, hiddenSize = 1280, intermediateSize = 5120, maxPositions = 77;
  int layers = 32, heads = 8;
  int64_t headDim = 64;  // heads · headDim need not be hiddenSize
  Activation activation = Activation::Gelu;
};

class LdmBert final : public TextEncoder {
 public:
  LdmBert(const LdmBertConfig& config, const WeightLoader& loader);

  /// No mask: the model was trained to see the padding.
  Output encode(Context&, std::span<const int32_t> ids, int64_t length,
                std::span<const uint8_t> mask = {}) const override;
  Tensor finalNorm(Context& context, const Tensor& hidden) const override {
    return layerNorm(context, hidden, finalNorm_);
  }
  int64_t width() const override { return config_.hiddenSize; }

 private:
  struct Layer {
    Norm norm1, norm2;
    Linear qkv, out, up, down;
  };
  Tensor layer(Context&, const Layer&, const Tensor& x) const;

  LdmBertConfig config_;
  WeightPtr tokens_, positions_;
  std::vector<Layer> layers_;
  Norm finalNorm_;
};

}  // namespace nd
