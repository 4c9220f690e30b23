#include "engine/models/t5.h"

#include <algorithm>
#include <cmath>

namespace nd {

namespace {
// What a score of a key that is not seen becomes: e^(score) is 0 beside any other, and where no key is seen
// all are equal, as with the lowest float that transformers adds.
constexpr float kHidden = -1e30f;

/// A tensor of the wide range as one of the backend's own, in place: by way of the host, as there are few.
void leaveWideRange(Context& context, const Tensor& x) {
  if (context.backend.activationBytes() == sizeof(float)) return;  // no other range
  std::vector<float> host(static_cast<size_t>(x.shape.count()));
  context.backend.download(x, host.data());
  const WideRange own(context.backend, false);
  context.backend.upload(host.data(), x);
}
}  // namespace

int distanceBucket(int64_t keyMinusQuery, int buckets, int maxDistance) {
  const int half = buckets / 2, exact = half / 2, side = keyMinusQuery > 0 ? half : 0;
  const int64_t distance = std::abs(keyMinusQuery);
  if (distance < exact) return side + static_cast<int>(distance);
  // In float32, as torch: the rounding decides between neighbours.
  const float ratio = std::log(static_cast<float>(distance) / static_cast<float>(exact)) /
                      static_cast<float>(std::log(static_cast<double>(maxDistance) / exact)) *
                      static_cast<float>(half - exact);
  return side + std::min(exact + static_cast<int>(ratio), half - 1);
}

T5Encoder::T5Encoder(const T5Config& c, const WeightLoader& root) : config_(c) {
  const WideRange range(root.backend(), true);
  const WeightLoader encoder = root.at("encoder");
  const int64_t inner = c.heads * c.headDim;
  tokens_ = root.table("shared.weight", c.vocabSize, c.hiddenSize);
  distances_ =
      encoder.table("block.0.layer.0.SelfAttention.relative_attention_bias.weight", c.buckets, c.heads);
  for (int i = 0; i < c.layers; i++) {
    const WeightLoader attends = encoder.at("block", i).at("layer.0"),
                       feeds = encoder.at("block", i).at("layer.1");
    const WeightLoader dense = feeds.at("DenseReluDense");
    layers_.push_back({
        .norm1 = attends.rmsNorm("layer_norm", c.hiddenSize, c.layerNormEps),
        .norm2 = feeds.rmsNorm("layer_norm", c.hiddenSize, c.layerNormEps),
        .qkv = attends.linears({"SelfAttention.q", "SelfAttention.k", "SelfAttention.v"}, c.hiddenSize, inner,
                               /*bias=*/false),
        .out = attends.linear("SelfAttention.o", inner, c.hiddenSize, /*bias=*/false),
        .up = c.gated ? dense.gated("wi_1", "wi_0", c.hiddenSize, c.intermediateSize)
                      : dense.linear("wi", c.hiddenSize, c.intermediateSize, /*bias=*/false),
        .down = dense.linear("wo", c.intermediateSize, c.hiddenSize, /*bias=*/false),
    });
  }
  finalNorm_ = encoder.rmsNorm("final_layer_norm", c.hiddenSize, c.layerNormEps);
}

Tensor T5Encoder::positionBias(Context& context, int64_t length, std::span<const uint8_t> mask) const {
  const int64_t heads = config_.heads, pairs = length * length;
  const int64_t batch = mask.empty() ? 1 : static_cast<int64_t>(mask.size()) / length;
  std::vector<float> host(static_cast<size_t>(batch * heads * pairs));
  {
    Arena::Scope scope(context.arena);
    std::vector<int32_t> distances;  // every one once
    for (int64_t d = 1 - length; d < length; d++)
      distances.push_back(distanceBucket(d, config_.buckets, config_.maxDistance));
    std::vector<float> of(distances.size() * static_cast<size_t>(heads));
    context.backend.download(embed(context, distances_, nullptr, distances, 1), of.data());
    for (int64_t b = 0; b < batch; b++)
      for (int64_t h = 0; h < heads; h++)
        for (int64_t q = 0; q < length; q++)
          for (int64_t k = 0; k < length; k++) {
            const bool hidden = !mask.empty() && !mask[static_cast<size_t>(b * length + k)];
            host[static_cast<size_t>(((b * heads + h) * length + q) * length + k)] =
                hidden ? kHidden : of[static_cast<size_t>((k - q + length - 1) * heads + h)];
          }
  }
  return uploadBias(context, host, {batch, heads, length, length});
}

Tensor T5Encoder::layer(Context& context, const Layer& l, const Tensor& x, const Tensor& bias) const {
  const Tensor y = context.arena.tensor(x.shape);  // outlives the temporaries below
  Arena::Scope scope(context.arena);
  const int64_t inner = config_.heads * config_.headDim;
  const Tensor qkv = linear(context, layerNorm(context, x, l.norm1), l.qkv);  // [B, L, 3·inner]
  const Tensor mixed =
      biasedAttention(context, columns(context, qkv, 0, inner), columns(context, qkv, inner, inner),
                      columns(context, qkv, 2 * inner, inner), config_.heads, bias);
  linear(context, mixed, l.out, {.residual = &x, .into = &y});
  const Tensor up = linear(context, layerNorm(context, y, l.norm2), l.up, {.activation = config_.activation});
  linear(context, up, l.down, {.residual = &y, .into = &y});
  return y;
}

TextEncoder::Output T5Encoder::encode(Context& context, std::span<const int32_t> ids, int64_t length,
                                      std::span<const uint8_t> mask) const {
  checkSequences(ids, length, config_.maxPositions);
  expect(mask.empty() || mask.size() == ids.size(), "one mask value per token");
  const WideRange range(context.backend, true);
  const Tensor bias = positionBias(context, length, mask);
  Output out;
  out.hiddenStates.push_back(embeddings(context, tokens_, nullptr, ids, length));
  for (const Layer& l : layers_) out.hiddenStates.push_back(layer(context, l, out.hiddenStates.back(), bias));
  out.last = finalNorm(context, out.hiddenStates.back());
  for (const Tensor& hidden : out.hiddenStates) leaveWideRange(context, hidden);
  leaveWideRange(context, out.last);
  return out;
}

}  // namespace nd
