#include "engine/models/text-encoder.h"

namespace nd {

void checkSequences(std::span<const int32_t> ids, int64_t length, int64_t longest) {
  if (length < 1 || length > longest || ids.size() % static_cast<size_t>(length) != 0)
    throw Error(
        ErrorCode::InvalidArgument,
        format("Expected token sequences of 1 to %lld ids but received %zu ids in sequences of %lld",
               static_cast<long long>(longest), ids.size(), static_cast<long long>(length)));
}

}  // namespace nd
