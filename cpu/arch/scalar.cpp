// What every CPU can run: the compiler's portable vectors of 4 floats, 6 × 8 tiles.
#define ND_ISA scalar
#define ND_PORTABLE_WIDTH 4
#include "cpu/kernels/vec-portable.h"

namespace nd::scalar {
constexpr int kMr = 6, kNr = 8;
}
#include "cpu/kernels/make-table.h"

namespace nd {
const KernelTable* scalarTable() {
  static const KernelTable table = scalar::makeTable("scalar");
  return &table;
}
}  // namespace nd
