#include "engine/models/unet2d.h"

#include "engine/models/unet.h"

namespace nd {

UNet2d::Stage UNet2d::makeStage(const WeightLoader& l, int64_t i, int64_t in, int64_t out, int heads,
                                int groups) {
  const WeightLoader resnet = l.at("resnets", i);
  Stage stage{ResnetBlock(resnet, in, out, config_.normEps, config_.normGroups), std::nullopt, timeColumns_};
  timeWeights_.push_back(resnet.tensor("time_emb_proj.weight", {out, config_.timeWidth}));
  timeBiases_.push_back(resnet.tensor("time_emb_proj.bias", {out}));
  timeColumns_ += out;
  if (heads > 0) stage.attention.emplace(l.at("attentions", i), out, heads, config_.normEps, groups);
  return stage;
}

UNet2d::UNet2d(const UNet2dConfig& c, const WeightLoader& l) : config_(c) {
  const auto& levels = c.levels;
  const size_t depth = levels.size();
  const int64_t first = levels[0].channels;
  convIn_ = l.conv("conv_in", c.inChannels, first);
  time1_ = l.linear("time_embedding.linear_1", first, c.timeWidth);
  time2_ = l.linear("time_embedding.linear_2", c.timeWidth, c.timeWidth);

  std::vector<int64_t> skips = {first};  // channels of every skip, as the up path will pop them
  int64_t channels = first;
  for (size_t i = 0; i < depth; i++) {
    const WeightLoader at = l.at("down_blocks", static_cast<int64_t>(i));
    Block block;
    for (int j = 0; j < c.resnets; j++) {
      block.stages.push_back(makeStage(at, j, channels, levels[i].channels, levels[i].heads, c.normGroups));
      skips.push_back(channels = levels[i].channels);
    }
    if (i + 1 < depth) {
      block.resample = at.conv("downsamplers.0.conv", channels, channels, 3, 2);
      skips.push_back(channels);
    }
    down_.push_back(std::move(block));
  }

  if (c.middle) {
    const WeightLoader at = l.at("mid_block");
    mid_.push_back(makeStage(at, 0, channels, channels, c.midHeads, c.midGroups));
    mid_.push_back(makeStage(at, 1, channels, channels, 0, 0));
  }

  for (size_t i = 0; i < depth; i++) {
    const auto& level = levels[depth - 1 - i];
    const WeightLoader at = l.at("up_blocks", static_cast<int64_t>(i));
    Block block;
    for (int j = 0; j <= c.resnets; j++) {
      block.stages.push_back(
          makeStage(at, j, channels + skips.back(), level.channels, level.upHeads, c.normGroups));
      skips.pop_back();
      channels = level.channels;
    }
    if (i + 1 < depth) block.resample = at.conv("upsamplers.0.conv", channels, channels);
    up_.push_back(std::move(block));
  }

  normOut_ = l.norm("conv_norm_out", first, c.normEps, c.normGroups);
  convOut_ = l.conv("conv_out", first, c.outChannels);
  timeProjection_ = {l.weight(WeightKind::Linear, timeWeights_), l.weight(WeightKind::Vector, timeBiases_)};
  timeWeights_.clear();
  timeBiases_.clear();
}

Tensor UNet2d::prepareTime(Context& context, std::span<const float> timesteps) const {
  const int64_t count = static_cast<int64_t>(timesteps.size()), width = config_.levels[0].channels;
  const Tensor projections = context.arena.tensor({count, timeColumns_});
  Arena::Scope scope(context.arena);
  const Tensor h =
      upload(context, sinusoid(timesteps, width, config_.flipSinToCos, config_.freqShift), {count, width});
  // The activation after the second layer is that of the residual blocks.
  const Tensor embedding = linear(context, linear(context, h, time1_, {.activation = Activation::Silu}),
                                  time2_, {.activation = Activation::Silu});
  return linear(context, embedding, timeProjection_, {.into = &projections});
}

Tensor UNet2d::run(Context& context, const Stage& stage, const Tensor& x, const Tensor* skip,
                   const Tensor& time) const {
  const Tensor shift = columns(context, time, stage.timeColumn, stage.resnet.out());
  const Tensor y = stage.resnet(context, x, skip, &shift);
  if (stage.attention) (*stage.attention)(context, y);
  return y;
}

Tensor UNet2d::forward(Context& context, const Tensor& x, const Tensor& time) const {
  const Tensor out = context.arena.tensor({x.shape[0], x.shape[1], x.shape[2], config_.outChannels});
  Arena::Scope scope(context.arena);
  Tensor h = conv2d(context, x, convIn_);
  std::vector<Tensor> skips = {h};
  for (const Block& block : down_) {
    for (const Stage& stage : block.stages) skips.push_back(h = run(context, stage, h, nullptr, time));
    if (block.resample)
      skips.push_back(
          h = conv2d(context, h, *block.resample, {.padBottomRightOnly = config_.downsamplePadding == 0}));
  }
  for (const Stage& stage : mid_) h = run(context, stage, h, nullptr, time);
  for (const Block& block : up_) {
    for (const Stage& stage : block.stages) {
      const Tensor skip = skips.back();
      skips.pop_back();
      h = run(context, stage, h, &skip, time);
    }
    if (block.resample)
      h = conv2d(context, h, *block.resample,
                 {.resizeH = skips.back().shape[1], .resizeW = skips.back().shape[2]});
  }
  conv2d(context, groupNorm(context, h, normOut_, {.activation = Activation::Silu}), convOut_,
         {.into = &out});
  return out;
}

}  // namespace nd
