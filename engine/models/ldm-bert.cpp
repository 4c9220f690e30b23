#include "engine/models/ldm-bert.h"

namespace nd {

namespace {
constexpr float kEps = 1e-5f;
}

LdmBert::LdmBert(const LdmBertConfig& c, const WeightLoader& root) : config_(c) {
  const WeightLoader model = root.at("model");
  const int64_t inner = c.heads * c.headDim;
  tokens_ = model.table("embed_tokens.weight", c.vocabSize, c.hiddenSize);
  positions_ = model.table("embed_positions.weight", c.maxPositions, c.hiddenSize);
  for (int i = 0; i < c.layers; i++) {
    const WeightLoader l = model.at("layers", i);
    layers_.push_back({
        .norm1 = l.norm("self_attn_layer_norm", c.hiddenSize, kEps),
        .norm2 = l.norm("final_layer_norm", c.hiddenSize, kEps),
        .qkv = l.linears({"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}, c.hiddenSize, inner,
                         /*bias=*/false),
        .out = l.linear("self_attn.out_proj", inner, c.hiddenSize),
        .up = l.linear("fc1", c.hiddenSize, c.intermediateSize),
        .down = l.linear("fc2", c.intermediateSize, c.hiddenSize),
    });
  }
  finalNorm_ = model.norm("layer_norm", c.hiddenSize, kEps);
}

Tensor LdmBert::layer(Context& context, const Layer& l, const Tensor& x) const {
  const Tensor y = context.arena.tensor(x.shape);  // outlives the temporaries below
  Arena::Scope scope(context.arena);
  const int64_t inner = config_.heads * config_.headDim;
  const Tensor qkv = linear(context, layerNorm(context, x, l.norm1), l.qkv);  // [B, L, 3·inner]
  const Tensor mixed =
      attention(context, columns(context, qkv, 0, inner), columns(context, qkv, inner, inner),
                columns(context, qkv, 2 * inner, inner), config_.heads);
  linear(context, mixed, l.out, {.residual = &x, .into = &y});
  const Tensor up = linear(context, layerNorm(context, y, l.norm2), l.up, {.activation = config_.activation});
  linear(context, up, l.down, {.residual = &y, .into = &y});
  return y;
}

TextEncoder::Output LdmBert::encode(Context& context, std::span<const int32_t> ids, int64_t length,
                                    std::span<const uint8_t>) const {
  checkSequences(ids, length, config_.maxPositions);
  Output out;
  out.hiddenStates.push_back(embeddings(context, tokens_, positions_, ids, length));
  for (const Layer& l : layers_) out.hiddenStates.push_back(layer(context, l, out.hiddenStates.back()));
  out.last = finalNorm(context, out.hiddenStates.back());
  return out;
}

}  // namespace nd
