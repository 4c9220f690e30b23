// Convolutions: nd::ConvArgs on device tensors (engine/backend.h says what they mean).
#pragma once

#include "cuda/launch.h"
#include "engine/backend.h"

namespace nd::cuda {

/// `args`' tensors hold device pointers to `type` (F16 or BF16); its Weight pointers are not looked at.
/// weight [N, kh, kw, C1 + C2], `pitch` elements from row to row; bias [N] or null.
void conv(const Launch& launch, DType type, const ConvArgs& args, const void* weight, int64_t pitch,
          const float* bias);

/// Whether a convolution may be computed as four of 2 × 2 over x itself: 3 × 3 over x enlarged to twice its
/// size.
bool isEnlarged(const ConvArgs& args);
/// conv() with the weight that foldWeight() made: [4, N, 2, 2, C1 + C2].
void convEnlarged(const Launch& launch, DType type, const ConvArgs& args, const void* folded, int64_t pitch,
                  const float* bias);

}  // namespace nd::cuda
