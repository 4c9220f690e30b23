#include "engine/models/unet-encoder.h"

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

UNetEncoder::Stage UNetEncoder::makeResnet(const WeightLoader& l, int64_t in, int64_t out, float outputScale,
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

UNetEncoder::Stage UNetEncoder::makeStage(const WeightLoader& l, int64_t i, int64_t in, int64_t out,
                                          int heads, int layers, int64_t contextWidth, bool onlyCross,
                                          bool middle) {
  Stage stage =
      makeResnet(l.at("resnets", i), in, out, middle ? config_.midOutputScale : config_.outputScale);
  if (heads > 0 && config_.addedKv) {
    stage.attention.emplace(
        l.at("attentions", i), out,
        AddedKvAttention::Options{static_cast<int>(out / heads), config_.normGroups, contextWidth,
                                  config_.normText, middle ? config_.midTextOnly : config_.textOnly});
    textCount_++;
  } else if (heads > 0) {
    stage.transformer.emplace(l.at("attentions", i), out, heads, contextWidth, layers, config_.normGroups,
                              onlyCross);
    textCount_ += layers;
  }
  return stage;
}

UNetEncoder::UNetEncoder(const UNetConfig& c, const WeightLoader& l) : config_(c) {
  const auto& levels = c.levels;
  const size_t depth = levels.size();
  const int64_t first = levels[0].channels, timeWidth = c.embeddingWidth();

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
  if (c.classEmbeds) classTable_ = l.table("class_embedding.weight", c.classEmbeds, timeWidth);
  if (c.encoderWidth)
    encoderProjection_ = l.linear("encoder_hid_proj", c.encoderWidth, levels[0].contextWidth);
  if (c.textPoolHeads) textPooling_.emplace(l.at("add_embedding"), textWidth(), timeWidth, c.textPoolHeads);

  skipChannels_ = {first};
  int64_t channels = first;
  for (size_t i = 0; i < depth; i++) {
    const auto& level = levels[i];
    const WeightLoader at = l.at("down_blocks", static_cast<int64_t>(i));
    Block block;
    for (int j = 0; j < level.resnets; j++) {
      block.stages.push_back(makeStage(at, j, channels, level.channels, level.heads, level.transformerLayers,
                                       level.contextWidth, level.onlyCross));
      channels = level.channels;
      skipChannels_.push_back(channels);
    }
    if (i + 1 < depth) {
      if (c.addedKv)
        block.resampler = makeResnet(at.at("downsamplers.0"), channels, channels, c.outputScale,
                                     ResnetOptions::Resample::Down);
      else
        block.resample = at.conv("downsamplers.0.conv", channels, channels, 3, 2);
      skipChannels_.push_back(channels);
    }
    down_.push_back(std::move(block));
  }

  const WeightLoader mid = l.at("mid_block");
  for (int j = 0; j < c.midResnets; j++) {
    const bool attends = c.midAttention && j == 0;
    mid_.push_back(makeStage(mid, j, channels, channels, attends ? c.midHeads : 0,
                             attends ? c.midTransformerLayers : 0, levels.back().contextWidth,
                             /*onlyCross=*/false, /*middle=*/true));
  }
}

void UNetEncoder::finish(const WeightLoader& l) {
  timeProjection_ = {l.weight(WeightKind::Linear, timeWeights_), l.weight(WeightKind::Vector, timeBiases_)};
  timeWeights_.clear();
  timeBiases_.clear();
}

void UNetEncoder::addKeysValues(Context& context, const Tensor& text, const std::vector<Stage>& stages,
                                Text& out) {
  for (const Stage& s : stages)
    if (s.attention)
      out.push_back({s.attention->contextKeysValues(context, text), {}, {}});
    else if (s.transformer)
      for (const TransformerBlock& block : s.transformer->blocks())
        out.push_back({block.contextKeysValues(context, text), {}, {}});
}

void UNetEncoder::perturb(Text& text, std::span<const int32_t> blocks, const Attended::Entries& entries) {
  for (const int32_t block : blocks) {
    if (block < 0 || static_cast<size_t>(block) >= text.size())
      throw Error(
          ErrorCode::InvalidArgument,
          format("Expected transformer blocks below %zu to perturb but received %d", text.size(), block));
    text[static_cast<size_t>(block)].perturbed = entries;
  }
}

Tensor UNetEncoder::projectText(Context& context, const Tensor& text) const {
  if (text.shape.last() != textWidth())
    throw Error(ErrorCode::InvalidArgument,
                format("Expected text embeddings of width %lld (the UNet's %s) but received %lld",
                       static_cast<long long>(textWidth()),
                       config_.encoderWidth ? "encoder_hid_dim" : "cross_attention_dim",
                       static_cast<long long>(text.shape.last())));
  return config_.encoderWidth ? linear(context, text, encoderProjection_) : text;
}

UNetEncoder::Text UNetEncoder::prepareText(Context& context, const Tensor& given) const {
  const Tensor text = projectText(context, given);
  Text out;
  for (const Block& b : down_) addKeysValues(context, text, b.stages, out);
  addKeysValues(context, text, mid_, out);
  return out;
}

UNetEncoder::Time UNetEncoder::prepareTime(Context& context, std::span<const float> timesteps, int64_t perRow,
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
  if (config_.takesNoiseLevel() && static_cast<int64_t>(added.noiseLevel.size()) != perRow)
    throw Error(ErrorCode::InvalidArgument,
                format("Expected a noise level for each of %lld batch entries (a UNet with class embeddings) "
                       "but received %zu",
                       static_cast<long long>(perRow), added.noiseLevel.size()));
  if (config_.classEmbeds) {
    std::vector<int32_t> levels;
    for (const float level : added.noiseLevel) {
      if (level < 0 || level >= static_cast<float>(config_.classEmbeds) || level != std::floor(level))
        throw Error(ErrorCode::InvalidArgument,
                    format("Expected a whole noise level from 0 to %lld (num_class_embeds) but received %g",
                           static_cast<long long>(config_.classEmbeds - 1), static_cast<double>(level)));
      levels.push_back(static_cast<int32_t>(level));
    }
    addRepeated(reshape(embed(context, classTable_, nullptr, levels, 1), {perRow, wide[1]}));
  }
  if (config_.classTimestep) {
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

UNetEncoder::Time UNetEncoder::oneTime(Context& context, const Time& all) const {
  return {context.arena.tensor({all.perRow, all.embedding.shape.last()}),
          context.arena.tensor({all.perRow, timeColumns_}), all.perRow};
}

void UNetEncoder::selectTime(Context& context, const Time& all, int64_t row, const Time& one) const {
  const auto copy = [&](const Tensor& from, const Tensor& to) {
    context.backend.copyColumns(slice(context, from, row * all.perRow, all.perRow), to, 0);
  };
  copy(all.embedding, one.embedding);
  copy(all.projections, one.projections);
}

Tensor UNetEncoder::run(Context& context, const Stage& stage, const Tensor& x, const Tensor* skip,
                        const Time& time, int64_t row, const Text& text, int64_t alike) const {
  const Tensor rows = slice(context, time.projections, row * time.perRow, time.perRow);
  const Tensor shift = columns(context, rows, stage.timeColumn, stage.resnet.timeColumns());
  Tensor y;
  if (alike > 1) {
    const int64_t few = x.shape[0] / alike;
    y = context.arena.tensor({x.shape[0], x.shape[1], x.shape[2], stage.resnet.out()});
    const Tensor first = slice(context, y, 0, few);
    stage.resnet(context, slice(context, x, 0, few), skip, &shift, &first);
  } else {
    y = stage.resnet(context, x, skip, &shift);
  }
  if (stage.transformer) (*stage.transformer)(context, y, text.data() + stage.textIndex, alike);
  if (stage.attention) (*stage.attention)(context, y, text[static_cast<size_t>(stage.textIndex)].text);
  return y;
}

namespace {

bool sameMap(const Tensor& h, const Tensor& map) {
  return map.shape.rank == 4 && map.shape[1] == h.shape[1] && map.shape[2] == h.shape[2] &&
         map.shape[3] == h.shape[3];
}

/// h += scale · map: entry b takes map b mod n.
void addMap(Context& context, const Tensor& h, const Tensor& map, float scale) {
  const int64_t n = map.shape[0];
  if (!sameMap(h, map))
    throw Error(
        ErrorCode::InvalidArgument,
        format("Expected adapter features like the UNet's map %s (batch, height, width, channels) but "
               "received %s; does the adapter belong to this model?",
               h.shape.text().c_str(), map.shape.text().c_str()));
  expect(h.shape[0] % n == 0, "adapter maps that divide the batch");
  for (int64_t b = 0; b < h.shape[0]; b += n) {
    const Tensor part = slice(context, h, b, n);
    add(context, part, map, scale, &part);
  }
}

}  // namespace

int64_t UNetEncoder::alikeAtFirst(const Text& text, const Time& time, int64_t alike) const {
  const auto& transformer = down_[0].stages[0].transformer;
  const bool shares = time.perRow == 1 && transformer && transformer->blocks()[0].beginsAlike(text[0]);
  return shares ? alike : 1;
}

UNetEncoder::Encoded UNetEncoder::encode(Context& context, const Tensor& x, const Time& time, int64_t row,
                                         const Text& text, const EncodeOptions& o) const {
  const auto seen = [&](const char* name, int64_t i, const Tensor& value) {
    if (o.probe) (*o.probe)(i < 0 ? name : name + std::to_string(i), value);
  };
  size_t nextMap = 0;  // of the adapters'
  const auto adapt = [&](const Tensor& value) {
    for (const AdapterMaps& a : o.adapters)
      if (nextMap < a.maps.size()) addMap(context, value, a.maps[nextMap], a.scale);
    nextMap++;
  };
  seen("time_embedding", -1, slice(context, time.embedding, row * time.perRow, time.perRow));

  const int64_t alike = alikeAtFirst(text, time, o.alike), few = x.shape[0] / alike;
  Tensor h = context.arena.tensor({x.shape[0], x.shape[1], x.shape[2], config_.levels[0].channels});
  {
    const Tensor first = slice(context, h, 0, few);
    Tensor hint;
    if (o.hint) hint = slice(context, *o.hint, 0, few);
    conv2d(context, slice(context, x, 0, few), convIn_,
           {.residual = o.hint ? &hint : nullptr, .into = &first});
    repeatFirst(context, h, alike);
  }
  seen("conv_in", -1, h);
  std::vector<Tensor> skips = {h};

  for (size_t i = 0; i < down_.size(); i++) {
    const Block& block = down_[i];
    for (const Stage& stage : block.stages)
      skips.push_back(h = run(context, stage, h, nullptr, time, row, text, skips.size() == 1 ? alike : 1));
    // Adapters join a block with attention before its downsampler, the others after it.
    const bool attends = config_.levels[i].heads > 0;
    if (attends) adapt(h);
    if (block.resample)
      skips.push_back(
          h = conv2d(context, h, *block.resample, {.padBottomRightOnly = config_.downsamplePadding == 0}));
    if (block.resampler) skips.push_back(h = run(context, *block.resampler, h, nullptr, time, row, text));
    if (!attends) adapt(h);
    seen("down", static_cast<int64_t>(i), h);
  }

  for (const Stage& stage : mid_) h = run(context, stage, h, nullptr, time, row, text);
  if (!mid_.empty()) {
    // A map that is left over is for the middle, where it fits.
    for (const AdapterMaps& a : o.adapters)
      if (nextMap < a.maps.size() && sameMap(h, a.maps[nextMap]))
        addMap(context, h, a.maps[nextMap], a.scale);
    seen("mid", -1, h);
  }
  return {std::move(skips), h};
}

}  // namespace nd
