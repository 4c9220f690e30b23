// 3 × 3 convolutions of stride 1 by Winograd's F(4×4, 3×3): a quarter of the multiplications.
#pragma once

#include "cpu/gemm.h"

namespace nd {

/// When and in which pieces; tests and benches set other values than these. Measured (2026-11-23, AMD EPYC
/// Zen 3, two cores with 512 KB of L2 each, cycles of a whole tile over those of its products at peak):
/// inputs of 3, 6 and 16 MB took 1.55, 2.16 and 2.41 for 128→128 at 512² and 1.35, 1.77 and 1.77 for 320→320
/// at 64².
struct WinogradOptions {
  FewerProducts use = FewerProducts::WhereFaster;
  int64_t inputBytes = 3 << 20;    // of a block of transformed tiles: more falls out of the caches
  int64_t leastTiles = 64;         // of a block nevertheless: they share the reading of the filters
  int64_t filterBytes = 64 << 20;  // up to which a layer's filters are transformed before the first block
};

/// Whether this convolution should go this way. The same for every batch size and number of threads: an image
/// does not depend on its neighbours.
bool useWinograd(const WinogradOptions& options, const KernelTable& kernels, const PackedWeight& weight,
                 const GemmInput& input);

/// Arguments as of gemm(), for an input that is not `rows`; `shared` is the caller's scratch.
void winograd(const WinogradOptions& options, const KernelTable& kernels, ThreadPool& pool,
              std::vector<Scratch>& scratch, Scratch& shared, int64_t batch, const PackedWeight& weight,
              const GemmInput& input, const GemmOutput& output);

}  // namespace nd
