// Attention: y = softmax(scale · q kᵀ) v per head, without a buffer of scores (Dao 2023, "FlashAttention-2").
#pragma once

#include "cuda/launch.h"
#include "engine/backend.h"

namespace nd::cuda {

/// `args`' tensors hold device pointers to `type` (F16 or BF16). Any head width up to 512.
void attention(const Launch& launch, DType type, const AttentionArgs& args);

}  // namespace nd::cuda
