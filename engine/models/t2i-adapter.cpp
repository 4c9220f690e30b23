#include "engine/models/t2i-adapter.h"

#include <algorithm>

namespace nd {

namespace {

/// Means of 2 × 2 pixels; of what there is at odd edges (torch.nn.AvgPool2d with ceil_mode). On the host: an
/// adapter runs once per picture.
Tensor halved(Context& context, const Tensor& x) {
  const int64_t planes = x.shape[0] * x.shape[3], height = x.shape[1], width = x.shape[2];
  const int64_t outH = (height + 1) / 2, outW = (width + 1) / 2;
  std::vector<float> in(static_cast<size_t>(x.shape.count()));
  std::vector<float> out(static_cast<size_t>(planes * outH * outW));
  context.backend.downloadImage(x, in.data());
  for (int64_t p = 0; p < planes; p++)
    for (int64_t i = 0; i < outH; i++)
      for (int64_t j = 0; j < outW; j++) {
        const int64_t bottom = std::min(2 * i + 2, height), right = std::min(2 * j + 2, width);
        float sum = 0;
        for (int64_t y = 2 * i; y < bottom; y++)
          for (int64_t c = 2 * j; c < right; c++)
            sum += in[static_cast<size_t>((p * height + y) * width + c)];
        out[static_cast<size_t>((p * outH + i) * outW + j)] =
            sum / static_cast<float>((bottom - 2 * i) * (right - 2 * j));
      }
  return uploadImage(context, out.data(), x.shape[0], x.shape[3], outH, outW);
}

}  // namespace

T2iAdapter::T2iAdapter(const T2iAdapterConfig& c, const WeightLoader& root) : config_(c) {
  using Kind = T2iAdapterConfig::Kind;
  const WeightLoader l = root.at("adapter");
  const bool light = c.kind == Kind::Light;
  const int64_t tiles = c.inChannels * c.downscaleFactor * c.downscaleFactor;
  const size_t count = c.widths.size() + (light ? 1 : 0);
  if (!light) convIn_ = l.conv("conv_in", tiles, c.widths[0]);
  for (size_t i = 0; i < count; i++) {
    const WeightLoader at = l.at("body", static_cast<int64_t>(i));
    const int64_t to = c.widths[std::min(i, c.widths.size() - 1)];
    const int64_t from = i > 0 ? c.widths[i - 1] : light ? tiles : to;
    Block block;
    block.down = c.kind == Kind::FullXl ? i == 2 : i > 0;
    const int64_t width = light ? to / 4 : to;
    if (light || from != to) block.in = at.conv("in_conv", from, width, 1, 1, 0);
    for (int64_t j = 0; j < c.resnets; j++) {
      const WeightLoader resnet = at.at("resnets", j);
      const int kernel = light ? 3 : 1;
      block.resnets.push_back({resnet.conv("block1", width, width),
                               resnet.conv("block2", width, width, kernel, 1, (kernel - 1) / 2)});
    }
    if (light) block.out = at.conv("out_conv", width, to, 1, 1, 0);
    blocks_.push_back(std::move(block));
  }
}

Tensor T2iAdapter::run(Context& context, const Block& block, const Tensor& x) const {
  Tensor h = block.down ? halved(context, x) : x;
  if (block.in) h = conv2d(context, h, *block.in);
  for (const Resnet& r : block.resnets) {
    const Tensor inner = conv2d(context, h, r.first, {.activation = Activation::Relu});
    h = conv2d(context, inner, r.second, {.residual = &h});
  }
  return block.out ? conv2d(context, h, *block.out) : h;
}

std::vector<Tensor> T2iAdapter::operator()(Context& context, const Tensor& tiles) const {
  Tensor h = convIn_ ? conv2d(context, tiles, *convIn_) : tiles;
  std::vector<Tensor> maps;
  for (const Block& block : blocks_) maps.push_back(h = run(context, block, h));
  return maps;
}

}  // namespace nd
