// AVX-512: 12 × 32 tiles, 24 of the 32 registers accumulate; 12 row pointers are what the general registers
// hold.
#if defined(__x86_64__) || defined(_M_X64)
#define ND_ISA avx512
#include "cpu/kernels/vec-avx512.h"

namespace nd::avx512 {
constexpr int kMr = 12, kNr = 32;
}
#include "cpu/kernels/make-table.h"

namespace nd {
const KernelTable* avx512Table() {
  static const KernelTable table = avx512::makeTable("avx512");
  return &table;
}
}  // namespace nd
#endif
