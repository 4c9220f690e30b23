// What every kernel body may use: `Vec`, kWidth floats, in the namespace of the unit that is being compiled.
// An arch unit (cpu/arch/*.cpp) defines ND_ISA, includes its vec-*.h and then the bodies, which open
// `namespace nd::ND_ISA`. One unit, one instruction set, one namespace.
//
//   Vec::kWidth                         floats in a vector
//   Vec::zero(), Vec::set(x)            all lanes 0 or x
//   Vec::load(p), v.store(p)            kWidth floats, any alignment
//   Vec::loadPartial(p, n)              lanes 0..n-1, the rest 0; touches only n floats (0 <= n <= kWidth)
//   v.storePartial(p, n)                writes only n floats
//   Vec::loadF16(p), loadBf16(p)        kWidth 16-bit floats, converted exactly
//   + - * /, fma(a, b, c) = a·b + c, fnma(a, b, c) = c − a·b (one rounding where the CPU has it), sqrt
//   accumulate(sum, a, b)               sum = fma(a, b, sum) in sum's own register, where that can be said:
//                                       left to itself GCC 12 lets a's take the sum and moves it back
//   min, max                            a NaN in the second argument is kept
//   a < b → Mask, select(mask, yes, no)
//   round(v)                            nearest integer, |v| < 2^22
//   exponent(n)                         2^n for integral −127 <= n <= 128 (−127 gives 0, 128 infinity)
//   sum(v), maxOf(v)                    over the lanes
// and from math.h: exp, erf, sigmoid, gelu, silu, quickGelu.
//
// Rule for everything that an arch unit includes: no standard library templates or inline functions, and no
// engine headers. The compiler may emit such a function with this unit's instructions, and the linker keeps
// one copy for the whole program: the generic code would then crash on an older CPU.
#pragma once

#ifndef ND_ISA
#error "cpu/kernels/*.h are compiled by the units in cpu/arch, which define ND_ISA"
#endif

#include <cstddef>
#include <cstdint>

#if defined(_MSC_VER)
#define ND_RESTRICT __restrict
#define ND_INLINE __forceinline
#define ND_NOINLINE __declspec(noinline)
#define ND_UNROLL
#define ND_ROLLED
#else
#define ND_RESTRICT __restrict__
#define ND_INLINE inline __attribute__((always_inline))
#define ND_NOINLINE __attribute__((noinline))
#define ND_UNROLL _Pragma("GCC unroll 16")
#define ND_ROLLED _Pragma("GCC unroll 1")
#endif
