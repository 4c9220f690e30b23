// The three transforms of Winograd's minimal filtering F(4×4, 3×3) (Winograd 1980; Lavin and Gray 2016, "Fast
// Algorithms for Convolutional Neural Networks"); cpu/winograd.cpp puts them together:
//
//   V = Bᵀ d B   of a 6×6 patch d of one channel (patches overlap by 2)
//   U = G g Gᵀ   of a 3×3 filter g
//   Y = Aᵀ [Σ_c U ⊙ V] A   4×4 outputs
//
// 36 multiplications make 16 outputs that would take 144. The sum over channels is 36 matrix products.
//
// The polynomials are evaluated at 0, ±3/4, ±3/2 and ∞: the constants of A and B are exact in float, and the
// error is the least of the pairs ±a, ±b that were tried. Of the largest output, with random inputs and 64
// channels: 1.4e-6 (rms 0.8e-6 of the outputs' own) against 6.7e-6 (1.7e-6) at the usual 0, ±1, ±2, ∞ and
// 0.9e-6 (0.4e-6) of the plain sum in float.
//
// Vectors run along channels. The products are bound by the FMA units, the transforms by loads and stores: 72
// of them per vector of channels and tile for V, 54 and 40 for U and Y.
//
// Measured (2026-11-23, AMD EPYC Zen 3, AVX2, one thread, the best of many blocks, as others used the
// machine; cycles per tile over those that the products would take at the fp32 peak): 320→320 at 64²
// products 1.08, V 0.07, U 0.14, Y 0.05; 128→128 at 512² 1.13, 0.20, 0.05, 0.17; 1280→1280 at 16² 1.15, 0.03,
// 0.26, 0.02; at 8² 1.16, 0.02, 0.99, 0.01. U there is made for 64 tiles (64²), 32 (16²) and 8 (8²). In
// processor time the whole convolutions are 2.5 to 2.9 times as fast as directly, 2.4 at 16², 1.8 at 8².
// Since then U takes a quarter less (rows of G g are made one or two at a time and stay in registers: alone
// 17.9 → 13.9 cycles per filter; the whole convolution at 8² 10 % faster, at 16² 7 %, at 64² 4 %, best of
// eight runs in turns).
// Tried and lost: prefetching the taps of g (no difference: stores bound U); K blocks of 160, 128 and 96
// channels so that U stays in the L2 cache (products 1.34 to 1.69 instead of 1.23 at 16²), also with U made
// panel by panel; rows of Bᵀ d and Aᵀ m one or two at a time, as G g's are: V took a sixth longer, as pixels
// are read twice as often, Y a sixth as well.
#pragma once

#include "cpu/kernels/gemm.h"

namespace nd::ND_ISA {

// The points ±a and ±b.
constexpr float kWinoA = 0.75f, kWinoB = 1.5f, kWinoA2 = kWinoA * kWinoA, kWinoB2 = kWinoB * kWinoB;

/// Bᵀ d for one line of six.
ND_INLINE void winogradLine(Vec d0, Vec d1, Vec d2, Vec d3, Vec d4, Vec d5, Vec* v, int step) {
  const Vec a = Vec::set(kWinoA), b = Vec::set(kWinoB), a2 = Vec::set(kWinoA2), b2 = Vec::set(kWinoB2);
  const Vec sum = Vec::set(kWinoA2 + kWinoB2), product = Vec::set(kWinoA2 * kWinoB2);
  const Vec evenA = fnma(b2, d2, d4), oddA = fnma(b2, d1, d3);
  const Vec evenB = fnma(a2, d2, d4), oddB = fnma(a2, d1, d3);
  v[0] = fma(product, d0, fnma(sum, d2, d4));
  v[step] = fma(a, oddA, evenA);
  v[2 * step] = fnma(a, oddA, evenA);
  v[3 * step] = fma(b, oddB, evenB);
  v[4 * step] = fnma(b, oddB, evenB);
  v[5 * step] = fma(product, d1, fnma(sum, d3, d5));
}

template <bool Whole>
ND_INLINE void winogradInputVector(const WinogradInput& t, int64_t c, int lanes) {
  const auto load = [&](int i) {
    return Whole ? Vec::load(t.pixels[i] + c) : Vec::loadPartial(t.pixels[i] + c, lanes);
  };
  Vec lines[36];
  for (int j = 0; j < 6; j++)
    winogradLine(load(j), load(6 + j), load(12 + j), load(18 + j), load(24 + j), load(30 + j), lines + j, 6);
  for (int i = 0; i < 6; i++) {
    const Vec* l = lines + 6 * i;
    Vec v[6];
    winogradLine(l[0], l[1], l[2], l[3], l[4], l[5], v, 1);
    float* to = t.v + 6 * i * t.stride + c;
    for (int j = 0; j < 6; j++) {
      if (Whole)
        v[j].store(to + j * t.stride);
      else
        v[j].storePartial(to + j * t.stride, lanes);
    }
  }
}

inline void winogradInput(const WinogradInput& t) {
  int64_t c = 0;
  for (; c + Vec::kWidth <= t.channels; c += Vec::kWidth) winogradInputVector<true>(t, c, Vec::kWidth);
  if (const int lanes = static_cast<int>(t.channels - c); lanes > 0) winogradInputVector<false>(t, c, lanes);
}

// What the polynomials of G are divided by at 0, ±a and ±b.
constexpr float kWinoScale0 = 1 / (kWinoA2 * kWinoB2), kWinoScaleA = 1 / (2 * kWinoA2 * (kWinoA2 - kWinoB2)),
                kWinoScaleB = 1 / (2 * kWinoB2 * (kWinoB2 - kWinoA2));

/// One row of G g → one row of U. At ±a, and at ±b, the even parts are the same.
ND_INLINE void winogradFilterRow(Vec g0, Vec g1, Vec g2, float* u, int64_t stride) {
  const Vec evenA = fma(Vec::set(kWinoA2), g2, g0) * Vec::set(kWinoScaleA);
  const Vec evenB = fma(Vec::set(kWinoB2), g2, g0) * Vec::set(kWinoScaleB);
  const Vec oddA = Vec::set(kWinoA * kWinoScaleA), oddB = Vec::set(kWinoB * kWinoScaleB);
  (g0 * Vec::set(kWinoScale0)).store(u);
  fma(oddA, g1, evenA).store(u + stride);
  fnma(oddA, g1, evenA).store(u + 2 * stride);
  fma(oddB, g1, evenB).store(u + 3 * stride);
  fnma(oddB, g1, evenB).store(u + 4 * stride);
  g2.store(u + 5 * stride);
}

/// The rows of G g at ±point → two rows of U.
ND_INLINE void winogradFilterRows(const Vec (*g)[3], float point, float scale, float* u, int64_t stride) {
  const Vec odd = Vec::set(point * scale);
  Vec even[3];
  ND_UNROLL for (int s = 0; s < 3; s++) {
    even[s] = fma(Vec::set(point * point), g[2][s], g[0][s]) * Vec::set(scale);
  }
  winogradFilterRow(fma(odd, g[1][0], even[0]), fma(odd, g[1][1], even[1]), fma(odd, g[1][2], even[2]), u,
                    stride);
  winogradFilterRow(fnma(odd, g[1][0], even[0]), fnma(odd, g[1][1], even[1]), fnma(odd, g[1][2], even[2]),
                    u + 6 * stride, stride);
}

template <WeightFormat F>
inline void winogradFiltersIn(const WinogradFilters& f) {
  for (int64_t c = 0; c < f.channels; c++)
    for (int j = 0; j < kNr; j += Vec::kWidth) {
      const int64_t at = c * kNr + j;
      Vec g[3][3];
      ND_UNROLL for (int r = 0; r < 3; r++) {
        ND_UNROLL for (int s = 0; s < 3; s++) g[r][s] = widened<F>(f.g, (3 * r + s) * f.tapStride + at);
      }
      float* u = f.u + at;
      const Vec k0 = Vec::set(kWinoScale0);
      winogradFilterRow(g[0][0] * k0, g[0][1] * k0, g[0][2] * k0, u, f.stride);
      winogradFilterRows(g, kWinoA, kWinoScaleA, u + 6 * f.stride, f.stride);
      winogradFilterRows(g, kWinoB, kWinoScaleB, u + 18 * f.stride, f.stride);
      winogradFilterRow(g[2][0], g[2][1], g[2][2], u + 30 * f.stride, f.stride);
    }
}

inline void winogradFilters(const WinogradFilters& f) {
  switch (f.format) {
    case WeightFormat::F32:
      return winogradFiltersIn<WeightFormat::F32>(f);
    case WeightFormat::F16:
      return winogradFiltersIn<WeightFormat::F16>(f);
    case WeightFormat::BF16:
      return winogradFiltersIn<WeightFormat::BF16>(f);
  }
}

/// Aᵀ m for one line of six.
ND_INLINE void winogradSumLine(const Vec* m, int step, Vec* y, int yStep) {
  const Vec evenA = m[step] + m[2 * step], oddA = m[step] - m[2 * step];
  const Vec evenB = m[3 * step] + m[4 * step], oddB = m[3 * step] - m[4 * step];
  y[0] = m[0] + evenA + evenB;
  y[yStep] = fma(Vec::set(kWinoA), oddA, Vec::set(kWinoB) * oddB);
  y[2 * yStep] = fma(Vec::set(kWinoA2), evenA, Vec::set(kWinoB2) * evenB);
  y[3 * yStep] = fma(Vec::set(kWinoA * kWinoA2), oddA, fma(Vec::set(kWinoB * kWinoB2), oddB, m[5 * step]));
}

/// One vector of outputs of a tile; `lanes` of it exist.
template <Act A, bool Whole>
ND_INLINE void winogradOutputVector(const WinogradOutput& t, int j, int lanes) {
  const auto load = [&](const float* from) {
    return Whole ? Vec::load(from + j) : Vec::loadPartial(from + j, lanes);
  };
  Vec lines[24];  // [4][6]
  for (int s = 0; s < 6; s++) {
    Vec m[6];
    for (int i = 0; i < 6; i++) m[i] = Vec::load(t.m + (6 * i + s) * t.mStride + j);
    winogradSumLine(m, 1, lines + s, 6);
  }
  Vec add = t.bias ? load(t.bias) : Vec::zero();
  if (t.channels) add = add + load(t.channels);
  for (int i = 0; i < t.rows; i++) {
    Vec y[4];
    winogradSumLine(lines + 6 * i, 1, y, 1);
    for (int s = 0; s < t.columns; s++) {
      Vec v = activate<A>(y[s] + add);
      if (t.residual) v = v + load(t.residual + i * t.residualRow + s * t.residualPixel);
      float* to = t.y + i * t.yRow + s * t.yPixel + j;
      if (Whole)
        v.store(to);
      else
        v.storePartial(to, lanes);
    }
  }
}

template <Act A>
inline void winogradOutputTile(const WinogradOutput& t) {
  int j = 0;
  for (; j + Vec::kWidth <= t.features; j += Vec::kWidth) winogradOutputVector<A, true>(t, j, Vec::kWidth);
  if (j < t.features) winogradOutputVector<A, false>(t, j, t.features - j);
}

inline void winogradOutput(const WinogradOutput& t) {
  switch (t.act) {
    case Act::None:
      return winogradOutputTile<Act::None>(t);
    case Act::Silu:
      return winogradOutputTile<Act::Silu>(t);
    case Act::Gelu:
      return winogradOutputTile<Act::Gelu>(t);
    case Act::QuickGelu:
      return winogradOutputTile<Act::QuickGelu>(t);
    case Act::Relu:
      return winogradOutputTile<Act::Relu>(t);
    case Act::GeluTanh:
      return winogradOutputTile<Act::GeluTanh>(t);
  }
}

}  // namespace nd::ND_ISA
