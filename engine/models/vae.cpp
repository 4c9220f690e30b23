#include "engine/models/vae.h"

namespace nd {

namespace {
constexpr float kEps = 1e-6f;
}

Vae::Middle Vae::makeMiddle(const WeightLoader& l, int64_t channels) const {
  Middle m;
  for (int i = 0; i < 2; i++)
    m.resnets.emplace_back(l.at("resnets", i), channels, channels, kEps, config_.normGroups);
  if (config_.midAttention)
    m.attention.emplace(l.at("attentions.0"), channels, /*heads=*/1, kEps, config_.normGroups);
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
  if (m.attention) (*m.attention)(context, x);
  m.resnets[1].consume(context, x);
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
    for (const ResnetBlock& resnet : block.resnets) h = resnet.consume(context, h);
    if (block.resample) h = conv2d(context, h, *block.resample, {.padBottomRightOnly = true});
  }
  middle(context, encoderMiddle_, h);
  h = conv2d(context, groupNorm(context, h, encoderNorm_, {.activation = Activation::Silu}), encoderOut_);
  return quant_ ? conv2d(context, h, *quant_) : h;
}

// A level's result is allocated before the levels below it, whose memory is free again when it is computed:
// the largest maps stand side by side with their own kind alone. The map below, which is read before the
// first resnet's two convolutions begin, lies where the map between them will.
void Vae::up(Context& context, size_t level, const Tensor& z, const Tensor& out) const {
  const Block& block = up_[level];
  const int64_t channels = level == 0 ? config_.channels.back() : up_[level - 1].resnets.back().out();
  const bool widens = channels != out.shape[3];
  Arena::Scope scope(context.arena);
  const Tensor between = widens ? context.arena.tensor(out.shape) : Tensor();
  Tensor below;
  if (level > 0) {
    const Shape shape = {out.shape[0], out.shape[1] / 2, out.shape[2] / 2, channels};
    const bool fits = widens && shape.count() <= out.shape.count();
    below = fits ? Tensor{between.data, shape, channels} : context.arena.tensor(shape);
    up(context, level - 1, z, below);
  }
  {
    Arena::Scope input(context.arena);
    const Tensor h =
        widens ? context.arena.tensor({out.shape[0], out.shape[1], out.shape[2], channels}) : out;
    if (level > 0) {
      conv2d(context, below, *up_[level - 1].resample,
             {.resizeH = out.shape[1], .resizeW = out.shape[2], .into = &h});
    } else {
      conv2d(context, postQuant_ ? conv2d(context, z, *postQuant_) : z, decoderIn_, {.into = &h});
      middle(context, decoderMiddle_, h);
    }
    block.resnets[0].consume(context, h, &out, widens ? &between : nullptr);
  }
  for (size_t i = 1; i < block.resnets.size(); i++) block.resnets[i].consume(context, out);
}

Tensor Vae::decode(Context& context, const Tensor& z) const {
  const int64_t f = factor(), height = z.shape[1] * f, width = z.shape[2] * f;
  const Tensor picture = context.arena.tensor({z.shape[0], height, width, config_.outChannels});
  Arena::Scope scope(context.arena);
  const Tensor h = context.arena.tensor({z.shape[0], height, width, config_.channels.front()});
  up(context, up_.size() - 1, z, h);
  groupNorm(context, h, decoderNorm_, {.activation = Activation::Silu, .into = &h});
  conv2d(context, h, decoderOut_, {.into = &picture});
  return picture;
}

}  // namespace nd
