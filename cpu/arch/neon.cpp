// AArch64 NEON: 5 × 16 tiles, 20 of the 32 registers accumulate. With 6 rows GCC 12 spills two accumulators
// in the inner loop, as it loads the element of every row before it multiplies.
#if defined(__aarch64__)
#define ND_ISA neon
#include "cpu/kernels/vec-neon.h"

namespace nd::neon {
constexpr int kMr = 5, kNr = 16;
}
#include "cpu/kernels/make-table.h"

namespace nd {
const KernelTable* neonTable() {
  static const KernelTable table = neon::makeTable("neon");
  return &table;
}
}  // namespace nd
#endif
