#include "engine/models/ip-adapter.h"

namespace nd {

namespace {

constexpr float kEps = 1e-5f;

/// [n, A, C] and [n, B, C] → [n, A + B, C].
Tensor concatTokens(Context& context, const Tensor& a, const Tensor& b) {
  const int64_t n = a.shape[0], first = a.shape[1], second = b.shape[1], width = a.shape[2];
  const Tensor y = context.arena.tensor({n, first + second, width});
  const Tensor rows = reshape(y, {n * (first + second), width});
  for (int64_t i = 0; i < n; i++) {
    const int64_t at = i * (first + second);
    context.backend.copyColumns(slice(context, a, i, 1), slice(context, rows, at, first), 0);
    context.backend.copyColumns(slice(context, b, i, 1), slice(context, rows, at + first, second), 0);
  }
  return y;
}

}  // namespace

IpAdapter::IpAdapter(const IpAdapterConfig& c, const WeightLoader& l) : config_(c) {
  const WeightLoader image = l.at("image_proj");
  switch (c.projection) {
    case ImageProjectionKind::Tokens:
      in_ = image.linear("proj", c.embedWidth, c.tokens * c.contextWidth);
      norm_ = image.norm("norm", c.contextWidth, kEps);
      break;
    case ImageProjectionKind::States:
      in_ = image.linear("up", c.embedWidth, c.embedWidth);
      out_ = image.linear("down", c.embedWidth, c.contextWidth);
      norm_ = image.norm("norm", c.contextWidth, kEps);
      break;
    case ImageProjectionKind::Resampler: {
      const int64_t inner = c.heads * c.headWidth;
      in_ = image.linear("proj_in", c.embedWidth, c.width);
      out_ = image.linear("proj_out", c.width, c.contextWidth);
      norm_ = image.norm("norm_out", c.contextWidth, kEps);
      queries_ = image.weight(WeightKind::Table,
                              {image.tensor("latents", {1, c.tokens, c.width}, Shape{c.tokens, c.width})});
      for (int i = 0; i < c.layers; i++) {
        const WeightLoader at = image.at("layers", i);
        layers_.push_back({
            .states = at.norm("norm_states", c.width, kEps),
            .queries = at.norm("norm_queries", c.width, kEps),
            .feedForward = at.norm("norm_feed_forward", c.width, kEps),
            .q = at.linear("to_q", c.width, inner, false),
            .kv = at.linears({"to_k", "to_v"}, c.width, inner, false),
            .out = at.linear("to_out", inner, c.width, false),
            .up = at.linear("up", c.width, c.feedForwardWidth, false),
            .down = at.linear("down", c.feedForwardWidth, c.width, false),
        });
      }
    }
  }
  for (size_t i = 0; i < c.attentions.size(); i++)
    keysValues_.push_back(l.at("attentions", static_cast<int64_t>(i))
                              .linears({"to_k_ip", "to_v_ip"}, c.contextWidth, c.attentions[i], false));
}

Tensor IpAdapter::tokens(Context& context, const Tensor& embeds) const {
  const IpAdapterConfig& c = config_;
  expect(embeds.shape.rank == 3 && embeds.shape[2] == c.embedWidth, "image embeddings [n, states, width]");
  const int64_t n = embeds.shape[0], states = embeds.shape[1];
  if (c.projection == ImageProjectionKind::Tokens) {
    expect(states == 1, "one embedding per picture");
    return layerNorm(context, reshape(linear(context, embeds, in_), {n, c.tokens, c.contextWidth}), norm_);
  }
  if (c.projection == ImageProjectionKind::States) {
    const Tensor up = linear(context, embeds, in_, {.activation = Activation::Gelu});
    return layerNorm(context, linear(context, up, out_), norm_);
  }
  return resample(context, embeds);
}

Tensor IpAdapter::resample(Context& context, const Tensor& states) const {
  const IpAdapterConfig& c = config_;
  const int64_t n = states.shape[0], inner = c.heads * c.headWidth;
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < n * c.tokens; i++) ids.push_back(static_cast<int32_t>(i % c.tokens));
  const Tensor x = linear(context, states, in_);
  const Tensor y = embed(context, queries_, nullptr, ids, c.tokens);  // [n, tokens, width]
  for (const ResamplerLayer& layer : layers_) {
    Arena::Scope scope(context.arena);
    const Tensor queries = layerNorm(context, y, layer.queries);
    // The queries look at the picture's states and at each other.
    const Tensor seen = concatTokens(context, layerNorm(context, x, layer.states), queries);
    const Tensor kv = linear(context, seen, layer.kv);
    const Tensor mixed = attention(context, linear(context, queries, layer.q), columns(context, kv, 0, inner),
                                   columns(context, kv, inner, inner), c.heads);
    linear(context, mixed, layer.out, {.residual = &y, .into = &y});
    const Tensor up =
        linear(context, layerNorm(context, y, layer.feedForward), layer.up, {.activation = Activation::Gelu});
    linear(context, up, layer.down, {.residual = &y, .into = &y});
  }
  return layerNorm(context, linear(context, y, out_), norm_);
}

}  // namespace nd
