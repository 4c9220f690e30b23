// How many pieces of b hold a.
#pragma once

#include <cstdint>

namespace nd {

/// ⌈a / b⌉, for a ≥ 0 and b > 0.
inline int64_t ceilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace nd
