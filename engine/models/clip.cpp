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

TextEncoder::Output ClipText::encode(Context& context, std::span<const int32_t> ids, int64_t length,
                                     std::span<const uint8_t>) const {
  checkSequences(ids, length, config_.maxPositions);
  Output out;
  out.hiddenStates.push_back(embeddings(context, tokens_, positions_, ids, length));
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
