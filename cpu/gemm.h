// GEMM and convolution as one thing: y[M, N] = epilogue(A[M, K] Wᵀ), where row m of A is not stored but
// found. For a Linear it is row m of x; for a convolution the pixels under output pixel m's kernel, one after
// the other. K is cut into runs: ranges that are contiguous in memory in every row (a tap's channels of x or
// of skip).
#pragma once

#include <vector>

#include "cpu/kernels/kernel-table.h"
#include "cpu/thread-pool.h"
#include "cpu/weights.h"
#include "engine/tensor.h"

namespace nd {

class Scratch;

/// Where A's rows lie.
struct GemmInput {
  struct Source {
    const float* data = nullptr;
    int64_t stride = 0;    // floats from pixel to pixel
    int64_t channels = 0;  // 0: no such source
  };
  Source source[2];  // x and skip
  bool rows = true;  // row m of A is pixel m of the sources (a Linear, a 1×1 convolution)

  // Otherwise: NHWC images. A kernel of kernelH × kernelW slides over the sources resized to mapY × mapX
  // pixels.
  int64_t height = 0, width = 0;  // of the sources
  int64_t outH = 0, outW = 0;
  int kernelH = 1, kernelW = 1, stride = 1, padTop = 0, padLeft = 0;
  std::vector<int32_t> mapY, mapX;    // resized coordinate → source coordinate
  bool wrapY = false, wrapX = false;  // beyond an edge comes the opposite one, instead of zeros
};

/// What happens to a finished element, and where it goes. See GemmEpilogue.
struct GemmOutput {
  float* y = nullptr;
  int64_t stride = 0;
  const float* bias = nullptr;
  const float* channelAdd = nullptr;  // + image · channelStride
  int64_t channelStride = 0, rowsPerImage = 1;
  const float* residual = nullptr;
  int64_t residualStride = 0;
  Act act = Act::None;
};

/// When an algorithm of fewer multiplications (Winograd's, Strassen's) takes the place of the plain sum.
enum class FewerProducts : uint8_t { WhereFaster, Always, Never };

/// A block of widened (or transformed) weights: it is read once per tile and has to stay in a 32 KB L1 cache
/// beside the rows of this tile and of the next one (6 rows × 320 floats are 7.5 KB).
constexpr int64_t kBlockBytes = 20 << 10;

/// How the work is cut; see chooseBlocking().
struct GemmBlocking {
  int64_t mc;      // rows of a task
  int64_t panels;  // weight panels of a task
  int64_t kc;      // largest K block
};
/// `mr`, `nr`: of a tile; `elementBytes`: of a row's elements and of a widened weight's.
GemmBlocking chooseBlocking(int64_t mr, int64_t nr, int threads, int64_t m, int64_t panels, int64_t k,
                            int64_t elementBytes);

/// `scratch` has one entry per thread of the pool.
void gemm(const KernelTable& kernels, ThreadPool& pool, std::vector<Scratch>& scratch, int64_t m,
          const PackedWeight& weight, const GemmInput& input, const GemmOutput& output);

/// With rows and weights rounded to bfloat16. The rows' copy, 2 bytes an element, lies in `shared`.
void gemmBf16(const KernelTable& kernels, const Bf16Kernels& bf16, ThreadPool& pool,
              std::vector<Scratch>& scratch, Scratch& shared, int64_t m, const PackedWeight& weight,
              const GemmInput& input, const GemmOutput& output);

/// The epilogue of `rows` rows of one panel: m, m + step, …
void finishTile(const KernelTable& kernels, const PackedWeight& weight, const GemmOutput& output,
                const float* acc, int64_t m, int64_t step, int rows, int64_t panel);

}  // namespace nd
