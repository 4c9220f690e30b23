// The matrix micro-kernel of GEMM and convolution, its epilogues and the widening of 16-bit weights.
//
//   acc[R, NR] (+)= Σ_k a[R rows, k] · b[k, NR]        a: R row pointers per run → registers R × NR → acc
//
// Bound by the FMA units: per k, R · NR / width FMAs against NR / width + R loads. The rows are read where
// they lie (a Linear's rows, a convolution's pixels), so A is never packed.
// Where a stranger's thread runs on the same core, as on a cloud's virtual CPUs, it is bound by instructions:
// the core takes them from either thread every other cycle, three a cycle instead of six on Zen 3, and the 12
// FMAs of a k of 6 × 16 come with 8 loads and what the loop costs. Hence kSteps, and short epilogues.
//
// Measured (2026-11-23, AMD EPYC Zen 3, AVX2, one thread on each of two cores, operands in the L1 cache, % of
// the FMA peak, which strangers did not lower): one k at a time 75 in the median and 98 in the best minutes,
// two 82 and 99, four 90 and 99, eight 90 to 91 and 99. 4 × 24 tiles are as good as 6 × 16, 3 × 32 slower;
// FMAs that read b from memory lose (66 to 84, 80 to 98). Whole operations with two threads, medians of
// pairs in turns against one k at a time with an epilogue of loops and prefetching: linear 8192×320×320 7 to
// 9 % faster, geglu 8192×2560×320 5 %, linear 2048×640×640 8 %, 512×1280×5120 3 %, Winograd 320→320 at 64² 2
// to 8 %, 1280→1280 at 16² 6 %; in quiet minutes 3 % and less. The epilogue of whole rows alone gave 8 to
// 10 % at K = 320 and 4 % at 640, that of Geglu 3 to 4 %; tiles of one run for themselves 3 to 5 % of
// attention at d = 40. What is left of the epilogue costs 4 to 7 % at K = 320, writing y included. Tried:
// prefetching the next block of weights, a tile's lines of y and its accumulators (0 to 2 % slower), the next
// tile's rows while the first panel goes by (−2 to 2 %), widening four vectors in a step, blocks of 12, 16
// and 24 KB of weights instead of 20, rows of 128 KB instead of 256: no difference. Tiles of 6 × 16 on NEON
// spilled: 5 × 16 there.
#pragma once

#include "cpu/kernels/math.h"
#include "cpu/kernels/row-tiles.h"

namespace nd::ND_ISA {

constexpr int kNv = kNr / Vec::kWidth;  // vectors in a row of the tile
static_assert(kNr % Vec::kWidth == 0 && kNv % 2 == 0, "a panel holds whole vectors, also half of it (Geglu)");

constexpr int kSteps = 4;  // of k between two tests of the loop

/// acc += a[R rows, k] · b[k, NR]
template <int R>
ND_INLINE void gemmStep(const float* const (&a)[R], int64_t k, const float* b, Vec (&acc)[R][kNv]) {
  Vec bk[kNv];
  ND_UNROLL for (int j = 0; j < kNv; j++) bk[j] = Vec::load(b + j * Vec::kWidth);
  ND_UNROLL for (int i = 0; i < R; i++) {
    const Vec x = Vec::set(a[i][k]);
    ND_UNROLL for (int j = 0; j < kNv; j++) accumulate(acc[i][j], x, bk[j]);
  }
}

// The unroll pragmas keep the R × NR accumulators in registers from the first run to the last; without them
// GCC 12 spills and reloads them around every run.
template <int R>
ND_INLINE void gemmTile(const GemmRows& t, int runs, const float* const* rows, float* ND_RESTRICT c) {
  Vec acc[R][kNv];
  ND_UNROLL for (int i = 0; i < R; i++) { ND_UNROLL for (int j = 0; j < kNv; j++) acc[i][j] = Vec::zero(); }
  const float* b = t.b;
  for (int run = 0; run < runs; run++, rows += t.rowStride) {
    const float* a[R];
    ND_UNROLL for (int i = 0; i < R; i++) a[i] = rows[i];
    int64_t k = 0;
    const int64_t n = t.runLengths[run];
    for (; k + kSteps <= n; k += kSteps, b += kSteps * kNr) {
      ND_UNROLL for (int s = 0; s < kSteps; s++) gemmStep<R>(a, k + s, b + s * kNr, acc);
    }
    ND_ROLLED for (; k < n; k++, b += kNr) gemmStep<R>(a, k, b, acc);
  }
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

struct GemmTiles {
  template <int R>
  ND_NOINLINE static void multiply(const GemmRows& t, int64_t tiles) {
    const float* const* rows = t.rows;
    float* c = t.acc;
    if (t.runs == 1)  // a loop of its own, so that only a convolution's tiles keep the state of runs
      for (; tiles > 0; tiles--, rows += R, c += R * kNr) gemmTile<R>(t, 1, rows, c);
    else
      for (; tiles > 0; tiles--, rows += R, c += R * kNr) gemmTile<R>(t, t.runs, rows, c);
  }
};
inline void gemmRows(const GemmRows& t) { multiplyRows<GemmTiles>(t); }

template <Act A>
ND_INLINE Vec activate(Vec x) {
  if constexpr (A == Act::Silu) return silu(x);
  if constexpr (A == Act::Gelu) return gelu(x);
  if constexpr (A == Act::QuickGelu) return quickGelu(x);
  if constexpr (A == Act::Relu) return max(Vec::zero(), x);  // in this order NaN stays NaN
  if constexpr (A == Act::GeluTanh) return geluTanh(x);
  return x;
}

/// Rows of a whole panel: with few products in a tile every instruction here shows.
template <Act A>
inline void wholeRows(const GemmEpilogue& e) {
  constexpr int W = Vec::kWidth;
  Vec bias[kNv];
  ND_UNROLL for (int j = 0; j < kNv; j++) bias[j] = e.bias ? Vec::load(e.bias + j * W) : Vec::zero();
  const float *acc = e.acc, *residual = e.residual;
  float* y = e.y;
  for (int i = 0; i < e.rows; i++, acc += kNr, y += e.stride) {
    Vec v[kNv];
    ND_UNROLL for (int j = 0; j < kNv; j++) v[j] = Vec::load(acc + j * W) + bias[j];
    if (e.channels) {
      ND_UNROLL for (int j = 0; j < kNv; j++) v[j] = v[j] + Vec::load(e.channels[i] + j * W);
    }
    ND_UNROLL for (int j = 0; j < kNv; j++) v[j] = activate<A>(v[j]);
    if (residual) {
      ND_UNROLL for (int j = 0; j < kNv; j++) v[j] = v[j] + Vec::load(residual + j * W);
      residual += e.residualStride;
    }
    ND_UNROLL for (int j = 0; j < kNv; j++) v[j].store(y + j * W);
  }
}

template <Act A>
inline void epilogueRows(const GemmEpilogue& e) {
  constexpr int W = Vec::kWidth;
  if (e.columns == kNr) return wholeRows<A>(e);
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
inline void wholeGegluRows(const GemmEpilogue& e) {
  constexpr int W = Vec::kWidth, V = kNv / 2;
  Vec bias[V], gateBias[V];
  ND_UNROLL for (int j = 0; j < V; j++) {
    bias[j] = e.bias ? Vec::load(e.bias + j * W) : Vec::zero();
    gateBias[j] = e.bias ? Vec::load(e.gateBias + j * W) : Vec::zero();
  }
  const float* residual = e.residual;
  float* y = e.y;
  for (const float *value = e.acc, *end = value + e.rows * kNr; value < end; value += kNr, y += e.stride) {
    ND_UNROLL for (int j = 0; j < V; j++) {
      const Vec gate = activate<Gate>(Vec::load(value + kNr / 2 + j * W) + gateBias[j]);
      Vec v = (Vec::load(value + j * W) + bias[j]) * gate;
      if (residual) v = v + Vec::load(residual + j * W);
      v.store(y + j * W);
    }
    if (residual) residual += e.residualStride;
  }
}

template <Act Gate>
inline void gegluRows(const GemmEpilogue& e) {
  constexpr int W = Vec::kWidth;
  if (e.columns == kNr / 2) return wholeGegluRows<Gate>(e);
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

/// A vector of stored weights, from element i on.
template <WeightFormat F>
ND_INLINE Vec widened(const void* from, int64_t i) {
  if constexpr (F == WeightFormat::F32) return Vec::load(static_cast<const float*>(from) + i);
  const uint16_t* const half = static_cast<const uint16_t*>(from) + i;
  if constexpr (F == WeightFormat::F16) return Vec::loadF16(half);
  return Vec::loadBf16(half);
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
