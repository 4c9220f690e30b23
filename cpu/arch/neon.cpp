// AArch64 NEON: 6 × 16 tiles, 24 of the 32 registers accumulate.
#if defined(__aarch64__)
#define ND_ISA neon
#include "cpu/kernels/vec-neon.h"

namespace nd::neon {
constexpr int kMr = 6, kNr = 16;
}
#include "cpu/kernels/make-table.h"

namespace nd {
const KernelTable* neonTable() {
  static const KernelTable table = neon::makeTable("neon");
  return &table;
}
}  // namespace nd
#endif
