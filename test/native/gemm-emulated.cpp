// The kernels at AVX-512's width and tile shape in portable code, so that their logic at width 16 is tested
// on every machine. Only the intrinsics of vec-avx512.h themselves need an AVX-512 CPU.
#define ND_ISA emulated
#define ND_PORTABLE_WIDTH 16
#include "cpu/kernels/pairs-portable.h"
#include "cpu/kernels/vec-portable.h"

namespace nd::emulated {
constexpr int kMr = 12, kNr = 32;
}
#include "cpu/kernels/bf16.h"
#include "cpu/kernels/make-table.h"

namespace nd {
const KernelTable* emulatedTable();
const Bf16Kernels* emulatedBf16Kernels();
const KernelTable* emulatedTable() {
  static const KernelTable table = emulated::makeTable("emulated-avx512");
  return &table;
}
const Bf16Kernels* emulatedBf16Kernels() {
  static const Bf16Kernels kernels = emulated::makeBf16Kernels("emulated bfloat16");
  return &kernels;
}
}  // namespace nd
