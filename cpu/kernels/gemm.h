// The matrix micro-kernel of GEMM and convolution, its epilogues and the widening of 16-bit weights.
//
//   acc[R, NR] (+)= Σ_k a[R rows, k] · b[k, NR]        a: R row pointers per run → registers R × NR → acc
//
// Bound by the FMA units: per k, R · NR / width FMAs against NR / width + R loads. The rows are read where
// they lie (a Linear's rows, a convolution's pixels), so A is never packed.
//
// Measured (2026-11-23, AMD EPYC Zen 3, AVX2, two threads, fp32 peak 206 GFLOP/s, nd_bench, F16 weights; best
// of five runs and median, as strangers share the cache): conv 3×3 320→320 at 2×64×64 186 (159), 640→640 at
// 2×32×32 182 (151), linear 8192×320×320 161 (127), 8192×320×1280 180 (155), geglu 8192×2560×320 144 (134),
// 2048×5120×640 173 (137).
// Alone, with rows in the L2 cache, the micro-kernel reaches 93 to 95 % of the peak for K blocks of 96 to
// 384. A task of gemm() reaches 84 to 89 % at those shapes (best task of many, one thread); widening takes 3
// to 7 % of it, the epilogue 3 to 6 %. Asking for the next block of weights and for the lines of y a tile
// ahead, and finishing every tile in place where K is one block, gave 1 to 2 %. Tried: blocks of 12, 16 and
// 24 KB of weights instead of 20, rows of 128 KB instead of 256, prefetching the next tile's rows, k unrolled
// by 4: all within that noise. Tiles of 6 × 16 on NEON spilled: 5 × 16 there.
#pragma once

#include "cpu/kernels/kernel-table.h"
#include "cpu/kernels/math.h"

namespace nd::ND_ISA {

constexpr int kNv = kNr / Vec::kWidth;  // vectors in a row of the tile
static_assert(kNr % Vec::kWidth == 0 && kNv % 2 == 0, "a panel holds whole vectors, also half of it (Geglu)");

// The unroll pragmas keep the R × NR accumulators in registers from the first run to the last; without them
// GCC 12 spills and reloads them around every run.
template <int R>
void gemmTile(const GemmTile& t) {
  Vec acc[R][kNv];
  ND_UNROLL for (int i = 0; i < R; i++) { ND_UNROLL for (int j = 0; j < kNv; j++) acc[i][j] = Vec::zero(); }
  const float* b = t.b;
  const float* const* rows = t.rows;
  for (int run = 0; run < t.runs; run++, rows += t.rowStride) {
    const float* a[R];
    ND_UNROLL for (int i = 0; i < R; i++) a[i] = rows[i];
    for (int64_t k = 0, n = t.runLengths[run]; k < n; k++, b += kNr) {
      Vec bk[kNv];
      ND_UNROLL for (int j = 0; j < kNv; j++) bk[j] = Vec::load(b + j * Vec::kWidth);
      ND_UNROLL for (int i = 0; i < R; i++) {
        const Vec x = Vec::set(a[i][k]);
        ND_UNROLL for (int j = 0; j < kNv; j++) acc[i][j] = fma(x, bk[j], acc[i][j]);
      }
    }
  }
  float* ND_RESTRICT c = t.acc;
  if (!t.first) {
    ND_UNROLL for (int i = 0; i < R; i++) {
      ND_UNROLL for (int j = 0; j < kNv; j++) acc[i][j] =
          acc[i][j] + Vec::load(c + i * kNr + j * Vec::kWidth);
    }
  }
  ND_UNROLL for (int i = 0; i < R; i++) {
    ND_UNROLL for (int j = 0; j < kNv; j++) acc[i][j].store(c + i * kNr + j * Vec::kWidth);
  }
}

template <int R>
inline void fillGemmTilesFrom(void (**table)(const GemmTile&)) {
  table[R - 1] = gemmTile<R>;
  if constexpr (R > 1) fillGemmTilesFrom<R - 1>(table);
}
inline void fillGemmTiles(void (**table)(const GemmTile&)) { fillGemmTilesFrom<kMr>(table); }

template <Act A>
ND_INLINE Vec activate(Vec x) {
  if constexpr (A == Act::Silu) return silu(x);
  if constexpr (A == Act::Gelu) return gelu(x);
  if constexpr (A == Act::QuickGelu) return quickGelu(x);
  if constexpr (A == Act::Relu) return max(Vec::zero(), x);  // in this order NaN stays NaN
  if constexpr (A == Act::GeluTanh) return geluTanh(x);
  return x;
}

template <Act A>
inline void epilogueRows(const GemmEpilogue& e) {
  constexpr int W = Vec::kWidth;
  for (int i = 0; i < e.rows; i++) {
    const float* acc = e.acc + i * kNr;
    const float* channels = e.channels ? e.channels[i] : nullptr;
    const float* residual = e.residual ? e.residual + i * e.residualStride : nullptr;
    float* y = e.y + i * e.stride;
    int j = 0;
    for (; j + W <= e.columns; j += W) {
      Vec v = Vec::load(acc + j);
      if (e.bias) v = v + Vec::load(e.bias + j);
      if (channels) v = v + Vec::load(channels + j);
      v = activate<A>(v);
      if (residual) v = v + Vec::load(residual + j);
      v.store(y + j);
    }
    if (const int n = e.columns - j; n > 0) {
      Vec v = Vec::load(acc + j);
      if (e.bias) v = v + Vec::loadPartial(e.bias + j, n);
      if (channels) v = v + Vec::loadPartial(channels + j, n);
      v = activate<A>(v);
      if (residual) v = v + Vec::loadPartial(residual + j, n);
      v.storePartial(y + j, n);
    }
  }
}

inline void gemmEpilogue(const GemmEpilogue& e) {
  switch (e.act) {
    case Act::None:
      return epilogueRows<Act::None>(e);
    case Act::Silu:
      return epilogueRows<Act::Silu>(e);
    case Act::Gelu:
      return epilogueRows<Act::Gelu>(e);
    case Act::QuickGelu:
      return epilogueRows<Act::QuickGelu>(e);
    case Act::Relu:
      return epilogueRows<Act::Relu>(e);
    case Act::GeluTanh:
      return epilogueRows<Act::GeluTanh>(e);
  }
}

template <Act Gate>
inline void gegluRows(const GemmEpilogue& e) {
  constexpr int W = Vec::kWidth;
  for (int i = 0; i < e.rows; i++) {
    const float *value = e.acc + i * kNr, *gate = value + kNr / 2;
    const float* residual = e.residual ? e.residual + i * e.residualStride : nullptr;
    float* y = e.y + i * e.stride;
    int j = 0;
    for (; j + W <= e.columns; j += W) {  // whole vectors: masked stores are slow on AMD
      Vec v = Vec::load(value + j), g = Vec::load(gate + j);
      if (e.bias) v = v + Vec::load(e.bias + j), g = g + Vec::load(e.gateBias + j);
      v = v * activate<Gate>(g);
      if (residual) v = v + Vec::load(residual + j);
      v.store(y + j);
    }
    if (const int n = e.columns - j; n > 0) {
      Vec v = Vec::load(value + j), g = Vec::load(gate + j);
      if (e.bias) v = v + Vec::loadPartial(e.bias + j, n), g = g + Vec::loadPartial(e.gateBias + j, n);
      v = v * activate<Gate>(g);
      if (residual) v = v + Vec::loadPartial(residual + j, n);
      v.storePartial(y + j, n);
    }
  }
}

inline void gegluEpilogue(const GemmEpilogue& e) {
  if (e.act == Act::GeluTanh) return gegluRows<Act::GeluTanh>(e);
  gegluRows<Act::Gelu>(e);
}

inline void widenF16(const uint16_t* x, float* y, int64_t count) {
  constexpr int W = Vec::kWidth;
  int64_t i = 0;
  for (; i + W <= count; i += W) Vec::loadF16(x + i).store(y + i);
  if (i < count) {
    uint16_t tail[W] = {};
    for (int64_t j = i; j < count; j++) tail[j - i] = x[j];
    Vec::loadF16(tail).storePartial(y + i, static_cast<int>(count - i));
  }
}

inline void widenBf16(const uint16_t* x, float* y, int64_t count) {
  constexpr int W = Vec::kWidth;
  int64_t i = 0;
  for (; i + W <= count; i += W) Vec::loadBf16(x + i).store(y + i);
  if (i < count) {
    uint16_t tail[W] = {};
    for (int64_t j = i; j < count; j++) tail[j - i] = x[j];
    Vec::loadBf16(tail).storePartial(y + i, static_cast<int>(count - i));
  }
}

}  // namespace nd::ND_ISA
