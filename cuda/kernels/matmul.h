// Matrix products and convolutions: one kernel, as on the CPU. y[M, N] = act(A[M, K] W[N, K]ᵀ + bias +
// channelAdd) + residual, where row m of A is an output pixel and column k = tap · C + c the input's channel
// c under that tap (a linear layer is the 1 × 1 case, one image of one row of M pixels). A is never
// materialised.
#pragma once

#include "cuda/launch.h"
#include "engine/backend.h"

namespace nd::cuda {

/// Device pointers are to 16-bit floats of one type unless they say float. Rows of x, skip, residual and y
/// are pixels (tokens).
struct MatmulProblem {
  const void *x = nullptr, *skip = nullptr;  // [B, H, W, C1], [B, H, W, C − C1]
  int64_t xStride = 0, skipStride = 0;       // elements from pixel to pixel
  const void* weight = nullptr;      // [rows, taps · C] K-contiguous; Geglu: rows 2i value i, 2i + 1 gate i
  int64_t weightPitch = 0;           // elements from row to row, at least K
  const float* bias = nullptr;       // [N]; Geglu [2N]: values, then gates
  const void* channelAdd = nullptr;  // [B, N]
  int64_t channelAddStride = 0;
  const void* residual = nullptr;  // [M, N]; may be y
  int64_t residualStride = 0;
  void* y = nullptr;  // [M, N]
  int64_t yStride = 0;
  int64_t batch = 1, height = 1, width = 1, outH = 1, outW = 1;
  int64_t inputH = 1, inputW = 1;  // after the nearest-neighbour resize
  int64_t n = 0, c1 = 0, c = 0;    // outputs; channels of x; of x and skip
  int kernelH = 1, kernelW = 1, stride = 1, padTop = 0, padLeft = 0;
  bool wrapX = false, wrapY = false;  // beyond an edge comes the opposite one
  Activation activation = Activation::None;
  bool geglu = false;
  /// A 3 × 3 convolution of padding 1 over x enlarged to twice its size: a result at (2i + a, 2j + b) sees
  /// 2 × 2 pixels of x, under weights that are sums of the nine. `weight` has the four convolutions (a, b)
  /// one after another (foldWeight()), kernel and padding are 2 × 2 and 1, input sizes those of x: 4/9 of the
  /// products.
  bool enlarged = false;

  /// Results that share a weight: of the four convolutions, or all.
  int phases() const { return enlarged ? 4 : 1; }
  int64_t gridH() const { return enlarged ? height : outH; }
  int64_t gridW() const { return enlarged ? width : outW; }
};
void matmul(const Launch& launch, DType type, const MatmulProblem& problem);

/// Rows and columns of y that a block computes, and into how many ranges K is cut.
struct MatmulTile {
  int m = 0, n = 0, splits = 1;
  double clocks = 0;    // what it may cost
  bool hopper = false;  // wgmma, where the input can be fetched by tensor copies
};
/// The cheapest for `m` × `n` results (n: rows of the weight) over `k`.
MatmulTile chooseMatmulTile(int64_t m, int64_t n, int64_t k, int multiprocessors, size_t workspaceBytes);
/// Replaces the choice in tests; m 0: choose.
MatmulTile& forcedMatmulTile();

}  // namespace nd::cuda
