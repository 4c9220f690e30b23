// AVX2 + FMA + F16C: 6 × 16 tiles, 12 of the 16 registers accumulate.
#if defined(__x86_64__) || defined(_M_X64)
#define ND_ISA avx2
#include "cpu/kernels/vec-avx2.h"

namespace nd::avx2 {
constexpr int kMr = 6, kNr = 16;
}
#include "cpu/kernels/make-table.h"

namespace nd {
const KernelTable* avx2Table() {
  static const KernelTable table = avx2::makeTable("avx2");
  return &table;
}
}  // namespace nd
#endif
