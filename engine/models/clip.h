// CLIP's text tower (transformers CLIPTextModel, CLIPTextModelWithProjection):
//   ids [B·L] → embeddings → layers × (x += attention(norm(x)); x += mlp(norm(x))) → final norm [B, L, C].
#pragma once

#include <span>
#include <vector>

#include "engine/models/clip-layer.h"

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

class ClipText {
 public:
  ClipText(const ClipTextConfig& config, const WeightLoader& loader);

  struct Output {
    std::vector<Tensor> hiddenStates;  // layers + 1, each [B, L, C]: the embeddings, then after each layer
    Tensor last;                       // [B, L, C], after the final norm
    Tensor pooled;                     // [B, C]: `last` at the end-of-text token
    Tensor projected;                  // [B, projectionDim], empty without a projection
  };
  /// ids: whole sequences of `length` tokens, length ≤ maxPositions.
  Output encode(Context&, std::span<const int32_t> ids, int64_t length) const;
  /// The final norm over any hidden state (diffusers' clip_skip).
  Tensor finalNorm(Context& context, const Tensor& hidden) const {
    return layerNorm(context, hidden, finalNorm_);
  }
  const ClipTextConfig& config() const { return config_; }

  /// Embeddings [rows, hiddenSize] of the ids vocabSize, vocabSize + 1, …: textual inversion; or none.
  void setAddedTokens(WeightPtr table) { added_ = std::move(table); }
  const WeightPtr& addedTokens() const { return added_; }

 private:
  Tensor embeddings(Context&, std::span<const int32_t> ids, int64_t length) const;

  ClipTextConfig config_;
  WeightPtr tokens_, positions_, added_;
  std::vector<ClipLayer> layers_;
  Norm finalNorm_;
  Linear projection_;
};

}  // namespace nd
