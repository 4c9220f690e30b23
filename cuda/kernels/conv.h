// Convolutions: nd::ConvArgs on device tensors (engine/backend.h says what they mean).
#pragma once

#include "cuda/launch.h"
#include "engine/backend.h"

namespace nd::cuda {

/// `args`' tensors hold device pointers to `type` (F16 or BF16); its Weight pointers are not looked at.
/// weight [N, kh, kw, C1 + C2], `pitch` elements from row to row; bias [N] or null.
void conv(const Launch& launch, DType type, const ConvArgs& args, const void* weight, int64_t pitch,
          const float* bias);

}  // namespace nd::cuda
