#include "engine/models/clip-layer.h"

namespace nd {

ClipLayer::ClipLayer(const WeightLoader& l, const ClipLayerConfig& c)
    : config_(c),
      norm1_(l.norm("layer_norm1", c.hiddenSize, c.layerNormEps)),
      norm2_(l.norm("layer_norm2", c.hiddenSize, c.layerNormEps)),
      qkv_(l.linears({"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}, c.hiddenSize, c.hiddenSize,
                     true)),
      out_(l.linear("self_attn.out_proj", c.hiddenSize, c.hiddenSize)),
      up_(l.linear("mlp.fc1", c.hiddenSize, c.intermediateSize)),
      down_(l.linear("mlp.fc2", c.intermediateSize, c.hiddenSize)) {}

Tensor ClipLayer::operator()(Context& context, const Tensor& x) const {
  const Tensor y = context.arena.tensor(x.shape);  // outlives the temporaries below
  Arena::Scope scope(context.arena);
  const int64_t width = config_.hiddenSize;
  const Tensor qkv = linear(context, layerNorm(context, x, norm1_), qkv_);  // [B, L, 3C]
  const Tensor mixed =
      attention(context, columns(context, qkv, 0, width), columns(context, qkv, width, width),
                columns(context, qkv, 2 * width, width), config_.heads, config_.causal);
  linear(context, mixed, out_, {.residual = &x, .into = &y});
  const Tensor up = linear(context, layerNorm(context, y, norm2_), up_, {.activation = config_.activation});
  linear(context, up, down_, {.residual = &y, .into = &y});
  return y;
}

}  // namespace nd
