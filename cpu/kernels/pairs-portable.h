// Pairs of bfloat16 in the compiler's own vector extension, beside vec-portable.h: the definition of `dtype:
// 'bfloat16'` on every machine. cpu/kernels/bf16.h says what each member means.
#pragma once

#include "cpu/kernels/vec-portable.h"

namespace nd::ND_ISA {

/// The upper half of every lane is its value as bfloat16. A NaN stays one.
inline Uint roundedToBf16(Vec x) {
  const Uint bits = reinterpret_cast<Uint>(x.v);
  const Uint nearest = bits + 0x7fffu + (bits >> 16 & 1u);
  const Uint nan = reinterpret_cast<Uint>((bits & 0x7fffffffu) > 0x7f800000u);
  return (nan & (bits | 0x400000u)) | (~nan & nearest);
}

struct Pairs {
  Uint v;  // the first of a pair in the lower half

  static Pairs load(const uint16_t* p) {
    Pairs r;
    __builtin_memcpy(&r.v, p, sizeof r.v);
    return r;
  }
  static Pairs zip(Vec even, Vec odd) {
    return {roundedToBf16(even) >> 16 | (roundedToBf16(odd) & 0xffff0000u)};
  }
  static Pairs line(Vec low, Vec high) {
    const Half halves[2] = {__builtin_convertvector(roundedToBf16(low) >> 16, Half),
                            __builtin_convertvector(roundedToBf16(high) >> 16, Half)};
    Pairs r;
    __builtin_memcpy(&r.v, halves, sizeof r.v);
    return r;
  }
  void store(uint16_t* p) const { __builtin_memcpy(p, &v, sizeof v); }
};

/// In every lane.
struct Pair {
  Uint v;

  static Pair load(const uint16_t* p) { return {(static_cast<uint32_t>(p[1]) << 16 | p[0]) - Uint{}}; }
};

/// Products of two bfloat16 are exact in float32.
inline Vec dot(Pair a, Pairs b, Vec c) {
  c.v = c.v + reinterpret_cast<Float>(a.v << 16) * reinterpret_cast<Float>(b.v << 16);
  c.v = c.v + reinterpret_cast<Float>(a.v & 0xffff0000u) * reinterpret_cast<Float>(b.v & 0xffff0000u);
  return c;
}

}  // namespace nd::ND_ISA
