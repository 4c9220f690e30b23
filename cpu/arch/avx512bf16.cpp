// AVX512_BF16: the tile of avx512.cpp in bfloat16.
#if defined(__x86_64__) || defined(_M_X64)
#define ND_ISA avx512bf16
#include "cpu/kernels/pairs-avx512.h"

namespace nd::avx512bf16 {
constexpr int kMr = 12, kNr = 32;
}
#include "cpu/kernels/bf16.h"

namespace nd {
const Bf16Kernels* avx512Bf16Kernels() {
  static const Bf16Kernels kernels = avx512bf16::makeBf16Kernels("AVX512_BF16");
  return &kernels;
}
}  // namespace nd
#endif
