// What every CPU can run: the compiler's portable vectors of 4 floats, 6 × 8 tiles.
#define ND_ISA scalar
#define ND_PORTABLE_WIDTH 4
#include "cpu/kernels/pairs-portable.h"
#include "cpu/kernels/vec-portable.h"

namespace nd::scalar {
constexpr int kMr = 6, kNr = 8;
}
#include "cpu/kernels/bf16.h"
#include "cpu/kernels/make-table.h"

namespace nd {
const KernelTable* scalarTable() {
  static const KernelTable table = scalar::makeTable("scalar");
  return &table;
}
const Bf16Kernels* scalarBf16Kernels() {
  static const Bf16Kernels kernels = scalar::makeBf16Kernels("emulated bfloat16");
  return &kernels;
}
}  // namespace nd
