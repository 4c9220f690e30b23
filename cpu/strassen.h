// Large linear layers by one level of Strassen's algorithm: seven products of halves instead of eight.
#pragma once

#include "cpu/gemm.h"

namespace nd {

/// Whether this product should go this way. `rowsPerImage`: rows that an image has, since the answer must be
/// the same for every batch size: an image does not depend on its neighbours.
bool useStrassen(FewerProducts use, const KernelTable& kernels, int64_t rowsPerImage,
                 const PackedWeight& weight, const GemmInput& input);

/// Arguments as of gemm().
void strassen(const KernelTable& kernels, ThreadPool& pool, std::vector<Scratch>& scratch, int64_t m,
              const PackedWeight& weight, const GemmInput& input, const GemmOutput& output);

}  // namespace nd
