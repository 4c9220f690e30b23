// Small kernels that use every wrapper of cuda/tile once, on numbers whose results are exact: what the
// simulator and a GPU must agree on bit for bit (test/native/cuda-wrappers.cpp).
#pragma once

#include "cuda/launch.h"

namespace nd::cuda {

/// Device pointers. a [16, 16], b [8, 16] and bTransposed [16, 8] are F16.
struct PortableProbe {
  const void *a, *b, *bTransposed;
  float *product, *transposedProduct;  // [16, 8]: a' bᵀ and a' bTransposed, where a' is a with row 15 zero
  float* exchanged;                    // [3, 32]: shuffleXor 5, shuffleDown 3, shuffle from lane 7 of 0…31
  float* votes;                        // [1]: lanes whose index is a multiple of 3
};
void probePortable(const Launch& launch, const PortableProbe& probe);

/// image [8, 9, 64] (60 columns of it count), b [64, 64] and v [64, 64] are F16. For capability 9.0.
struct HopperProbe {
  const void *image, *b, *v;
  float *first, *second;  // [64, 64]: A bᵀ, and that as F16 times v; A's row r is image[r / 8 + 1, r mod 8 −
                          // 1], zero outside
};
void probeHopper(const Launch& launch, const HopperProbe& probe);

}  // namespace nd::cuda
