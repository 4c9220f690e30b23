// The kernels at AVX-512's width and tile shape in portable code, so that their logic at width 16 is tested
// on every machine. Only the intrinsics of vec-avx512.h themselves need an AVX-512 CPU, or
// tools/emulate-x86.sh.
#define ND_ISA emulated
#define ND_PORTABLE_WIDTH 16
#include "cpu/kernels/pairs-portable.h"
#include "cpu/kernels/vec-portable.h"

namespace nd::emulated {
constexpr int kMr = 12, kNr = 32;
}
#include "cpu/kernels/bf16.h"
#include "cpu/kernels/make-table.h"
#include "engine/half.h"

namespace nd {
const KernelTable* emulatedTable();
const Bf16Kernels* emulatedBf16Kernels();
const Bf16Kernels* emulatedUnitKernels();

namespace {

// Calls of a unit that this thread has not entered would fault.
thread_local bool entered = false;

/// What arch/amxbf16.cpp computes, as its header has it.
void multiplyUnit(const UnitTile& t) {
  const int rows = t.rows <= 16 ? 16 : 32;
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < emulated::kNr; j++) {
      float sums[2] = {0, 0};
      for (int64_t k = 0; k < t.k; k++)
        sums[k % 2] += bfloatToFloat(t.a[i * t.stride + k]) *
                       bfloatToFloat(t.b[(k / 2 * emulated::kNr + j) * 2 + k % 2]);
      float& acc = t.acc[i * emulated::kNr + j];
      acc = entered && t.k % 32 == 0 ? (t.first ? 0 : acc) + (sums[0] + sums[1]) : __builtin_nanf("");
    }
}

}  // namespace

const Bf16Kernels* emulatedUnitKernels() {
  static const Bf16Kernels kernels = [] {
    Bf16Kernels k = *emulatedBf16Kernels();
    k.name = "emulated AMX";
    k.unit = {32, 32, multiplyUnit, [] { entered = true; }, [] { entered = false; }};
    return k;
  }();
  return &kernels;
}

const KernelTable* emulatedTable() {
  static const KernelTable table = emulated::makeTable("emulated-avx512");
  return &table;
}
const Bf16Kernels* emulatedBf16Kernels() {
  static const Bf16Kernels kernels = emulated::makeBf16Kernels("emulated bfloat16");
  return &kernels;
}
}  // namespace nd
