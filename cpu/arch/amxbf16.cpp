// AMX_BF16: tiles of 32 × 32 in the matrix unit's eight registers. What AMX does not do, rounding rows and
// pairing weights, is avx512bf16.cpp's: every CPU with AMX has AVX512_BF16.
//
//   acc[32, 32] (+)= Σ_k a[32 rows, 32 k] · b[32 k, 32]        registers: 4 of acc, 2 of a, 2 of b
//
// A register holds 16 rows of 64 bytes: 16 × 16 sums, 16 rows × 32 of k, or 16 pairs of k × 16 columns, which
// is what bf16.h's panels are. Per 32 of k 4 products of 16 cycles against 4 loads of 16 cache lines: bound
// by the unit where both operands lie in L1, 16 times AVX-512's float32 at the same clock. tdpbf16ps sums the
// even and the odd products of a row by themselves, to nearest even, and takes denormals for zeros.
// Not timed yet: checked in an emulator (tools/emulate-x86.sh).
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>

#include "cpu/dispatch.h"

namespace nd {

namespace {

constexpr int kRows = 32, kColumns = 32, kStep = 32;
constexpr int kLine = 64;  // bytes of a register's row

/// What ldtilecfg reads: palette 1, every register 16 rows of 64 bytes.
struct alignas(64) TileConfig {
  uint8_t palette = 1, startRow = 0, reserved[14] = {};
  uint16_t bytes[16] = {kLine, kLine, kLine, kLine, kLine, kLine, kLine, kLine};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfig) == 64);
const TileConfig kConfig;

void enter() { _tile_loadconfig(&kConfig); }
void leave() { _tile_release(); }

// Registers by number, as the intrinsics want them: 0 and 1 the upper half of acc, 2 and 3 the lower one, 4
// and 5 those of a, 6 and 7 the left and the right half of b.
template <bool kLower>
void multiplyHalves(const UnitTile& t) {
  constexpr long kAcc = kColumns * sizeof(float), kPairs = kColumns * 2 * sizeof(uint16_t);
  const long aStride = static_cast<long>(t.stride * static_cast<int64_t>(sizeof(uint16_t)));
  const uint16_t *upper = t.a, *lower = t.a + 16 * t.stride, *b = t.b;
  float *accUpper = t.acc, *accLower = t.acc + 16 * kColumns;
  if (t.first) {
    _tile_zero(0);
    _tile_zero(1);
    if constexpr (kLower) {
      _tile_zero(2);
      _tile_zero(3);
    }
  } else {
    _tile_loadd(0, accUpper, kAcc);
    _tile_loadd(1, accUpper + 16, kAcc);
    if constexpr (kLower) {
      _tile_loadd(2, accLower, kAcc);
      _tile_loadd(3, accLower + 16, kAcc);
    }
  }
  for (int64_t k = 0; k < t.k; k += kStep, b += kStep * kColumns) {
    _tile_loadd(4, upper + k, aStride);
    _tile_loadd(6, b, kPairs);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, b + 32, kPairs);
    _tile_dpbf16ps(1, 4, 7);
    if constexpr (kLower) {
      _tile_loadd(5, lower + k, aStride);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, accUpper, kAcc);
  _tile_stored(1, accUpper + 16, kAcc);
  if constexpr (kLower) {
    _tile_stored(2, accLower, kAcc);
    _tile_stored(3, accLower + 16, kAcc);
  }
}

/// Without the lower half where it would be thrown away.
void multiply(const UnitTile& t) { t.rows > 16 ? multiplyHalves<true>(t) : multiplyHalves<false>(t); }

}  // namespace

const Bf16Kernels* amxBf16Kernels() {
  static const Bf16Kernels kernels = [] {
    Bf16Kernels k = *avx512Bf16Kernels();
    k.name = "AMX_BF16";
    k.unit = {kRows, kStep, multiply, enter, leave};
    return k;
  }();
  return &kernels;
}

}  // namespace nd
#endif
