// Pairs of bfloat16 with AVX512_BF16, beside vec-avx512.h. cpu/kernels/bf16.h says what each member means.
#pragma once

#include "cpu/kernels/vec-avx512.h"

namespace nd::ND_ISA {

/// Word i of the low half goes to word 2i, word i of the high half to word 2i + 1.
alignas(64) constexpr uint16_t kZip[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                           8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};

struct Pairs {
  __m512i v;

  static Pairs load(const uint16_t* p) { return {_mm512_loadu_si512(p)}; }
  static Pairs line(Vec low, Vec high) {
    return {reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high.v, low.v))};
  }
  static Pairs zip(Vec even, Vec odd) {
    return {_mm512_permutexvar_epi16(_mm512_load_si512(kZip), line(even, odd).v)};
  }
  void store(uint16_t* p) const { _mm512_storeu_si512(p, v); }
};

/// In every lane.
struct Pair {
  __m512i v;

  static Pair load(const uint16_t* p) {
    using Word = int32_t __attribute__((may_alias));
    return {_mm512_set1_epi32(*reinterpret_cast<const Word*>(p))};
  }
};

inline Vec dot(Pair a, Pairs b, Vec c) {
  return {_mm512_dpbf16_ps(c.v, reinterpret_cast<__m512bh>(a.v), reinterpret_cast<__m512bh>(b.v))};
}

}  // namespace nd::ND_ISA
