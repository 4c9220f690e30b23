#include "engine/models/controlnet.h"

#include <cmath>

namespace nd {

namespace {

/// Means over the map, [B, H, W, C] → [B, 1, 1, C]: attention of a query of zeros weighs all pixels alike.
Tensor mapMean(Context& context, const Tensor& x) {
  const int64_t batch = x.shape[0], pixels = x.shape[1] * x.shape[2], channels = x.shape[3];
  const Tensor first{x.data, {batch, 1, channels}, pixels * channels};
  const Tensor zeros = add(context, first, first, -1), tokens = reshape(x, {batch, pixels, channels});
  const int64_t width = channels % 64 == 0 ? 64 : channels % 8 == 0 ? 8 : channels;
  const Tensor mean = attention(context, zeros, tokens, tokens, static_cast<int>(channels / width));
  return reshape(mean, {batch, 1, 1, channels});
}

}  // namespace

ControlNet::ControlNet(const ControlNetConfig& c, const WeightLoader& l)
    : UNetEncoder(c.unet, l), config_(c) {
  const WeightLoader embedding = l.at("controlnet_cond_embedding");
  picture_.push_back(embedding.conv("conv_in", c.pictureChannels, c.pictureWidths[0]));
  for (size_t i = 0; i + 1 < c.pictureWidths.size(); i++) {
    const int64_t in = c.pictureWidths[i], out = c.pictureWidths[i + 1];
    const std::string name = "blocks.";
    picture_.push_back(embedding.conv(name + std::to_string(2 * i), in, in));
    picture_.push_back(embedding.conv(name + std::to_string(2 * i + 1), in, out, 3, 2));
  }
  picture_.push_back(embedding.conv("conv_out", c.pictureWidths.back(), c.unet.levels[0].channels));

  for (size_t i = 0; i < skipChannels_.size(); i++)
    zero_.push_back(
        l.conv("controlnet_down_blocks." + std::to_string(i), skipChannels_[i], skipChannels_[i], 1, 1, 0));
  const int64_t deepest = c.unet.levels.back().channels;
  zero_.push_back(l.conv("controlnet_mid_block", deepest, deepest, 1, 1, 0));
  finish(l);
}

Tensor ControlNet::hint(Context& context, const Tensor& pictures) const {
  const int64_t step = factor();
  const Tensor out =
      context.arena.tensor({pictures.shape[0], (pictures.shape[1] + step - 1) / step,
                            (pictures.shape[2] + step - 1) / step, config_.unet.levels[0].channels});
  Arena::Scope scope(context.arena);
  Tensor h = pictures;
  for (size_t i = 0; i + 1 < picture_.size(); i++)
    h = conv2d(context, h, picture_[i], {.activation = Activation::Silu});
  return conv2d(context, h, picture_.back(), {.into = &out});
}

void ControlNet::forward(Context& context, const Tensor& x, const Tensor& hint, const Time& time, int64_t row,
                         const Text& text, const Receive& receive, int64_t alike) const {
  Arena::Scope scope(context.arena);
  const Encoded encoded = encode(context, x, time, row, text, {.hint = &hint, .alike = alike});
  for (size_t i = 0; i < count(); i++) {
    Arena::Scope each(context.arena);
    receive(i, residual(context, i, i + 1 < count() ? encoded.skips[i] : encoded.mid));
  }
}

Tensor ControlNet::residual(Context& context, size_t index, const Tensor& map) const {
  return conv2d(context, config_.globalPool ? mapMean(context, map) : map, zero_[index]);
}

double guessScale(size_t index, size_t count) {
  return std::pow(10.0, static_cast<double>(index) / static_cast<double>(count - 1) - 1);
}

}  // namespace nd
