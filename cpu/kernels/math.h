// exp, erf and the activations over Vec. Largest errors against double arithmetic, all ISAs
// (test/native/gemm-math.cpp): exp 2e-7 relative, erf 3e-7 absolute.
#pragma once

#include "cpu/kernels/vec.h"

namespace nd::ND_ISA {

/// e^x: x = n·ln 2 + r, |r| <= ln 2 / 2, e^r by its Taylor polynomial of degree 7, 2^n through the exponent bits.
/// −inf and everything below −87.33 give 0, above 88.73 infinity; NaN stays NaN.
ND_INLINE Vec exp(Vec x) {
  x = min(Vec::set(89.0f), max(Vec::set(-87.33f), x));
  Vec n = round(x * Vec::set(1.44269504f));
  Vec r = fnma(n, Vec::set(0.693359375f), x);  // ln 2 in two parts, the first exact in few bits
  r = fnma(n, Vec::set(-2.12194440e-4f), r);
  Vec p = Vec::set(1.0f / 5040);
  p = fma(p, r, Vec::set(1.0f / 720));
  p = fma(p, r, Vec::set(1.0f / 120));
  p = fma(p, r, Vec::set(1.0f / 24));
  p = fma(p, r, Vec::set(1.0f / 6));
  p = fma(p, r, Vec::set(0.5f));
  p = fma(p, r, Vec::set(1.0f));
  p = fma(p, r, Vec::set(1.0f));
  // 2^n in two factors, so that n = 128 is still finite where the product is; n = −126 gives 0.
  return (p + p) * exponent(n - Vec::set(1.0f));
}

/// x · P(x²) / Q(x²) on |x| <= 4, beyond which erf is ±1 in float.
ND_INLINE Vec erf(Vec x) {
  x = min(Vec::set(4.0f), max(Vec::set(-4.0f), x));
  Vec s = x * x;
  Vec p = Vec::set(-2.72614225801306e-10f);
  p = fma(p, s, Vec::set(2.77068142495902e-08f));
  p = fma(p, s, Vec::set(-2.10102402082508e-06f));
  p = fma(p, s, Vec::set(-5.69250639462346e-05f));
  p = fma(p, s, Vec::set(-7.34990630326855e-04f));
  p = fma(p, s, Vec::set(-2.95459980854025e-03f));
  p = fma(p, s, Vec::set(-1.60960333262415e-02f));
  Vec q = Vec::set(-1.45660718464996e-05f);
  q = fma(q, s, Vec::set(-2.13374055278905e-04f));
  q = fma(q, s, Vec::set(-1.68282697438203e-03f));
  q = fma(q, s, Vec::set(-7.37332916720468e-03f));
  q = fma(q, s, Vec::set(-1.42647390514189e-02f));
  return x * p / q;
}

ND_INLINE Vec sigmoid(Vec x) { return Vec::set(1.0f) / (Vec::set(1.0f) + exp(Vec::zero() - x)); }
ND_INLINE Vec silu(Vec x) { return x / (Vec::set(1.0f) + exp(Vec::zero() - x)); }
ND_INLINE Vec quickGelu(Vec x) { return x / (Vec::set(1.0f) + exp(x * Vec::set(-1.702f))); }
ND_INLINE Vec gelu(Vec x) {
  Vec half = Vec::set(0.5f) * x;
  return fma(half, erf(x * Vec::set(0.70710678f)), half);
}

}  // namespace nd::ND_ISA
