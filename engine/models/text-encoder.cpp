#include "engine/models/text-encoder.h"

#include <algorithm>

namespace nd {

void checkSequences(std::span<const int32_t> ids, int64_t length, int64_t longest) {
  if (length < 1 || length > longest || ids.size() % static_cast<size_t>(length) != 0)
    throw Error(ErrorCode::InvalidArgument,
                format("Expected token sequences of 1 to %lld ids but received %zu ids in sequences of %lld",
                       static_cast<long long>(longest), ids.size(), static_cast<long long>(length)));
}

/// Tokens of the vocabulary and added ones have a table each: both are read for every position, the wrong
/// one's as token 0, and of the two rows side by side the right one is taken.
Tensor TextEncoder::embeddings(Context& context, const WeightPtr& tokens, const WeightPtr& positions,
                               std::span<const int32_t> ids, int64_t length) const {
  const auto vocabulary = static_cast<int32_t>(tokens->n);
  const auto isAdded = [&](int32_t id) { return added_ && id >= vocabulary; };
  if (std::none_of(ids.begin(), ids.end(), isAdded)) return embed(context, tokens, positions, ids, length);

  const auto count = static_cast<int64_t>(ids.size());
  const Tensor out = context.arena.tensor({count / length, length, width()});
  Arena::Scope scope(context.arena);
  std::vector<int32_t> own, added, rows;
  for (const int32_t id : ids) {
    rows.push_back(static_cast<int32_t>(2 * rows.size()) + (isAdded(id) ? 1 : 0));
    own.push_back(isAdded(id) ? 0 : id);
    added.push_back(isAdded(id) ? id - vocabulary : 0);
  }
  const Tensor both =
      concatColumns(context, std::vector<Tensor>{embed(context, tokens, positions, own, length),
                                                 embed(context, added_, positions, added, length)});
  context.backend.gatherRows(reshape(both, {2 * count, width()}), rows.data(),
                             reshape(out, {count, width()}));
  return out;
}

}  // namespace nd
