#include "engine/models/unet.h"

namespace nd {

UNet::UNet(const UNetConfig& c, const WeightLoader& l) : UNetEncoder(c, l) {
  const size_t depth = c.levels.size();
  int64_t channels = c.levels.back().channels;
  std::vector<int64_t> skips = skipChannels_;
  for (size_t i = 0; i < depth; i++) {
    const auto& level = c.levels[depth - 1 - i];
    const WeightLoader at = l.at("up_blocks", static_cast<int64_t>(i));
    Block block;
    for (int j = 0; j <= level.resnets; j++) {
      block.stages.push_back(makeStage(at, j, channels + skips.back(), level.channels, level.upHeads,
                                       level.upTransformerLayers, level.contextWidth, level.upOnlyCross));
      skips.pop_back();
      channels = level.channels;
    }
    if (i + 1 < depth && c.addedKv)
      block.resampler =
          makeResnet(at.at("upsamplers.0"), channels, channels, c.outputScale, ResnetOptions::Resample::Up);
    else if (i + 1 < depth)
      block.resample = at.conv("upsamplers.0.conv", channels, channels);
    up_.push_back(std::move(block));
  }
  normOut_ = l.norm("conv_norm_out", channels, c.normEps, c.normGroups);
  convOut_ = l.conv("conv_out", channels, c.outChannels, c.convOutKernel, 1, (c.convOutKernel - 1) / 2);
  finish(l);
}

UNet::Text UNet::prepareText(Context& context, const Tensor& given) const {
  Text out = UNetEncoder::prepareText(context, given);
  const Tensor text = projectText(context, given);
  for (const Block& b : up_) addKeysValues(context, text, b.stages, out);
  return out;
}

Tensor UNet::forward(Context& context, const Tensor& x, const Time& time, int64_t row, const Text& text,
                     const Probe* probe, const Joined& joined) const {
  if (const int64_t whole = int64_t{1} << (up_.size() - 1);
      config_.addedKv && (x.shape[1] % whole || x.shape[2] % whole))
    throw Error(ErrorCode::InvalidArgument,
                format("Expected a width and height that %lld divides (this UNet's blocks halve exactly) but "
                       "received %lld × %lld",
                       static_cast<long long>(whole), static_cast<long long>(x.shape[2]),
                       static_cast<long long>(x.shape[1])));
  const Tensor out = context.arena.tensor({x.shape[0], x.shape[1], x.shape[2], config_.outChannels});
  Arena::Scope scope(context.arena);

  auto [skips, h] = encode(context, x, time, row, text,
                           {.adapters = joined.adapters, .probe = probe, .alike = joined.alike});
  if (joined.control) joined.control(skips, h);

  for (size_t i = 0; i < up_.size(); i++) {
    for (const Stage& stage : up_[i].stages) {
      Tensor skip = skips.back();
      skips.pop_back();
      if (joined.freeU && i < 2) {
        h = scaleBackbone(context, h, i == 0 ? joined.freeU->b1 : joined.freeU->b2);
        skip = scaleLowFrequencies(context, skip, i == 0 ? joined.freeU->s1 : joined.freeU->s2);
      }
      h = run(context, stage, h, &skip, time, row, text);
    }
    if (up_[i].resample)  // to the size of the next skip: twice, or one less on odd maps
      h = conv2d(context, h, *up_[i].resample,
                 {.resizeH = skips.back().shape[1], .resizeW = skips.back().shape[2]});
    if (up_[i].resampler) h = run(context, *up_[i].resampler, h, nullptr, time, row, text);
    if (probe) (*probe)("up" + std::to_string(i), h);
  }

  conv2d(context, groupNorm(context, h, normOut_, {.activation = config_.activation}), convOut_,
         {.into = &out});
  return out;
}

}  // namespace nd
