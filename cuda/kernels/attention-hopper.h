// attention.h for Hopper (capability 9.0).
#pragma once

#include "cuda/kernels/attention-tile.h"

namespace nd::cuda {

/// Whether tensor copies can fetch the operands, and tiles of 128 queries and 64 or 128 keys pay.
bool hopperAttentionFits(const AttentionArgs& args);

template <class T>
void attentionHopper(const Launch& launch, const AttentionArgs& args, const AttentionParams<T>& params);

}  // namespace nd::cuda
