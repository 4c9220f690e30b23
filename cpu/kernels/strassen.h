// The sums of Strassen's algorithm around its matrix products (cpu/strassen.cpp):
//
//   combine:  x ± y → to                   count elements, of rows or of stored weights, widened
//   fold:     first (=, +, −) p, second (=, +, −) p      [count] floats, a product p into two quadrants of y
//
// Bound by loads and stores. Instructions per FMA of the plain product at 2048×640×640 (callgrind,
// 2026-11-24): combine 0.06, fold 0.02, of 1.68 in all, where the plain product takes 1.86. Tried and lost: a
// tile that adds its sums to the quadrants from the registers (half of fold's instructions less, but GCC 12
// then moves accumulators within the loop over k, 5 % of its instructions).
#pragma once

#include "cpu/kernels/gemm.h"

namespace nd::ND_ISA {

template <WeightFormat F, bool Subtract>
ND_INLINE void combineAs(const Combination& c) {
  const void *x = c.x, *y = c.y;
  float* to = c.to;
  for (int64_t i = 0, count = c.count; i < count; i += kNr) {
    ND_UNROLL for (int64_t j = 0; j < kNr; j += Vec::kWidth) {
      const Vec a = widened<F>(x, i + j), b = widened<F>(y, i + j);
      (Subtract ? a - b : a + b).store(to + i + j);
    }
  }
}

template <WeightFormat F>
inline void combineIn(const Combination& c) {
  if (c.subtract)
    combineAs<F, true>(c);
  else
    combineAs<F, false>(c);
}

inline void combine(const Combination& c) {
  switch (c.format) {
    case WeightFormat::F32:
      return combineIn<WeightFormat::F32>(c);
    case WeightFormat::F16:
      return combineIn<WeightFormat::F16>(c);
    case WeightFormat::BF16:
      return combineIn<WeightFormat::BF16>(c);
  }
}

template <Fold How>
ND_INLINE void foldVec(Vec p, float* to) {
  if constexpr (How == Fold::Set) p.store(to);
  if constexpr (How == Fold::Add) (Vec::load(to) + p).store(to);
  if constexpr (How == Fold::Subtract) (Vec::load(to) - p).store(to);
}

template <Fold First, Fold Second>
inline void foldBoth(const FoldedProduct& f) {
  const float* p = f.product;
  float *first = f.first, *second = f.second;
  for (int64_t i = 0, count = f.count; i < count; i += kNr) {
    ND_UNROLL for (int64_t j = i; j < i + kNr; j += Vec::kWidth) {
      const Vec v = Vec::load(p + j);
      foldVec<First>(v, first + j);
      foldVec<Second>(v, second + j);
    }
  }
}

template <Fold First>
inline void foldFirst(const FoldedProduct& f) {
  switch (f.howSecond) {
    case Fold::None:
      return foldBoth<First, Fold::None>(f);
    case Fold::Set:
      return foldBoth<First, Fold::Set>(f);
    case Fold::Add:
      return foldBoth<First, Fold::Add>(f);
    case Fold::Subtract:
      return foldBoth<First, Fold::Subtract>(f);
  }
}

inline void fold(const FoldedProduct& f) {
  switch (f.howFirst) {
    case Fold::None:
      return;
    case Fold::Set:
      return foldFirst<Fold::Set>(f);
    case Fold::Add:
      return foldFirst<Fold::Add>(f);
    case Fold::Subtract:
      return foldFirst<Fold::Subtract>(f);
  }
}

}  // namespace nd::ND_ISA
