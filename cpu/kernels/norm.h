// Group and layer normalisation: y = act(γ (x − μ) / sqrt(σ² + ε) + β).
//
//   groupNorm   x[rows, C] → Σ (x − x₀), Σ (x − x₀)² per channel [C]   (one pass)
//               x[rows, C], mean[C], scale[C], offset[C] → y[rows, C]  (one pass, SiLU in it)
//   layerNorm   x[rows, C] → y[rows, C]                                (a row stays in L1)
//
// Sums are taken of differences to x₀, a mean of a few of the values, so that a mean that is large beside σ
// costs no digits; that these values are in the sum bounds the cancellation, whatever they are. norm.cpp
// joins the sums of chunks of rows in double.
//
// Bound by memory bandwidth; with SiLU in the cache by its exponential and division. Measured (2026-11-23,
// AMD EPYC Zen 3, AVX2, one thread, processor time, other work on the machine, about 12 GB/s from memory;
// median of 7 runs and their range, GB/s): groupNorm + SiLU 2×64×64×320 12 (10 to 15), 1×512×512×128 10 (9 to
// 11), layerNorm 8192×320 19 (18 to 20). Lost: sums around the first value alone; one outlier there among 100
// rows put y off by 3·10⁻⁶ of itself.
#pragma once

#include "cpu/kernels/gemm.h"

namespace nd::ND_ISA {

/// Calls body(first column, lanes) for all vectors of a row; lanes is kWidth but in the last one.
template <class Body>
ND_INLINE void forVectors(int64_t columns, Body body) {
  int64_t c = 0;
  for (; c + Vec::kWidth <= columns; c += Vec::kWidth) body(c, Vec::kWidth);
  if (c < columns) body(c, static_cast<int>(columns - c));
}
ND_INLINE Vec loadLanes(const float* p, int lanes) {
  return lanes == Vec::kWidth ? Vec::load(p) : Vec::loadPartial(p, lanes);
}
ND_INLINE void storeLanes(Vec v, float* p, int lanes) {
  if (lanes == Vec::kWidth)
    v.store(p);
  else
    v.storePartial(p, lanes);
}

/// Per channel over `rows` rows: shift = the mean of the first rows (at most 4), sum = Σ (x − shift), squares
/// = Σ (x − shift)².
inline void columnSums(const float* x, int64_t stride, int64_t rows, int64_t channels, float* shift,
                       float* sum, float* squares) {
  const int64_t few = rows < 4 ? rows : 4;
  const Vec inverse = Vec::set(1.0f / static_cast<float>(few));
  forVectors(channels, [&](int64_t c, int lanes) {
    Vec mean = Vec::zero();  // every term is scaled, so that the largest floats do not overflow
    for (int64_t r = 0; r < few; r++) mean = fma(loadLanes(x + r * stride + c, lanes), inverse, mean);
    storeLanes(mean, shift + c, lanes);
    storeLanes(Vec::zero(), sum + c, lanes);
    storeLanes(Vec::zero(), squares + c, lanes);
  });
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) {  // four rows at a time: the sums go through the cache once for them
    const float *x0 = x + r * stride, *x1 = x0 + stride, *x2 = x1 + stride, *x3 = x2 + stride;
    forVectors(channels, [&](int64_t c, int lanes) {
      const Vec from = loadLanes(shift + c, lanes);
      const Vec d0 = loadLanes(x0 + c, lanes) - from, d1 = loadLanes(x1 + c, lanes) - from;
      const Vec d2 = loadLanes(x2 + c, lanes) - from, d3 = loadLanes(x3 + c, lanes) - from;
      const Vec four = fma(d0, d0, d1 * d1) + fma(d2, d2, d3 * d3);
      storeLanes(loadLanes(sum + c, lanes) + ((d0 + d1) + (d2 + d3)), sum + c, lanes);
      storeLanes(loadLanes(squares + c, lanes) + four, squares + c, lanes);
    });
  }
  for (; r < rows; r++)
    forVectors(channels, [&](int64_t c, int lanes) {
      const Vec d = loadLanes(x + r * stride + c, lanes) - loadLanes(shift + c, lanes);
      storeLanes(loadLanes(sum + c, lanes) + d, sum + c, lanes);
      storeLanes(fma(d, d, loadLanes(squares + c, lanes)), squares + c, lanes);
    });
}

template <Act A>
inline void normApplyRows(const NormApply& a) {
  for (int64_t r = 0; r < a.rows; r++) {
    const float* x = a.x + r * a.xStride;
    float* y = a.y + r * a.yStride;
    forVectors(a.channels, [&](int64_t c, int lanes) {
      const Vec d = loadLanes(x + c, lanes) - loadLanes(a.mean + c, lanes);
      storeLanes(activate<A>(fma(d, loadLanes(a.scale + c, lanes), loadLanes(a.offset + c, lanes))), y + c,
                 lanes);
    });
  }
}

inline void normApply(const NormApply& a) {
  if (a.act == Act::Silu) return normApplyRows<Act::Silu>(a);
  if (a.act == Act::Gelu) return normApplyRows<Act::Gelu>(a);
  normApplyRows<Act::None>(a);
}

inline void layerNormRows(const LayerNormRows& a) {
  const float count = static_cast<float>(a.width);
  for (int64_t r = 0; r < a.rows; r++) {
    const float* x = a.x + r * a.xStride;
    float* y = a.y + r * a.yStride;
    float first[Vec::kWidth];
    for (float& lane : first) lane = a.centred ? x[0] : 0;

    Vec sum0 = Vec::zero(), sum1 = Vec::zero();
    forVectors(a.width, [&](int64_t c, int lanes) {
      const Vec d = loadLanes(x + c, lanes) - loadLanes(first, lanes);  // lanes past the end stay 0
      if (c / Vec::kWidth % 2)
        sum1 = sum1 + d;
      else
        sum0 = sum0 + d;
    });
    float mean[Vec::kWidth];  // of x − x₀
    for (float& lane : mean) lane = a.centred ? sum(sum0 + sum1) / count : 0;

    Vec squares0 = Vec::zero(), squares1 = Vec::zero();
    forVectors(a.width, [&](int64_t c, int lanes) {
      const Vec d = (loadLanes(x + c, lanes) - loadLanes(first, lanes)) - loadLanes(mean, lanes);
      if (c / Vec::kWidth % 2)
        squares1 = fma(d, d, squares1);
      else
        squares0 = fma(d, d, squares0);
    });
    const float scale = 1.0f / __builtin_sqrtf(sum(squares0 + squares1) / count + a.epsilon);

    const Vec shift = Vec::set(first[0]), middle = Vec::set(mean[0]), factor = Vec::set(scale);
    forVectors(a.width, [&](int64_t c, int lanes) {
      const Vec d = ((loadLanes(x + c, lanes) - shift) - middle) * factor;
      const Vec offset = a.beta ? loadLanes(a.beta + c, lanes) : Vec::zero();
      storeLanes(fma(d, loadLanes(a.gamma + c, lanes), offset), y + c, lanes);
    });
  }
}

}  // namespace nd::ND_ISA
