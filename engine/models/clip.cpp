#include "engine/models/clip.h"

#include <algorithm>

namespace nd {

ClipText::ClipText(const ClipTextConfig& c, const WeightLoader& root) : config_(c) {
  const WeightLoader text = root.at("text_model");
  tokens_ = text.table("embeddings.token_embedding.weight", c.vocabSize, c.hiddenSize);
  positions_ = text.table("embeddings.position_embedding.weight", c.maxPositions, c.hiddenSize);
  const ClipLayerConfig layer{.hiddenSize = c.hiddenSize,
                              .intermediateSize = c.intermediateSize,
                              .heads = c.heads,
                              .activation = c.activation,
                              .layerNormEps = c.layerNormEps,
                              .causal = true};
  for (int i = 0; i < c.layers; i++) layers_.emplace_back(text.at("encoder.layers", i), layer);
  finalNorm_ = text.norm("final_layer_norm", c.hiddenSize, c.layerNormEps);
  if (c.projectionDim > 0) projection_ = root.linear("text_projection", c.hiddenSize, c.projectionDim, false);
}

/// Tokens of the vocabulary and added ones have a table each: both are read for every position, the wrong
/// one's as token 0, and of the two rows side by side the right one is taken.
Tensor ClipText::embeddings(Context& context, std::span<const int32_t> ids, int64_t length) const {
  const auto vocabulary = static_cast<int32_t>(config_.vocabSize);
  const auto isAdded = [&](int32_t id) { return added_ && id >= vocabulary; };
  if (std::none_of(ids.begin(), ids.end(), isAdded)) return embed(context, tokens_, positions_, ids, length);

  const auto count = static_cast<int64_t>(ids.size());
  const Tensor out = context.arena.tensor({count / length, length, config_.hiddenSize});
  Arena::Scope scope(context.arena);
  std::vector<int32_t> own, added, rows;
  for (const int32_t id : ids) {
    rows.push_back(static_cast<int32_t>(2 * rows.size()) + (isAdded(id) ? 1 : 0));
    own.push_back(isAdded(id) ? 0 : id);
    added.push_back(isAdded(id) ? id - vocabulary : 0);
  }
  const Tensor both =
      concatColumns(context, std::vector<Tensor>{embed(context, tokens_, positions_, own, length),
                                                 embed(context, added_, positions_, added, length)});
  context.backend.gatherRows(reshape(both, {2 * count, config_.hiddenSize}), rows.data(),
                             reshape(out, {count, config_.hiddenSize}));
  return out;
}

ClipText::Output ClipText::encode(Context& context, std::span<const int32_t> ids, int64_t length) const {
  if (length < 1 || length > config_.maxPositions || ids.size() % static_cast<size_t>(length) != 0)
    throw Error(
        ErrorCode::InvalidArgument,
        format("Expected token sequences of 1 to %lld ids but received %zu ids in sequences of %lld",
               static_cast<long long>(config_.maxPositions), ids.size(), static_cast<long long>(length)));
  Output out;
  out.hiddenStates.push_back(embeddings(context, ids, length));
  for (const ClipLayer& layer : layers_) out.hiddenStates.push_back(layer(context, out.hiddenStates.back()));
  out.last = finalNorm(context, out.hiddenStates.back());

  std::vector<int32_t> ends;  // row of each sequence's end-of-text token
  for (size_t start = 0; start < ids.size(); start += static_cast<size_t>(length)) {
    const auto sequence = ids.subspan(start, static_cast<size_t>(length));
    auto end = config_.eosTokenId == 2 ? std::max_element(sequence.begin(), sequence.end())
                                       : std::find(sequence.begin(), sequence.end(), config_.eosTokenId);
    if (end == sequence.end()) end = sequence.begin();  // as argmax over "is it the token" gives
    ends.push_back(static_cast<int32_t>(start) + static_cast<int32_t>(end - sequence.begin()));
  }
  out.pooled = gatherRows(context, out.last, ends);
  if (projection_.weight) out.projected = linear(context, out.pooled, projection_);
  return out;
}

}  // namespace nd
