// The matrix micro-kernel in bfloat16 (dtype 'bfloat16'), for CPUs with dot products of it: gemm.h's tile
// with both operands rounded to bfloat16, to nearest even, and sums in float32.
//
//   acc[R, NR] (+)= Σ_pairs  a[R rows, 2k] · b[2k, NR] + a[R rows, 2k + 1] · b[2k + 1, NR]
//
// `Pairs` (pairs-*.h) is kWidth pairs of bfloat16, one pair to a lane of Vec:
//   Pairs::load(p), v.store(p)     kWidth pairs, 2-byte aligned
//   Pairs::zip(even, odd)          lane i: (even[i], odd[i]), rounded
//   Pairs::line(low, high)         low[0..kWidth), high[0..kWidth) one after the other, rounded
//   Pair::load(p)                  one pair, 4-byte aligned, for all lanes
//   dot(pair, pairs, c)            c + a₀ · b₀ + a₁ · b₁ per lane, in float32
// How a dot product rounds its two sums is the CPU's. vdpbf16ps adds one product after the other, to nearest
// even; bfdot adds the two products to each other and then to c, both rounded to odd (while FPCR.EBF is 0,
// the default). Both take denormals, of operands and results, for zeros: what is below 1.2e-38. The portable
// dot is a plain sum.
//
// Bound by the unit of dot products: per pair of k R · NR / width of them against NR / width + R loads of
// vectors, half of what gemm.h's tile needs for the same k. Where a CPU starts as many dot products a cycle
// as float32 FMAs, that is at most twice gemm.h's speed; Winograd's in float32 is 1.8 to 2.9 times that at
// 3 × 3 convolutions, which are direct ones here.
// Not timed yet: no machine at hand had the instructions. Checked are the results (vdpbf16ps in Bochs, bfdot
// under qemu) and the code: GCC's inner loop of 12 × 32 is 2 loads, 12 broadcasts and 24 vdpbf16ps, that of
// 5 × 16 is 9 loads and 20 bfdot by element. No accumulator is spilled; two of the twelve row pointers are
// reloaded, as in float32.
// AArch64's bfmmla does twice the products of bfdot, but takes two rows side by side: rows would have to be
// packed in pairs. AMX is arch/amxbf16.cpp.
#pragma once

#include "cpu/kernels/row-tiles.h"

namespace nd::ND_ISA {

constexpr int kPairVectors = kNr / Vec::kWidth;  // in a row of the tile
static_assert(kNr % Vec::kWidth == 0, "a panel holds whole vectors");

template <int R>
ND_INLINE void bf16Tile(const Bf16Rows& t, const uint16_t* const* rows, float* ND_RESTRICT c) {
  Vec acc[R][kPairVectors];
  ND_UNROLL for (int i = 0; i < R; i++) {
    ND_UNROLL for (int j = 0; j < kPairVectors; j++) acc[i][j] = Vec::zero();
  }
  const uint16_t* b = t.b;
  for (int run = 0; run < t.runs; run++, rows += t.rowStride) {
    const uint16_t* a[R];
    ND_UNROLL for (int i = 0; i < R; i++) a[i] = rows[i];
    for (int64_t k = 0, n = t.runLengths[run]; k < n; k += 2, b += 2 * kNr) {
      Pairs bk[kPairVectors];
      ND_UNROLL for (int j = 0; j < kPairVectors; j++) bk[j] = Pairs::load(b + 2 * j * Vec::kWidth);
      ND_UNROLL for (int i = 0; i < R; i++) {
        const Pair x = Pair::load(a[i] + k);
        ND_UNROLL for (int j = 0; j < kPairVectors; j++) acc[i][j] = dot(x, bk[j], acc[i][j]);
      }
    }
  }
  if (!t.first) {
    ND_UNROLL for (int i = 0; i < R; i++) {
      ND_UNROLL for (int j = 0; j < kPairVectors; j++) acc[i][j] =
          acc[i][j] + Vec::load(c + i * kNr + j * Vec::kWidth);
    }
  }
  ND_UNROLL for (int i = 0; i < R; i++) {
    ND_UNROLL for (int j = 0; j < kPairVectors; j++) acc[i][j].store(c + i * kNr + j * Vec::kWidth);
  }
}

struct Bf16Tiles {
  template <int R>
  ND_NOINLINE static void multiply(const Bf16Rows& t, int64_t tiles) {
    for (int64_t tile = 0; tile < tiles; tile++) bf16Tile<R>(t, t.rows + tile * R, t.acc + tile * R * kNr);
  }
};
inline void bf16Rows(const Bf16Rows& t) { multiplyRows<Bf16Tiles>(t); }

inline void roundRow(const float* x, uint16_t* y, int64_t count) {
  constexpr int W = Vec::kWidth;
  int64_t i = 0;
  for (; i + 2 * W <= count; i += 2 * W) Pairs::line(Vec::load(x + i), Vec::load(x + i + W)).store(y + i);
  if (i == count) return;
  float tail[2 * W] = {};
  for (int64_t j = i; j < count; j++) tail[j - i] = x[j];
  uint16_t rounded[2 * W];
  Pairs::line(Vec::load(tail), Vec::load(tail + W)).store(rounded);
  for (int64_t j = i; j < count + (count & 1); j++) y[j] = rounded[j - i];
}

// How weights are read: the members are the stored type and a vector of it, widened.
struct StoredF32 {
  using Element = float;
  static Vec load(const float* p) { return Vec::load(p); }
};
struct StoredF16 {
  using Element = uint16_t;
  static Vec load(const uint16_t* p) { return Vec::loadF16(p); }
};
struct StoredBf16 {
  using Element = uint16_t;
  static Vec load(const uint16_t* p) { return Vec::loadBf16(p); }
};

template <class Stored>
inline void pairRowsOf(const void* data, int64_t count, uint16_t* to) {
  const typename Stored::Element* rows = static_cast<const typename Stored::Element*>(data);
  int64_t k = 0;
  for (; k + 2 <= count; k += 2, rows += 2 * kNr, to += 2 * kNr)
    for (int j = 0; j < kNr; j += Vec::kWidth)
      Pairs::zip(Stored::load(rows + j), Stored::load(rows + kNr + j)).store(to + 2 * j);
  if (k < count)
    for (int j = 0; j < kNr; j += Vec::kWidth)
      Pairs::zip(Stored::load(rows + j), Vec::zero()).store(to + 2 * j);
}

inline void pairRows(const void* rows, WeightFormat format, int64_t count, uint16_t* to) {
  switch (format) {
    case WeightFormat::F32:
      return pairRowsOf<StoredF32>(rows, count, to);
    case WeightFormat::F16:
      return pairRowsOf<StoredF16>(rows, count, to);
    case WeightFormat::BF16:
      return pairRowsOf<StoredBf16>(rows, count, to);
  }
}

inline Bf16Kernels makeBf16Kernels(const char* name) {
  Bf16Kernels t = {};
  t.name = name;
  t.gemmRows = bf16Rows;
  t.roundRow = roundRow;
  t.pairRows = pairRows;
  return t;
}

}  // namespace nd::ND_ISA
