#include "engine/models/added-kv.h"

namespace nd {

namespace {
constexpr float kEps = 1e-5f;
constexpr int kTextGroups = 32;
}  // namespace

AddedKvAttention::AddedKvAttention(const WeightLoader& l, int64_t channels, const Options& o)
    : heads_(static_cast<int>(channels / o.headDim)),
      norm_(l.norm("group_norm", channels, kEps, o.groups)),
      q_(l.linear("to_q", channels, channels)),
      textKv_(l.linears({"add_k_proj", "add_v_proj"}, o.contextWidth, channels, true)),
      out_(l.linear("to_out.0", channels, channels)) {
  if (o.normText) textNorm_ = l.norm("norm_cross", o.contextWidth, kEps, kTextGroups);
  if (!o.textOnly) kv_ = l.linears({"to_k", "to_v"}, channels, channels, true);
}

Tensor AddedKvAttention::contextKeysValues(Context& context, const Tensor& text) const {
  const Tensor out = context.arena.tensor({text.shape[0], text.shape[1], textKv_.weight->n});
  Arena::Scope scope(context.arena);
  return linear(context, textNorm_ ? groupNorm(context, text, *textNorm_) : text, textKv_, {.into = &out});
}

void AddedKvAttention::operator()(Context& context, const Tensor& x, const Tensor& keysValues) const {
  Arena::Scope scope(context.arena);
  const int64_t batch = x.shape[0], pixels = x.shape[1] * x.shape[2], width = x.shape[3];
  const Tensor normed = reshape(groupNorm(context, x, norm_), {batch, pixels, width});
  const Tensor q = linear(context, normed, q_);
  Tensor all = keysValues;
  if (kv_) {
    const Tensor own = linear(context, normed, *kv_);
    const int64_t tokens = keysValues.shape[1];
    all = context.arena.tensor({batch, tokens + pixels, 2 * width});
    for (int64_t b = 0; b < batch; b++) {
      const Tensor image = reshape(slice(context, all, b, 1), {tokens + pixels, 2 * width});
      context.backend.copyColumns(slice(context, keysValues, b, 1), slice(context, image, 0, tokens), 0);
      context.backend.copyColumns(slice(context, own, b, 1), slice(context, image, tokens, pixels), 0);
    }
  }
  const Tensor mixed =
      attention(context, q, columns(context, all, 0, width), columns(context, all, width, width), heads_);
  linear(context, mixed, out_, {.residual = &x, .into = &x});
}

TextPooling::TextPooling(const WeightLoader& l, int64_t width, int64_t out, int heads)
    : heads_(heads),
      norm1_(l.norm("norm1", width, kEps)),
      norm2_(l.norm("norm2", out, kEps)),
      position_(l.table("pool.positional_embedding", 1, width)),
      q_(l.linear("pool.q_proj", width, width)),
      kv_(l.linears({"pool.k_proj", "pool.v_proj"}, width, width, true)),
      projection_(l.linear("proj", width, out)) {}

Tensor TextPooling::operator()(Context& context, const Tensor& text) const {
  const int64_t batch = text.shape[0], length = text.shape[1], width = text.shape[2];
  const Tensor out = context.arena.tensor({batch, projection_.weight->n});
  Arena::Scope scope(context.arena);
  // The mean is seldom needed, so by way of the host.
  std::vector<float> tokens(static_cast<size_t>(text.shape.count())), position(static_cast<size_t>(width));
  context.backend.download(layerNorm(context, text, norm1_), tokens.data());
  const int32_t first = 0;
  context.backend.download(embed(context, position_, nullptr, std::span(&first, 1), 1), position.data());
  std::vector<float> means, joined;
  for (int64_t b = 0; b < batch; b++) {
    const float* of = tokens.data() + b * length * width;
    const size_t begin = means.size();
    for (int64_t c = 0; c < width; c++) {
      double sum = 0;
      for (int64_t t = 0; t < length; t++) sum += of[t * width + c];
      means.push_back(static_cast<float>(sum / static_cast<double>(length)) +
                      position[static_cast<size_t>(c)]);
    }
    joined.insert(joined.end(), means.begin() + static_cast<ptrdiff_t>(begin), means.end());
    joined.insert(joined.end(), of, of + length * width);
  }
  const Tensor q = linear(context, upload(context, means, {batch, 1, width}), q_);
  const Tensor kv = linear(context, upload(context, joined, {batch, length + 1, width}), kv_);
  const Tensor pooled =
      attention(context, q, columns(context, kv, 0, width), columns(context, kv, width, width), heads_);
  const Tensor projected = linear(context, reshape(pooled, {batch, width}), projection_);
  context.backend.copyColumns(layerNorm(context, projected, norm2_), out, 0);
  return out;
}

}  // namespace nd
