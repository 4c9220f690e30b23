// IP-Adapter (Ye et al. 2023; diffusers ImageProjection, IPAdapterPlusImageProjection,
// IPAdapterFullImageProjection, IPAdapterAttnProcessor): pictures as prompts.
//
//   image embeddings ─ projection ─► a few tokens as wide as the text ─ to_k_ip, to_v_ip ─► every
//   cross-attention, which reads them beside the text: softmax(q kᵀ) v + scale · softmax(q k_ipᵀ) v_ip.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "engine/models/clip-layer.h"

namespace nd {

/// How image embeddings become tokens.
enum class ImageProjectionKind : uint8_t {
  Tokens,     // one embedding → a linear map to `tokens` tokens → norm
  States,     // each of the tower's states → a small MLP → norm: as many tokens as states
  Resampler,  // learned queries look at the tower's states (Flamingo's perceiver): `tokens` of them
};

struct IpAdapterConfig {
  ImageProjectionKind projection = ImageProjectionKind::Tokens;
  int64_t embedWidth = 1024, contextWidth = 768;
  int64_t tokens = 4;                       // Tokens and Resampler
  int64_t width = 0, feedForwardWidth = 0;  // Resampler
  int heads = 0, layers = 0;                // Resampler
  int64_t headWidth = 64;                   // Resampler
  std::vector<int64_t> attentions;  // width of every cross-attention that it goes to, in the UNet's order
};

class IpAdapter {
 public:
  IpAdapter(const IpAdapterConfig& config, const WeightLoader& loader);

  /// embeds [n, states, embedWidth] (one state with Tokens) → [n, tokens, contextWidth].
  Tensor tokens(Context&, const Tensor& embeds) const;
  /// tokens [B, L, contextWidth] → keys and values of that cross-attention, [B, L, 2·width].
  Tensor keysValues(Context& context, const Tensor& tokens, size_t attention) const {
    return linear(context, tokens, keysValues_.at(attention));
  }
  const IpAdapterConfig& config() const { return config_; }

 private:
  struct ResamplerLayer {
    Norm states, queries, feedForward;
    Linear q, kv, out, up, down;
  };
  Tensor resample(Context&, const Tensor& states) const;

  IpAdapterConfig config_;
  Linear in_, out_;  // Tokens: in_ alone; States: the MLP; Resampler: into and out of its width
  Norm norm_;
  WeightPtr queries_;  // [tokens, width]
  std::vector<ResamplerLayer> layers_;
  std::vector<Linear> keysValues_;
};

}  // namespace nd
