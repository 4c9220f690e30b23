#include "engine/models/pixel-attention.h"

namespace nd {

PixelAttention::PixelAttention(const WeightLoader& l, int64_t channels, int heads, float epsilon, int groups)
    : heads_(heads),
      norm_(l.norm("group_norm", channels, epsilon, groups)),
      qkv_(l.linears({"to_q", "to_k", "to_v"}, channels, channels, true)),
      out_(l.linear("to_out.0", channels, channels)) {}

void PixelAttention::operator()(Context& context, const Tensor& x) const {
  Arena::Scope scope(context.arena);
  const int64_t width = x.shape[3];
  const Tensor tokens = reshape(groupNorm(context, x, norm_), {x.shape[0], x.shape[1] * x.shape[2], width});
  const Tensor qkv = linear(context, tokens, qkv_);
  const Tensor mixed =
      attention(context, columns(context, qkv, 0, width), columns(context, qkv, width, width),
                columns(context, qkv, 2 * width, width), heads_);
  linear(context, mixed, out_, {.residual = &x, .into = &x});
}

}  // namespace nd
