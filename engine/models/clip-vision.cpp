#include "engine/models/clip-vision.h"

#include <algorithm>
#include <numeric>

namespace nd {

namespace {

/// [B, C, S, S] → [B·P, C·p·p], patches row by row, each in the order of a convolution's weights.
std::vector<float> patchRows(const std::vector<float>& pixels, int64_t batch, const ClipVisionConfig& c) {
  const int64_t size = c.imageSize, p = c.patchSize, side = size / p;
  std::vector<float> rows;
  rows.reserve(pixels.size());
  for (int64_t b = 0; b < batch; b++)
    for (int64_t i = 0; i < side; i++)
      for (int64_t j = 0; j < side; j++)
        for (int64_t channel = 0; channel < c.channels; channel++)
          for (int64_t y = 0; y < p; y++) {
            const auto from =
                pixels.begin() +
                static_cast<ptrdiff_t>(((b * c.channels + channel) * size + i * p + y) * size + j * p);
            rows.insert(rows.end(), from, from + static_cast<ptrdiff_t>(p));
          }
  return rows;
}

}  // namespace

ClipVision::ClipVision(const ClipVisionConfig& c, const WeightLoader& root)
    : config_(c), patches_((c.imageSize / c.patchSize) * (c.imageSize / c.patchSize)) {
  const WeightLoader vision = root.at("vision_model");
  const int64_t width = c.hiddenSize;
  patch_.weight = root.weight(
      WeightKind::Linear,
      {vision.tensor("embeddings.patch_embedding.weight", {width, c.channels, c.patchSize, c.patchSize},
                     Shape{width, c.channels * c.patchSize * c.patchSize})});
  classToken_ =
      root.weight(WeightKind::Table, {vision.tensor("embeddings.class_embedding", {width}, Shape{1, width})});
  positions_ = vision.table("embeddings.position_embedding.weight", 1 + patches_, width);
  normIn_ = vision.norm("pre_layrnorm", width, c.layerNormEps);  // transformers' own spelling
  const ClipLayerConfig layer{.hiddenSize = width,
                              .intermediateSize = c.intermediateSize,
                              .heads = c.heads,
                              .activation = c.activation,
                              .layerNormEps = c.layerNormEps,
                              .causal = false};
  for (int i = 0; i < c.layers; i++) layers_.emplace_back(vision.at("encoder.layers", i), layer);
  normOut_ = vision.norm("post_layernorm", width, c.layerNormEps);
  if (c.projectionDim > 0) projection_ = root.linear("visual_projection", width, c.projectionDim, false);
}

Tensor ClipVision::embed(Context& context, const std::vector<float>& pixels, int64_t batch) const {
  const int64_t width = config_.hiddenSize, length = 1 + patches_;
  const Tensor tokens = context.arena.tensor({batch, length, width});
  Arena::Scope scope(context.arena);
  std::vector<int32_t> ids(static_cast<size_t>(patches_));
  std::iota(ids.begin(), ids.end(), 1);
  const Tensor positions = nd::embed(context, positions_, nullptr, ids, patches_);
  const Tensor first = nd::embed(context, classToken_, positions_, std::vector<int32_t>{0}, 1);
  const Tensor rows = upload(context, patchRows(pixels, batch, config_),
                             {batch, patches_, config_.channels * config_.patchSize * config_.patchSize});
  const Tensor flat = reshape(tokens, {batch * length, width});
  for (int64_t b = 0; b < batch; b++) {
    context.backend.copyColumns(first, slice(context, flat, b * length, 1), 0);
    const Tensor into = slice(context, flat, b * length + 1, patches_);
    linear(context, slice(context, rows, b, 1), patch_, {.residual = &positions, .into = &into});
  }
  return tokens;
}

ClipVision::Output ClipVision::encode(Context& context, const std::vector<float>& pixels,
                                      int64_t batch) const {
  const int64_t size = config_.imageSize;
  if (batch < 1 || static_cast<int64_t>(pixels.size()) != batch * config_.channels * size * size)
    throw Error(
        ErrorCode::InvalidArgument,
        format("Expected pictures of %lld × %lld pixels in %lld channels but received %zu values for "
               "%lld pictures",
               static_cast<long long>(size), static_cast<long long>(size),
               static_cast<long long>(config_.channels), pixels.size(), static_cast<long long>(batch)));
  Output out;
  out.hiddenStates.push_back(layerNorm(context, embed(context, pixels, batch), normIn_));
  for (const ClipLayer& layer : layers_) out.hiddenStates.push_back(layer(context, out.hiddenStates.back()));
  std::vector<int32_t> rows;
  for (int64_t b = 0; b < batch; b++) rows.push_back(static_cast<int32_t>(b * (1 + patches_)));
  out.pooled = layerNorm(context, gatherRows(context, out.hiddenStates.back(), rows), normOut_);
  if (projection_) out.projected = linear(context, out.pooled, *projection_);
  return out;
}

}  // namespace nd
