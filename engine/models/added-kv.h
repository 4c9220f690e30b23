// What the pixel UNets of DeepFloyd IF (Imagen, Saharia et al. 2022) have that Stable Diffusion's has not.
#pragma once

#include <optional>

#include "engine/weight-loader.h"

namespace nd {

/// Attention of the pixels to the text and to each other at once (diffusers AttnAddedKVProcessor):
/// x += out(attention(q(norm(x)), [text's keys | k(norm(x))], [text's values | v(norm(x))])).
class AddedKvAttention {
 public:
  struct Options {
    int headDim = 64, groups = 32;
    int64_t contextWidth = 0;
    bool normText = false;  // cross_attention_norm "group_norm": the text through a group norm first
    bool textOnly = false;  // only_cross_attention: pixels do not see each other
  };
  AddedKvAttention(const WeightLoader&, int64_t channels, const Options&);
  /// Keys and values of the text, side by side [B, L, 2·channels]: made once per prompt.
  Tensor contextKeysValues(Context&, const Tensor& text) const;
  /// In place on x [B, H, W, C].
  void operator()(Context&, const Tensor& x, const Tensor& keysValues) const;

 private:
  int heads_;
  Norm norm_;
  std::optional<Norm> textNorm_;
  Linear q_, textKv_, out_;
  std::optional<Linear> kv_;
};

/// The text as one vector beside the time embedding (diffusers TextTimeEmbedding): norm, attention of the
/// tokens' mean to the mean and the tokens, projection, norm.
class TextPooling {
 public:
  TextPooling(const WeightLoader&, int64_t width, int64_t out, int heads);
  /// text [B, L, width] → [B, out]
  Tensor operator()(Context&, const Tensor& text) const;

 private:
  int heads_;
  Norm norm1_, norm2_;
  WeightPtr position_;
  Linear q_, kv_, projection_;
};

}  // namespace nd
