// AArch64's FEAT_BF16: the tile of neon.cpp in bfloat16.
#if defined(__aarch64__)
#define ND_ISA neonbf16
#include "cpu/kernels/pairs-neon.h"

namespace nd::neonbf16 {
constexpr int kMr = 5, kNr = 16;
}
#include "cpu/kernels/bf16.h"

namespace nd {
const Bf16Kernels* neonBf16Kernels() {
  static const Bf16Kernels kernels = neonbf16::makeBf16Kernels("FEAT_BF16");
  return &kernels;
}
}  // namespace nd
#endif
