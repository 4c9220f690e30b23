#include "engine/models/vae.h"

namespace nd {

namespace {
constexpr float kEps = 1e-6f;
}

Vae::Middle Vae::makeMiddle(const WeightLoader& l, int64_t channels) const {
  Middle m;
  for (int i = 0; i < 2; i++)
    m.resnets.emplace_back(l.at("resnets", i), channels, channels, kEps, config_.normGroups);
  if (config_.midAttention) {
    const WeightLoader a = l.at("attentions.0");
    m.attention = Attention{a.norm("group_norm", channels, kEps, config_.normGroups),
                            a.linears({"to_q", "to_k", "to_v"}, channels, channels, true),
                            a.linear("to_out.0", channels, channels)};
  }
  return m;
}

Vae::Vae(const VaeConfig& c, const WeightLoader& l) : config_(c) {
  const size_t depth = c.channels.size();
  const int64_t first = c.channels.front(), last = c.channels.back();

  const WeightLoader e = l.at("encoder");
  encoderIn_ = e.conv("conv_in", c.inChannels, first);
  int64_t channels = first;
  for (size_t i = 0; i < depth; i++) {
    const WeightLoader at = e.at("down_blocks", static_cast<int64_t>(i));
    Block block;
    for (int j = 0; j < c.resnets; j++) {
      block.resnets.emplace_back(at.at("resnets", j), channels, c.channels[i], kEps, c.normGroups);
      channels = c.channels[i];
    }
    if (i + 1 < depth) block.resample = at.conv("downsamplers.0.conv", channels, channels, 3, 2, 1);
    down_.push_back(std::move(block));
  }
  encoderMiddle_ = makeMiddle(e.at("mid_block"), last);
  encoderNorm_ = e.norm("conv_norm_out", last, kEps, c.normGroups);
  encoderOut_ = e.conv("conv_out", last, 2 * c.latentChannels);
  if (c.quantConv) quant_ = l.conv("quant_conv", 2 * c.latentChannels, 2 * c.latentChannels, 1, 1, 0);

  if (c.postQuantConv) postQuant_ = l.conv("post_quant_conv", c.latentChannels, c.latentChannels, 1, 1, 0);
  const WeightLoader d = l.at("decoder");
  decoderIn_ = d.conv("conv_in", c.latentChannels, last);
  decoderMiddle_ = makeMiddle(d.at("mid_block"), last);
  channels = last;
  for (size_t i = 0; i < depth; i++) {
    const WeightLoader at = d.at("up_blocks", static_cast<int64_t>(i));
    Block block;
    for (int j = 0; j <= c.resnets; j++) {
      block.resnets.emplace_back(at.at("resnets", j), channels, c.channels[depth - 1 - i], kEps,
                                 c.normGroups);
      channels = c.channels[depth - 1 - i];
    }
    if (i + 1 < depth) block.resample = at.conv("upsamplers.0.conv", channels, channels);
    up_.push_back(std::move(block));
  }
  decoderNorm_ = d.norm("conv_norm_out", first, kEps, c.normGroups);
  decoderOut_ = d.conv("conv_out", first, c.outChannels);
}

void Vae::middle(Context& context, const Middle& m, const Tensor& x) const {
  m.resnets[0].consume(context, x);
  if (m.attention) {
    Arena::Scope scope(context.arena);
    const int64_t width = x.shape[3];
    const Tensor tokens =
        reshape(groupNorm(context, x, m.attention->norm), {x.shape[0], x.shape[1] * x.shape[2], width});
    const Tensor qkv = linear(context, tokens, m.attention->qkv);
    const Tensor mixed =
        attention(context, columns(context, qkv, 0, width), columns(context, qkv, width, width),
                  columns(context, qkv, 2 * width, width), /*heads=*/1);
    linear(context, mixed, m.attention->out, {.residual = &x, .into = &x});
  }
  m.resnets[1].consume(context, x);
}

Tensor Vae::resnets(Context& context, const Block& block, Tensor h) const {
  for (const ResnetBlock& resnet : block.resnets) h = resnet.consume(context, h);
  return h;
}

Tensor Vae::encode(Context& context, const Tensor& x) const {
  const int64_t f = factor();
  if (x.shape[1] < f || x.shape[2] < f)
    throw Error(ErrorCode::InvalidArgument,
                format("Expected a picture of at least %lldx%lld but received %s", static_cast<long long>(f),
                       static_cast<long long>(f), x.shape.text().c_str()));
  // The encoder halves maps rounding down, so the size of the moments is known only at the end.
  Tensor h = conv2d(context, x, encoderIn_);
  for (const Block& block : down_) {
    h = resnets(context, block, h);
    if (block.resample) h = conv2d(context, h, *block.resample, {.padBottomRightOnly = true});
  }
  middle(context, encoderMiddle_, h);
  h = conv2d(context, groupNorm(context, h, encoderNorm_, {.activation = Activation::Silu}), encoderOut_);
  return quant_ ? conv2d(context, h, *quant_) : h;
}

Tensor Vae::decode(Context& context, const Tensor& z) const {
  const int64_t f = factor();
  const Tensor out = context.arena.tensor({z.shape[0], z.shape[1] * f, z.shape[2] * f, config_.outChannels});
  Arena::Scope scope(context.arena);
  Tensor h = postQuant_ ? conv2d(context, z, *postQuant_) : z;
  h = conv2d(context, h, decoderIn_);
  middle(context, decoderMiddle_, h);
  for (const Block& block : up_) {
    h = resnets(context, block, h);
    if (block.resample)
      h = conv2d(context, h, *block.resample, {.resizeH = 2 * h.shape[1], .resizeW = 2 * h.shape[2]});
  }
  conv2d(context, groupNorm(context, h, decoderNorm_, {.activation = Activation::Silu}), decoderOut_,
         {.into = &out});
  return out;
}

}  // namespace nd
