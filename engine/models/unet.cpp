#include "engine/models/unet.h"

#include <algorithm>
#include <cmath>

namespace nd {

std::vector<float> sinusoid(std::span<const float> values, int64_t width, bool flipSinToCos,
                            double freqShift) {
  const int64_t half = width / 2;
  std::vector<float> out(values.size() * static_cast<size_t>(width), 0.0f);  // an odd last column stays 0
  for (size_t r = 0; r < values.size(); r++)
    for (int64_t i = 0; i < half; i++) {
      const float exponent = static_cast<float>(-std::log(10000.0)) * static_cast<float>(i) /
                             static_cast<float>(static_cast<double>(half) - freqShift);
      const float angle = values[r] * std::exp(exponent);
      float* row = out.data() + r * static_cast<size_t>(width);
      row[flipSinToCos ? half + i : i] = std::sin(angle);
      row[flipSinToCos ? i : half + i] = std::cos(angle);
    }
  return out;
}

UNet::Stage UNet::makeStage(const WeightLoader& l, int64_t i, int64_t in, int64_t out, int heads, int layers,
                            int64_t contextWidth) {
  const int64_t timeWidth = 4 * config_.levels[0].channels;
  const WeightLoader resnet = l.at("resnets", i);
  Stage stage{ResnetBlock(resnet, in, out, config_.normEps, config_.normGroups), std::nullopt, timeColumns_,
              textCount_};
  timeWeights_.push_back(resnet.tensor("time_emb_proj.weight", {out, timeWidth}));
  timeBiases_.push_back(resnet.tensor("time_emb_proj.bias", {out}));
  timeColumns_ += out;
  if (heads > 0) {
    stage.transformer.emplace(l.at("attentions", i), out, heads, contextWidth, layers, config_.normGroups);
    textCount_ += layers;
  }
  return stage;
}

UNet::UNet(const UNetConfig& c, const WeightLoader& l) : config_(c) {
  const auto& levels = c.levels;
  const size_t depth = levels.size();
  const int64_t first = levels[0].channels, timeWidth = 4 * first;

  convIn_ = l.conv("conv_in", c.inChannels, first, c.convInKernel, 1, (c.convInKernel - 1) / 2);
  time1_ = l.linear("time_embedding.linear_1", first, timeWidth);
  time2_ = l.linear("time_embedding.linear_2", timeWidth, timeWidth);
  if (c.timeCondWidth) timeCond_ = l.linear("time_embedding.cond_proj", c.timeCondWidth, first, false);
  if (c.addedTimeWidth) {
    added1_ = l.linear("add_embedding.linear_1", c.addedInputWidth, timeWidth);
    added2_ = l.linear("add_embedding.linear_2", timeWidth, timeWidth);
  }

  std::vector<int64_t> skips = {first};  // channels of every skip, as the up path will pop them
  int64_t channels = first;
  for (size_t i = 0; i < depth; i++) {
    const auto& level = levels[i];
    const WeightLoader at = l.at("down_blocks", static_cast<int64_t>(i));
    Block block;
    for (int j = 0; j < level.resnets; j++) {
      block.stages.push_back(makeStage(at, j, channels, level.channels, level.heads, level.transformerLayers,
                                       level.contextWidth));
      channels = level.channels;
      skips.push_back(channels);
    }
    if (i + 1 < depth) {
      block.resample = at.conv("downsamplers.0.conv", channels, channels, 3, 2, c.downsamplePadding);
      skips.push_back(channels);
    }
    down_.push_back(std::move(block));
  }

  if (c.midAttention) {
    const WeightLoader at = l.at("mid_block");
    mid_.push_back(
        makeStage(at, 0, channels, channels, c.midHeads, c.midTransformerLayers, levels.back().contextWidth));
    mid_.push_back(makeStage(at, 1, channels, channels, 0, 0, 0));
  }

  for (size_t i = 0; i < depth; i++) {
    const auto& level = levels[depth - 1 - i];
    const WeightLoader at = l.at("up_blocks", static_cast<int64_t>(i));
    Block block;
    for (int j = 0; j <= level.resnets; j++) {
      block.stages.push_back(makeStage(at, j, channels + skips.back(), level.channels, level.upHeads,
                                       level.upTransformerLayers, level.contextWidth));
      skips.pop_back();
      channels = level.channels;
    }
    if (i + 1 < depth) block.resample = at.conv("upsamplers.0.conv", channels, channels);
    up_.push_back(std::move(block));
  }

  normOut_ = l.norm("conv_norm_out", first, c.normEps, c.normGroups);
  convOut_ = l.conv("conv_out", first, c.outChannels, c.convOutKernel, 1, (c.convOutKernel - 1) / 2);
  timeProjection_ = {l.weight(WeightKind::Linear, timeWeights_), l.weight(WeightKind::Vector, timeBiases_)};
  timeWeights_.clear();
  timeBiases_.clear();
}

UNet::Text UNet::prepareText(Context& context, const Tensor& text) const {
  if (text.shape.last() != config_.levels[0].contextWidth)
    throw Error(
        ErrorCode::InvalidArgument,
        format("Expected text embeddings of width %lld (the UNet's cross_attention_dim) but received %lld",
               static_cast<long long>(config_.levels[0].contextWidth),
               static_cast<long long>(text.shape.last())));
  Text out;
  const auto collect = [&](const std::vector<Stage>& stages) {
    for (const Stage& s : stages)
      if (s.transformer)
        for (const TransformerBlock& block : s.transformer->blocks())
          out.push_back({block.contextKeysValues(context, text), {}});
  };
  for (const Block& b : down_) collect(b.stages);
  collect(mid_);
  for (const Block& b : up_) collect(b.stages);
  return out;
}

UNet::Time UNet::prepareTime(Context& context, std::span<const float> timesteps, int64_t perRow,
                             const AddedConditions& added) const {
  const int64_t count = static_cast<int64_t>(timesteps.size()), width = config_.levels[0].channels;
  const Shape wide = {count, 4 * width};
  Time time{context.arena.tensor(wide), context.arena.tensor({count, timeColumns_}), perRow};
  Arena::Scope scope(context.arena);
  /// Host rows [perRow, n], repeated for every row of the plan.
  const auto repeated = [&](const std::vector<float>& host) {
    std::vector<float> all;
    if (host.empty() || static_cast<int64_t>(host.size()) % perRow != 0)
      throw Error(ErrorCode::InvalidArgument, format("Expected pooled text and time ids for each of %lld "
                                                     "batch entries (SDXL) but received %zu values",
                                                     static_cast<long long>(perRow), host.size()));
    for (int64_t r = 0; r < count / perRow; r++) all.insert(all.end(), host.begin(), host.end());
    return upload(context, all, {count, static_cast<int64_t>(host.size()) / perRow});
  };

  Tensor h =
      upload(context, sinusoid(timesteps, width, config_.flipSinToCos, config_.freqShift), {count, width});
  if (config_.timeCondWidth && !added.timeCond.empty())
    h = linear(context, repeated(added.timeCond), timeCond_, {.residual = &h});
  linear(context, linear(context, h, time1_, {.activation = Activation::Silu}), time2_,
         {.into = &time.embedding});

  Tensor embedding = time.embedding;
  if (config_.addedTimeWidth) {
    const std::vector<float> ids =
        sinusoid(added.timeIds, config_.addedTimeWidth, config_.flipSinToCos, config_.freqShift);
    const Tensor joined =
        concatColumns(context, std::vector<Tensor>{repeated(added.textEmbeds), repeated(ids)});
    if (joined.shape.last() != config_.addedInputWidth)
      throw Error(ErrorCode::InvalidArgument,
                  format("Expected pooled text and %lld-wide time ids to fill %lld columns (the UNet's "
                         "projection_class_embeddings_input_dim) but received %lld",
                         static_cast<long long>(config_.addedTimeWidth),
                         static_cast<long long>(config_.addedInputWidth),
                         static_cast<long long>(joined.shape.last())));
    const Tensor hidden = linear(context, joined, added1_, {.activation = Activation::Silu});
    embedding = linear(context, hidden, added2_, {.residual = &time.embedding});
  }
  linear(context, activate(context, embedding, Activation::Silu), timeProjection_,
         {.into = &time.projections});
  return time;
}

UNet::Time UNet::oneTime(Context& context, const Time& all) const {
  return {context.arena.tensor({all.perRow, all.embedding.shape.last()}),
          context.arena.tensor({all.perRow, timeColumns_}), all.perRow};
}

void UNet::selectTime(Context& context, const Time& all, int64_t row, const Time& one) const {
  const auto copy = [&](const Tensor& from, const Tensor& to) {
    context.backend.copyColumns(slice(context, from, row * all.perRow, all.perRow), to, 0);
  };
  copy(all.embedding, one.embedding);
  copy(all.projections, one.projections);
}

Tensor UNet::run(Context& context, const Stage& stage, const Tensor& x, const Tensor* skip, const Time& time,
                 int64_t row, const Text& text) const {
  const Tensor rows = slice(context, time.projections, row * time.perRow, time.perRow);
  const Tensor shift = columns(context, rows, stage.timeColumn, stage.resnet.out());
  const Tensor y = stage.resnet(context, x, skip, &shift);
  if (stage.transformer) (*stage.transformer)(context, y, text.data() + stage.textIndex);
  return y;
}

Tensor UNet::forward(Context& context, const Tensor& x, const Time& time, int64_t row, const Text& text,
                     const Probe* probe) const {
  const auto seen = [&](const char* name, int64_t i, const Tensor& value) {
    if (probe) (*probe)(i < 0 ? name : name + std::to_string(i), value);
  };
  const Tensor out = context.arena.tensor({x.shape[0], x.shape[1], x.shape[2], config_.outChannels});
  Arena::Scope scope(context.arena);
  seen("time_embedding", -1, slice(context, time.embedding, row * time.perRow, time.perRow));

  Tensor h = conv2d(context, x, convIn_);
  seen("conv_in", -1, h);
  std::vector<Tensor> skips = {h};

  for (size_t i = 0; i < down_.size(); i++) {
    for (const Stage& stage : down_[i].stages)
      skips.push_back(h = run(context, stage, h, nullptr, time, row, text));
    if (down_[i].resample) skips.push_back(h = conv2d(context, h, *down_[i].resample));
    seen("down", static_cast<int64_t>(i), h);
  }

  for (const Stage& stage : mid_) h = run(context, stage, h, nullptr, time, row, text);
  if (!mid_.empty()) seen("mid", -1, h);

  for (size_t i = 0; i < up_.size(); i++) {
    for (const Stage& stage : up_[i].stages) {
      const Tensor skip = skips.back();
      skips.pop_back();
      h = run(context, stage, h, &skip, time, row, text);
    }
    if (up_[i].resample)  // to the size of the next skip: twice, or one less on odd maps
      h = conv2d(context, h, *up_[i].resample,
                 {.resizeH = skips.back().shape[1], .resizeW = skips.back().shape[2]});
    seen("up", static_cast<int64_t>(i), h);
  }

  conv2d(context, groupNorm(context, h, normOut_, {.activation = Activation::Silu}), convOut_,
         {.into = &out});
  return out;
}

}  // namespace nd
