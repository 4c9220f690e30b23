#include "engine/models/blocks.h"

#include "engine/attention-maps.h"

namespace nd {

ResnetBlock::ResnetBlock(const WeightLoader& l, int64_t in, int64_t out, float epsilon, int groups,
                         const ResnetOptions& options)
    : out_(out),
      options_(options),
      norm1_(l.norm("norm1", in, epsilon, groups)),
      norm2_(l.norm("norm2", out, epsilon, groups)),
      conv1_(l.conv("conv1", in, out)),
      conv2_(l.conv("conv2", out, out)) {
  if (in != out) shortcut_ = l.conv("conv_shortcut", in, out, 1, 1, 0);
}

Tensor ResnetBlock::operator()(Context& context, const Tensor& x, const Tensor* skip, const Tensor* time,
                               const Tensor* into) const {
  using Resample = ResnetOptions::Resample;
  const auto resized = [&](const Tensor& t) {
    return options_.resample == Resample::Up ? upsample(context, t) : averagePool(context, t);
  };
  const auto side = [&](int64_t n) {
    return options_.resample == Resample::Up ? 2 * n : options_.resample == Resample::Down ? n / 2 : n;
  };
  const Shape shape = {x.shape[0], side(x.shape[1]), side(x.shape[2]), out_};
  const Tensor y = into ? *into : context.arena.tensor(shape);
  Arena::Scope scope(context.arena);
  // h is made before its input so that the input's memory can be given back as soon as conv1 has run.
  const Tensor h = context.arena.tensor(shape);
  {
    Arena::Scope input(context.arena);
    Tensor normed = groupNorm(context, x, norm1_, {.activation = options_.activation, .skip = skip});
    if (options_.resample != Resample::None) normed = resized(normed);
    conv2d(context, normed, conv1_, {.channelAdd = options_.scaleShift ? nullptr : time, .into = &h});
  }
  groupNorm(
      context, h, norm2_,
      {.activation = options_.activation, .into = &h, .modulation = options_.scaleShift ? time : nullptr});
  Tensor residual = x;
  if (shortcut_)
    residual = conv2d(context, x, *shortcut_, {.skip = skip, .into = &y});
  else if (skip)
    residual = concatColumns(context, std::vector<Tensor>{x, *skip});
  else if (options_.resample != Resample::None)
    residual = resized(x);
  conv2d(context, h, conv2_, {.residual = &residual, .into = &y});
  if (options_.outputScale != 1) add(context, y, y, 1 / options_.outputScale - 1, &y);
  return y;
}

Tensor ResnetBlock::consume(Context& context, const Tensor& x, const Tensor* into,
                            const Tensor* between) const {
  if (!shortcut_) return (*this)(context, x, nullptr, nullptr, into ? into : &x);
  const Tensor y = conv2d(context, x, *shortcut_, {.into = into});
  Arena::Scope scope(context.arena);
  groupNorm(context, x, norm1_, {.activation = Activation::Silu, .into = &x});
  const Tensor h = conv2d(context, x, conv1_, {.into = between});
  groupNorm(context, h, norm2_, {.activation = Activation::Silu, .into = &h});
  return conv2d(context, h, conv2_, {.residual = &y, .into = &y});
}

TransformerBlock::TransformerBlock(const WeightLoader& l, int64_t width, int heads, int64_t contextWidth,
                                   bool onlyCross)
    : width_(width),
      heads_(heads),
      onlyCross_(onlyCross),
      norm1_(l.norm("norm1", width, 1e-5f)),
      norm2_(l.norm("norm2", width, 1e-5f)),
      norm3_(l.norm("norm3", width, 1e-5f)),
      selfQkv_(onlyCross ? l.linear("attn1.to_q", width, width, false)
                         : l.linears({"attn1.to_q", "attn1.to_k", "attn1.to_v"}, width, width, false)),
      selfOut_(l.linear("attn1.to_out.0", width, width)),
      crossQ_(l.linear("attn2.to_q", width, width, false)),
      crossKv_(onlyCross ? l.linears({"attn2.to_k", "attn2.to_v", "attn1.to_k", "attn1.to_v"}, contextWidth,
                                     width, false)
                         : l.linears({"attn2.to_k", "attn2.to_v"}, contextWidth, width, false)),
      crossOut_(l.linear("attn2.to_out.0", width, width)),
      up_(l.geglu("ff.net.0.proj", width, 4 * width)),
      down_(l.linear("ff.net.2", 4 * width, width)) {}

Tensor TransformerBlock::contextKeysValues(Context& context, const Tensor& text) const {
  return linear(context, text, crossKv_);
}

Tensor TransformerBlock::firstAttention(Context& context, const Tensor& x, const Attended& attended) const {
  const Tensor qkv = linear(context, layerNorm(context, x, norm1_), selfQkv_);  // [B, L, 3C] or [B, L, C]
  if (onlyCross_)
    return attention(context, qkv, columns(context, attended.text, 2 * width_, width_),
                     columns(context, attended.text, 3 * width_, width_), heads_);
  const Attended::Entries& perturbed = attended.perturbed;
  const auto attend = [&](const Tensor& some) {
    return attention(context, columns(context, some, 0, width_), columns(context, some, width_, width_),
                     columns(context, some, 2 * width_, width_), heads_);
  };
  if (perturbed.count == 0) return attend(qkv);
  const Tensor mixed = context.arena.tensor(x.shape);
  const int64_t end = perturbed.first + perturbed.count;
  const auto put = [&](const Tensor& values, int64_t first) {
    context.backend.copyColumns(values, slice(context, mixed, first, values.shape[0]), 0);
  };
  for (const Attended::Entries& whole :
       {Attended::Entries{0, perturbed.first}, Attended::Entries{end, x.shape[0] - end}}) {
    if (whole.count == 0) continue;
    Arena::Scope scope(context.arena);
    put(attend(slice(context, qkv, whole.first, whole.count)), whole.first);
  }
  put(columns(context, slice(context, qkv, perturbed.first, perturbed.count), 2 * width_, width_),
      perturbed.first);
  return mixed;
}

void TransformerBlock::operator()(Context& context, const Tensor& x, const Attended& attended,
                                  int64_t alike) const {
  {
    Arena::Scope scope(context.arena);
    const Tensor first = slice(context, x, 0, x.shape[0] / alike);
    const Tensor mixed = firstAttention(context, first, attended);
    linear(context, mixed, selfOut_, {.residual = &first, .into = &first});
  }
  repeatFirst(context, x, alike);
  {
    Arena::Scope scope(context.arena);
    const Tensor q = linear(context, layerNorm(context, x, norm2_), crossQ_);
    const auto look = [&](const Tensor& keysValues) {
      return attention(context, q, columns(context, keysValues, 0, width_),
                       columns(context, keysValues, width_, width_), heads_);
    };
    if (context.attentionMaps)
      context.attentionMaps->record(context, q, columns(context, attended.text, 0, width_), heads_);
    const Tensor mixed = look(attended.text);
    for (const Attended::Image& image : attended.images) {
      Arena::Scope more(context.arena);
      add(context, mixed, look(image.keysValues), image.scale, &mixed);
    }
    linear(context, mixed, crossOut_, {.residual = &x, .into = &x});
  }
  Arena::Scope scope(context.arena);
  const Tensor gated = linear(context, layerNorm(context, x, norm3_), up_);  // [B, L, 4C]
  linear(context, gated, down_, {.residual = &x, .into = &x});
}

SpatialTransformer::SpatialTransformer(const WeightLoader& l, int64_t channels, int heads,
                                       int64_t contextWidth, int layers, int groups, bool onlyCross)
    : norm_(l.norm("norm", channels, 1e-6f, groups)),
      projIn_(l.linear("proj_in", channels, channels)),
      projOut_(l.linear("proj_out", channels, channels)) {
  for (int i = 0; i < layers; i++)
    blocks_.emplace_back(l.at("transformer_blocks", i), channels, heads, contextWidth, onlyCross);
}

void SpatialTransformer::operator()(Context& context, const Tensor& x, const Attended* attended,
                                    int64_t alike) const {
  Arena::Scope scope(context.arena);
  const int64_t few = x.shape[0] / alike, length = x.shape[1] * x.shape[2], channels = x.shape[3];
  const Tensor h = context.arena.tensor({x.shape[0], length, channels});
  {
    Arena::Scope input(context.arena);
    const Tensor normed = groupNorm(context, slice(context, x, 0, few), norm_),
                 first = slice(context, h, 0, few);
    linear(context, reshape(normed, {few, length, channels}), projIn_, {.into = &first});
  }
  repeatFirst(context, x, alike);
  if (context.attentionMaps) context.attentionMaps->begin(x.shape[1], x.shape[2]);
  for (size_t i = 0; i < blocks_.size(); i++) blocks_[i](context, h, attended[i], i == 0 ? alike : 1);
  linear(context, h, projOut_, {.residual = &x, .into = &x});
}

}  // namespace nd
