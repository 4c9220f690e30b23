#include "engine/models/taesd.h"

#include <cmath>

namespace nd {

namespace {

/// A 3×3 convolution without bias.
Conv2d plainConv(const WeightLoader& l, const std::string& name, int64_t channels, int stride) {
  const WeightPtr weight =
      l.weight(WeightKind::Conv, {l.tensor(name + ".weight", {channels, channels, 3, 3})});
  return {weight, nullptr, 3, stride, 1};
}

/// The few values of a picture or of latents, changed one by one on the host.
template <class Change>
void map(Context& context, const Tensor& x, const Tensor& y, Change change) {
  std::vector<float> host(static_cast<size_t>(x.shape.count()));
  context.backend.download(x, host.data());
  for (float& v : host) v = change(v);
  context.backend.upload(host.data(), y);
}

}  // namespace

TinyVae::Block TinyVae::makeBlock(const WeightLoader& l, int64_t channels) {
  return {l.conv("conv.0", channels, channels), l.conv("conv.2", channels, channels),
          l.conv("conv.4", channels, channels)};
}

// The modules of both halves are numbered through: convolutions, blocks, and what has no weights (the
// decoder's first activation, its upsamplers).
TinyVae::TinyVae(const TinyVaeConfig& c, const WeightLoader& l) : config_(c) {
  int64_t module = 0;
  const auto name = [&](const char* half) { return format("%s.layers.%lld", half, (long long)module); };
  for (size_t i = 0; i < c.encoderBlocks.size(); i++, module++) {
    Level level;
    level.conv = i == 0 ? l.conv(name("encoder"), c.inChannels, c.encoderChannels)
                        : plainConv(l, name("encoder"), c.encoderChannels, 2);
    for (int j = 0; j < c.encoderBlocks[i]; j++) {
      module++;
      level.blocks.push_back(makeBlock(l.at(name("encoder")), c.encoderChannels));
    }
    encoder_.push_back(std::move(level));
  }
  if (!encoder_.empty()) encoderOut_ = l.conv(name("encoder"), c.encoderChannels, c.latentChannels);

  module = 0;
  if (!c.decoderBlocks.empty()) decoderIn_ = l.conv(name("decoder"), c.latentChannels, c.decoderChannels);
  module = 2;
  for (size_t i = 0; i < c.decoderBlocks.size(); i++, module++) {
    Level level;
    for (int j = 0; j < c.decoderBlocks[i]; j++, module++)
      level.blocks.push_back(makeBlock(l.at(name("decoder")), c.decoderChannels));
    const bool last = i + 1 == c.decoderBlocks.size();
    if (!last) module++;
    level.conv = last ? l.conv(name("decoder"), c.decoderChannels, c.outChannels)
                      : plainConv(l, name("decoder"), c.decoderChannels, 1);
    decoder_.push_back(std::move(level));
  }
}

int64_t TinyVae::factor() const {
  return int64_t{1} << (std::max(config_.encoderBlocks.size(), config_.decoderBlocks.size()) - 1);
}

void TinyVae::run(Context& context, const Block& block, const Tensor& x) const {
  Arena::Scope scope(context.arena);
  const Tensor a = conv2d(context, x, block.conv1, {.activation = config_.activation});
  const Tensor b = conv2d(context, a, block.conv2, {.activation = config_.activation});
  conv2d(context, b, block.conv3, {.residual = &x, .into = &x});
  activate(context, x, Activation::Relu, &x);
}

Tensor TinyVae::encode(Context& context, const Tensor& x) const {
  if (encoder_.empty())
    throw Error(
        ErrorCode::Unsupported,
        "Expected an autoencoder that encodes but this file holds only the decoder: give the encoder's "
        "file next to it, or a folder with both");
  Tensor h = context.arena.tensor(x.shape);
  map(context, x, h, [](float v) { return (v + 1) / 2; });  // TAESD's pictures are 0..1
  for (const Level& level : encoder_) {
    h = conv2d(context, h, level.conv);
    for (const Block& block : level.blocks) run(context, block, h);
  }
  return conv2d(context, h, encoderOut_);
}

Tensor TinyVae::decode(Context& context, const Tensor& z) const {
  if (decoder_.empty())
    throw Error(
        ErrorCode::Unsupported,
        "Expected an autoencoder that decodes but this file holds only the encoder: give the decoder's "
        "file next to it, or a folder with both");
  const int64_t f = factor();
  const Tensor out = context.arena.tensor({z.shape[0], z.shape[1] * f, z.shape[2] * f, config_.outChannels});
  Arena::Scope scope(context.arena);
  Tensor h = context.arena.tensor(z.shape);
  map(context, z, h, [](float v) { return 3 * std::tanh(v / 3); });
  h = conv2d(context, h, decoderIn_, {.activation = config_.activation});
  for (size_t i = 0; i < decoder_.size(); i++) {
    for (const Block& block : decoder_[i].blocks) run(context, block, h);
    if (i + 1 < decoder_.size())
      h = conv2d(context, h, decoder_[i].conv, {.resizeH = 2 * h.shape[1], .resizeW = 2 * h.shape[2]});
  }
  conv2d(context, h, decoder_.back().conv, {.into = &out});
  map(context, out, out, [](float v) { return 2 * v - 1; });
  return out;
}

}  // namespace nd
