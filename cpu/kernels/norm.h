// Group and layer normalisation: y = act(γ (x − μ) / sqrt(σ² + ε) + β).
//
//   groupNorm   x[rows, C] → Σ (x − x₀), Σ (x − x₀)² per channel [C]      (one pass; norm.cpp joins them in
//   double)
//               x[rows, C], mean[C], scale[C], offset[C] → y[rows, C]     (one pass, with SiLU)
//   layerNorm   x[rows, C] → y[rows, C]                                   (a row stays in the L1 cache)
//
// Sums are taken of differences to a value of the data (x₀), so that a mean that is large beside σ costs no
// digits; that x₀ is itself in the sum bounds the cancellation by the number of rows. Bound by memory
// bandwidth; with SiLU in the cache by its exponential and division.
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

inline void columnSums(const float* x, int64_t stride, int64_t rows, int64_t channels, float* sum,
                       float* squares) {
  for (int64_t c = 0; c < channels; c++) sum[c] = squares[c] = 0;
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) {  // four rows at a time: the sums go through the cache once for them
    const float* at = x + r * stride;
    forVectors(channels, [&](int64_t c, int lanes) {
      const Vec shift = loadLanes(x + c, lanes);
      const Vec d0 = loadLanes(at + c, lanes) - shift, d1 = loadLanes(at + stride + c, lanes) - shift;
      const Vec d2 = loadLanes(at + 2 * stride + c, lanes) - shift,
                d3 = loadLanes(at + 3 * stride + c, lanes) - shift;
      storeLanes(loadLanes(sum + c, lanes) + ((d0 + d1) + (d2 + d3)), sum + c, lanes);
      storeLanes(loadLanes(squares + c, lanes) + (fma(d0, d0, d1 * d1) + fma(d2, d2, d3 * d3)), squares + c,
                 lanes);
    });
  }
  for (; r < rows; r++)
    forVectors(channels, [&](int64_t c, int lanes) {
      const Vec d = loadLanes(x + r * stride + c, lanes) - loadLanes(x + c, lanes);
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
  normApplyRows<Act::None>(a);
}

inline void layerNormRows(const LayerNormRows& a) {
  const float count = static_cast<float>(a.width);
  for (int64_t r = 0; r < a.rows; r++) {
    const float* x = a.x + r * a.xStride;
    float* y = a.y + r * a.yStride;
    float first[Vec::kWidth];
    for (float& lane : first) lane = x[0];

    Vec sum0 = Vec::zero(), sum1 = Vec::zero();
    forVectors(a.width, [&](int64_t c, int lanes) {
      const Vec d = loadLanes(x + c, lanes) - loadLanes(first, lanes);  // lanes past the end stay 0
      if (c / Vec::kWidth % 2)
        sum1 = sum1 + d;
      else
        sum0 = sum0 + d;
    });
    float mean[Vec::kWidth];  // of x − x₀
    for (float& lane : mean) lane = sum(sum0 + sum1) / count;

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
      storeLanes(fma(d, loadLanes(a.gamma + c, lanes), loadLanes(a.beta + c, lanes)), y + c, lanes);
    });
  }
}

}  // namespace nd::ND_ISA
