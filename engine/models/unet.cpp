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

UNet::Stage UNet::makeResnet(const WeightLoader& l, int64_t in, int64_t out, float outputScale,
                             ResnetOptions::Resample resample) {
  const ResnetOptions options{config_.activation, config_.scaleShift, outputScale, resample};
  Stage stage{ResnetBlock(l, in, out, config_.normEps, config_.normGroups, options), std::nullopt,
              std::nullopt, timeColumns_, textCount_};
  const int64_t columns = stage.resnet.timeColumns();
  timeWeights_.push_back(l.tensor("time_emb_proj.weight", {columns, config_.embeddingWidth()}));
  timeBiases_.push_back(l.tensor("time_emb_proj.bias", {columns}));
  timeColumns_ += columns;
  return stage;
}

UNet::Stage UNet::makeStage(const WeightLoader& l, int64_t i, int64_t in, int64_t out, int heads, int layers,
                            int64_t contextWidth, bool middle) {
  Stage stage =
      makeResnet(l.at("resnets", i), in, out, middle ? config_.midOutputScale : config_.outputScale);
  if (heads > 0 && config_.addedKv) {
    stage.attention.emplace(
        l.at("attentions", i), out,
        AddedKvAttention::Options{static_cast<int>(out / heads), config_.normGroups, contextWidth,
                                  config_.normText, middle ? config_.midTextOnly : config_.textOnly});
    textCount_++;
  } else if (heads > 0) {
    stage.transformer.emplace(l.at("attentions", i), out, heads, contextWidth, layers, config_.normGroups);
    textCount_ += layers;
  }
  return stage;
}

UNet::UNet(const UNetConfig& c, const WeightLoader& l) : config_(c) {
  const auto& levels = c.levels;
  const size_t depth = levels.size();
  const int64_t first = levels[0].channels, timeWidth = c.embeddingWidth();
  using Resample = ResnetOptions::Resample;

  convIn_ = l.conv("conv_in", c.inChannels, first, c.convInKernel, 1, (c.convInKernel - 1) / 2);
  time1_ = l.linear("time_embedding.linear_1", first, timeWidth);
  time2_ = l.linear("time_embedding.linear_2", timeWidth, timeWidth);
  if (c.timeCondWidth) timeCond_ = l.linear("time_embedding.cond_proj", c.timeCondWidth, first, false);
  if (c.addedTimeWidth) {
    added1_ = l.linear("add_embedding.linear_1", c.addedInputWidth, timeWidth);
    added2_ = l.linear("add_embedding.linear_2", timeWidth, timeWidth);
  }

  if (c.classTimestep) {
    class1_ = l.linear("class_embedding.linear_1", first, timeWidth);
    class2_ = l.linear("class_embedding.linear_2", timeWidth, timeWidth);
  }
  if (c.encoderWidth)
    encoderProjection_ = l.linear("encoder_hid_proj", c.encoderWidth, levels[0].contextWidth);
  if (c.textPoolHeads) textPooling_.emplace(l.at("add_embedding"), textWidth(), timeWidth, c.textPoolHeads);

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
      if (c.addedKv)
        block.resampler =
            makeResnet(at.at("downsamplers.0"), channels, channels, c.outputScale, Resample::Down);
      else
        block.resample = at.conv("downsamplers.0.conv", channels, channels, 3, 2, c.downsamplePadding);
      skips.push_back(channels);
    }
    down_.push_back(std::move(block));
  }

  if (c.midAttention) {
    const WeightLoader at = l.at("mid_block");
    mid_.push_back(makeStage(at, 0, channels, channels, c.midHeads, c.midTransformerLayers,
                             levels.back().contextWidth, /*middle=*/true));
    mid_.push_back(makeStage(at, 1, channels, channels, 0, 0, 0, /*middle=*/true));
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
    if (i + 1 < depth && c.addedKv)
      block.resampler = makeResnet(at.at("upsamplers.0"), channels, channels, c.outputScale, Resample::Up);
    else if (i + 1 < depth)
      block.resample = at.conv("upsamplers.0.conv", channels, channels);
    up_.push_back(std::move(block));
  }

  normOut_ = l.norm("conv_norm_out", first, c.normEps, c.normGroups);
  convOut_ = l.conv("conv_out", first, c.outChannels, c.convOutKernel, 1, (c.convOutKernel - 1) / 2);
  timeProjection_ = {l.weight(WeightKind::Linear, timeWeights_), l.weight(WeightKind::Vector, timeBiases_)};
  timeWeights_.clear();
  timeBiases_.clear();
}

UNet::Text UNet::prepareText(Context& context, const Tensor& given) const {
  if (given.shape.last() != textWidth())
    throw Error(ErrorCode::InvalidArgument,
                format("Expected text embeddings of width %lld (the UNet's %s) but received %lld",
                       static_cast<long long>(textWidth()),
                       config_.encoderWidth ? "encoder_hid_dim" : "cross_attention_dim",
                       static_cast<long long>(given.shape.last())));
  const Tensor text = config_.encoderWidth ? linear(context, given, encoderProjection_) : given;
  Text out;
  const auto collect = [&](const std::vector<Stage>& stages) {
    for (const Stage& s : stages)
      if (s.attention)
        out.push_back(s.attention->contextKeysValues(context, text));
      else if (s.transformer)
        for (const TransformerBlock& block : s.transformer->blocks())
          out.push_back(block.contextKeysValues(context, text));
  };
  for (const Block& b : down_) collect(b.stages);
  collect(mid_);
  for (const Block& b : up_) collect(b.stages);
  return out;
}

UNet::Time UNet::prepareTime(Context& context, std::span<const float> timesteps, int64_t perRow,
                             const AddedConditions& added) const {
  const int64_t count = static_cast<int64_t>(timesteps.size()), width = config_.levels[0].channels;
  const Shape wide = {count, config_.embeddingWidth()};
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
  linear(context, linear(context, h, time1_, {.activation = config_.activation}), time2_,
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
  /// Rows [perRow, n] of the backend, added for every row of the plan.
  const auto addRepeated = [&](const Tensor& rows) {
    expect(rows.shape.rows() == perRow, "a row per batch entry");
    std::vector<int32_t> of;
    for (int64_t r = 0; r < count; r++) of.push_back(static_cast<int32_t>(r % perRow));
    embedding = add(context, embedding, gatherRows(context, rows, of));
  };
  if (config_.classTimestep) {
    if (static_cast<int64_t>(added.noiseLevel.size()) != perRow)
      throw Error(
          ErrorCode::InvalidArgument,
          format("Expected a noise level for each of %lld batch entries (class_embed_type timestep) but "
                 "received %zu",
                 static_cast<long long>(perRow), added.noiseLevel.size()));
    const Tensor level = upload(
        context, sinusoid(added.noiseLevel, width, config_.flipSinToCos, config_.freqShift), {perRow, width});
    addRepeated(
        linear(context, linear(context, level, class1_, {.activation = config_.activation}), class2_));
  }
  if (textPooling_) {
    expect(bool(added.pooledText), "the pooled text (addition_embed_type text)");
    addRepeated(added.pooledText);
  }
  if (config_.timeActivation != Activation::None)
    embedding = activate(context, embedding, config_.timeActivation);
  if (!config_.skipTimeActivation) embedding = activate(context, embedding, config_.activation);
  linear(context, embedding, timeProjection_, {.into = &time.projections});
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
  const Tensor shift = columns(context, rows, stage.timeColumn, stage.resnet.timeColumns());
  const Tensor y = stage.resnet(context, x, skip, &shift);
  if (stage.transformer) (*stage.transformer)(context, y, text.data() + stage.textIndex);
  if (stage.attention) (*stage.attention)(context, y, text[static_cast<size_t>(stage.textIndex)]);
  return y;
}

Tensor UNet::forward(Context& context, const Tensor& x, const Time& time, int64_t row, const Text& text,
                     const Probe* probe) const {
  const auto seen = [&](const char* name, int64_t i, const Tensor& value) {
    if (probe) (*probe)(i < 0 ? name : name + std::to_string(i), value);
  };
  if (const int64_t whole = int64_t{1} << (down_.size() - 1);
      config_.addedKv && (x.shape[1] % whole || x.shape[2] % whole))
    throw Error(ErrorCode::InvalidArgument,
                format("Expected a width and height that %lld divides (this UNet's blocks halve exactly) but "
                       "received %lld × %lld",
                       static_cast<long long>(whole), static_cast<long long>(x.shape[2]),
                       static_cast<long long>(x.shape[1])));
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
    if (down_[i].resampler)
      skips.push_back(h = run(context, *down_[i].resampler, h, nullptr, time, row, text));
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
    if (up_[i].resampler) h = run(context, *up_[i].resampler, h, nullptr, time, row, text);
    seen("up", static_cast<int64_t>(i), h);
  }

  conv2d(context, groupNorm(context, h, normOut_, {.activation = config_.activation}), convOut_,
         {.into = &out});
  return out;
}

}  // namespace nd
