// Rows of a weight from the file's dtype and order into the backend's layout. Runs once per weight while a
// model loads, chunk by chunk behind the copies. Bound: the copies.
#pragma once

#include "cuda/launch.h"

namespace nd::cuda {

/// Rows [first, first + count) of a matrix of columns (c, tap), tap fastest, become rows of columns (tap, c)
/// padded with zeros to `pitch`, as `type` (F16, BF16 or F32).
struct WeightRows {
  DType sourceType = DType::F16;  // F32, F16, BF16, F8_E4M3, F8_E5M2
  const void* source = nullptr;   // device: the rows as stored
  int64_t first = 0, count = 0;
  int64_t columns = 0, taps = 1;
  DType type = DType::F16;
  void* target = nullptr;  // the whole weight
  int64_t pitch = 0;       // elements from row to row
  int64_t gated = 0;       // Geglu: N; rows i and N + i become 2i and 2i + 1. Else 0
};
void layoutWeight(const Launch&, const WeightRows&);

/// What a 3 × 3 convolution over a map enlarged to twice its size is over the map itself: a result at
/// (2i + a, 2j + b) sees 2 × 2 pixels, each under the sum of the weights that fall on it (float32 sums).
struct FoldedWeight {
  DType type = DType::F16;
  const void* weight = nullptr;  // [n, 3, 3, channels], `pitch` elements from row to row
  int64_t n = 0, channels = 0, pitch = 0;
  void* target = nullptr;  // [4, n, 2, 2, channels]: (a, b) = (0, 0), (0, 1), (1, 0), (1, 1)
  int64_t targetPitch = 0;
};
void foldWeight(const Launch&, const FoldedWeight&);

}  // namespace nd::cuda
