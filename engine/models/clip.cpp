#include "engine/models/clip.h"

#include <algorithm>

namespace nd {

ClipText::ClipText(const ClipTextConfig& c, const WeightLoader& root) : config_(c) {
  const WeightLoader text = root.at("text_model");
  tokens_ = text.table("embeddings.token_embedding.weight", c.vocabSize, c.hiddenSize);
  positions_ = text.table("embeddings.position_embedding.weight", c.maxPositions, c.hiddenSize);
  for (int i = 0; i < c.layers; i++) {
    const WeightLoader l = text.at("encoder.layers", i);
    layers_.push_back({
        .norm1 = l.norm("layer_norm1", c.hiddenSize, c.layerNormEps),
        .norm2 = l.norm("layer_norm2", c.hiddenSize, c.layerNormEps),
        .qkv = l.linears({"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}, c.hiddenSize,
                         c.hiddenSize, true),
        .out = l.linear("self_attn.out_proj", c.hiddenSize, c.hiddenSize),
        .up = l.linear("mlp.fc1", c.hiddenSize, c.intermediateSize),
        .down = l.linear("mlp.fc2", c.intermediateSize, c.hiddenSize),
    });
  }
  finalNorm_ = text.norm("final_layer_norm", c.hiddenSize, c.layerNormEps);
  if (c.projectionDim > 0) projection_ = root.linear("text_projection", c.hiddenSize, c.projectionDim, false);
}

Tensor ClipText::layer(Context& context, const Layer& l, const Tensor& x) const {
  const Tensor y = context.arena.tensor(x.shape);  // outlives the temporaries below
  Arena::Scope scope(context.arena);
  const int64_t width = config_.hiddenSize;
  const Tensor qkv = linear(context, layerNorm(context, x, l.norm1), l.qkv);  // [B, L, 3C]
  const Tensor mixed =
      attention(context, columns(context, qkv, 0, width), columns(context, qkv, width, width),
                columns(context, qkv, 2 * width, width), config_.heads, /*causal=*/true);
  linear(context, mixed, l.out, {.residual = &x, .into = &y});
  const Tensor up = linear(context, layerNorm(context, y, l.norm2), l.up, {.activation = config_.activation});
  linear(context, up, l.down, {.residual = &y, .into = &y});
  return y;
}

TextEncoder::Output ClipText::encode(Context& context, std::span<const int32_t> ids, int64_t length,
                                     std::span<const uint8_t>) const {
  checkSequences(ids, length, config_.maxPositions);
  Output out;
  out.hiddenStates.push_back(embeddings(context, tokens_, positions_, ids, length));
  for (const Layer& l : layers_) out.hiddenStates.push_back(layer(context, l, out.hiddenStates.back()));
  out.last = finalNorm(context, out.hiddenStates.back());

  std::vector<int32_t> ends;  // row of each sequence's end-of-text token
  for (size_t start = 0; start < ids.size(); start += static_cast<size_t>(length)) {
    const auto sequence = ids.subspan(start, static_cast<size_t>(length));
    auto end = config_.eosTokenId == 2 ? std::max_element(sequence.begin(), sequence.end())
                                       : std::find(sequence.begin(), sequence.end(), config_.eosTokenId);
    if (end == sequence.end()) end = sequence.begin();  // as argmax over "is it the token" gives
    ends.push_back(static_cast<int32_t>(start) + static_cast<int32_t>(end - sequence.begin()));
  }
  out.pooled = gatherRows(context, out.last, ends);
  if (projection_.weight) out.projected = linear(context, out.pooled, projection_);
  return out;
}

}  // namespace nd
