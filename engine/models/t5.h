// T5's encoder (Raffel et al. 2020; transformers T5EncoderModel), Imagen's and DeepFloyd IF's text encoder:
//   ids [B·L] → embeddings → layers × (x += attention(norm(x)); x += mlp(norm(x))) → final norm [B, L, C].
// Norms are root mean square norms, projections have no bias, scores are not scaled; where a token stands is
// said by a bias of the scores per head and distance, which all layers share.
#pragma once

#include "engine/models/text-encoder.h"

namespace nd {

struct T5Config {
  int64_t vocabSize = 32128, hiddenSize = 4096, intermediateSize = 10240, headDim = 64;
  int layers = 24, heads = 64;
  bool gated = true;                             // value · activation(gate); else activation(up)
  Activation activation = Activation::GeluTanh;  // GeluTanh where gated; else Relu
  float layerNormEps = 1e-6f;
  int buckets = 32, maxDistance = 128;  // of the distances
  int64_t maxPositions = 512;           // tokens per sequence; the network itself has no limit
};

class T5Encoder final : public TextEncoder {
 public:
  T5Encoder(const T5Config& config, const WeightLoader& loader);

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
  Tensor layer(Context&, const Layer&, const Tensor& x, const Tensor& bias) const;
  /// [B or 1, heads, L, L]
  Tensor positionBias(Context&, int64_t length, std::span<const uint8_t> mask) const;

  T5Config config_;
  WeightPtr tokens_, distances_;  // distances: [buckets, heads]
  std::vector<Layer> layers_;
  Norm finalNorm_;
};

/// The bucket of `key − query`: half of them for keys after the query; within each half one for every short
/// distance, then logarithmic ones up to `maxDistance`.
int distanceBucket(int64_t keyMinusQuery, int buckets, int maxDistance);

}  // namespace nd
