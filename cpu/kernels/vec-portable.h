// The vector type in the compiler's own vector extension: ND_PORTABLE_WIDTH floats (a power of two) in the
// namespace nd::ND_ISA. Width 4 is the "scalar" unit (baseline SSE2 on x86-64: nothing is required of the
// CPU); width 16 lets the tests run the AVX-512 unit's tile shapes on any machine. cpu/kernels/vec.h says
// what each member means.
#pragma once

#include <cstdint>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi"  // vectors wider than the CPU's are only passed inside this unit
#endif

namespace nd::ND_ISA {

using Float = float __attribute__((vector_size(4 * ND_PORTABLE_WIDTH)));
using Int = int32_t __attribute__((vector_size(4 * ND_PORTABLE_WIDTH)));
using Uint = uint32_t __attribute__((vector_size(4 * ND_PORTABLE_WIDTH)));
using Half = uint16_t __attribute__((vector_size(2 * ND_PORTABLE_WIDTH)));

struct Mask {
  Int m;
};

struct Vec {
  static constexpr int kWidth = ND_PORTABLE_WIDTH;
  Float v;

  static Vec zero() { return {Float{}}; }
  static Vec set(float x) { return {x - Float{}}; }
  static Vec load(const float* p) {
    Vec r;
    __builtin_memcpy(&r.v, p, sizeof r.v);
    return r;
  }
  static Vec loadPartial(const float* p, int n) {
    Vec r = zero();
    for (int i = 0; i < n; i++) r.v[i] = p[i];
    return r;
  }
  static Uint loadWide(const uint16_t* p) {
    Half h;
    __builtin_memcpy(&h, p, sizeof h);
    return __builtin_convertvector(h, Uint);
  }
  // Exponent and mantissa move into place; multiplying by 2^112 corrects the bias and is exact for subnormals
  // as well. Infinity and NaN (exponent 31) get float's largest exponent.
  static Vec loadF16(const uint16_t* p) {
    Uint h = loadWide(p);
    Uint magnitude = (h & 0x7fffu) << 13;
    Float scaled = reinterpret_cast<Float>(magnitude) * 0x1p112f;
    Uint special = reinterpret_cast<Uint>(magnitude >= 0x0f800000u) & 0x7f800000u;
    return {reinterpret_cast<Float>(reinterpret_cast<Uint>(scaled) | special | (h & 0x8000u) << 16)};
  }
  static Vec loadBf16(const uint16_t* p) { return {reinterpret_cast<Float>(loadWide(p) << 16)}; }
  void store(float* p) const { __builtin_memcpy(p, &v, sizeof v); }
  void storePartial(float* p, int n) const {
    for (int i = 0; i < n; i++) p[i] = v[i];
  }
};

inline Vec operator+(Vec a, Vec b) { return {a.v + b.v}; }
inline Vec operator-(Vec a, Vec b) { return {a.v - b.v}; }
inline Vec operator*(Vec a, Vec b) { return {a.v * b.v}; }
inline Vec operator/(Vec a, Vec b) { return {a.v / b.v}; }
inline Vec fma(Vec a, Vec b, Vec c) { return {a.v * b.v + c.v}; }
inline void accumulate(Vec& sum, Vec a, Vec b) { sum = fma(a, b, sum); }
inline Vec fnma(Vec a, Vec b, Vec c) { return {c.v - a.v * b.v}; }
inline Mask operator<(Vec a, Vec b) { return {a.v < b.v}; }
inline Vec select(Mask m, Vec yes, Vec no) { return {m.m ? yes.v : no.v}; }
inline Vec min(Vec a, Vec b) { return select(a < b, a, b); }
inline Vec max(Vec a, Vec b) { return select(b < a, a, b); }
inline Vec sqrt(Vec a) {
  for (int i = 0; i < Vec::kWidth; i++) a.v[i] = __builtin_sqrtf(a.v[i]);
  return a;
}
// Adding and taking away 1.5 · 2^23 leaves the nearest integer for |a| < 2^22.
inline Vec round(Vec a) { return {a.v + 0x1.8p23f - 0x1.8p23f}; }
inline Vec exponent(Vec n) {
  return {reinterpret_cast<Float>((__builtin_convertvector(n.v, Int) + 127) << 23)};
}
inline float sum(Vec a) {
  float s = a.v[0];
  for (int i = 1; i < Vec::kWidth; i++) s += a.v[i];
  return s;
}
inline float maxOf(Vec a) {
  float s = a.v[0];
  for (int i = 1; i < Vec::kWidth; i++) s = a.v[i] > s ? a.v[i] : s;
  return s;
}

}  // namespace nd::ND_ISA
