// Tensor maps: how the copy engine finds a box of a tensor in global memory.
#pragma once

#include <array>

#include "cuda/tile/hopper.h"

namespace nd::cuda {

/// 16-bit elements, 128-byte swizzle, zeros outside: dimensions and box innermost first, strides (bytes) of
/// dimensions 1 to 3.
TensorMap tensorMap(bool half, const void* data, const std::array<uint64_t, 4>& dim,
                    const std::array<uint64_t, 3>& stride, const std::array<uint32_t, 4>& box);
template <class T>
TensorMap tensorMap(const void* data, const std::array<uint64_t, 4>& dim,
                    const std::array<uint64_t, 3>& stride, const std::array<uint32_t, 4>& box) {
  return tensorMap(std::is_same_v<T, Half>, data, dim, stride, box);
}

}  // namespace nd::cuda
