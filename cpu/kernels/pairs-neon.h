// Pairs of bfloat16 with AArch64's FEAT_BF16, beside vec-neon.h. cpu/kernels/bf16.h says what each member
// means.
#pragma once

#include "cpu/kernels/vec-neon.h"

namespace nd::ND_ISA {

struct Pairs {
  bfloat16x8_t v;

  static Pairs load(const uint16_t* p) { return {vreinterpretq_bf16_u16(vld1q_u16(p))}; }
  static Pairs line(Vec low, Vec high) { return {vcvtq_high_bf16_f32(vcvtq_low_bf16_f32(low.v), high.v)}; }
  static Pairs zip(Vec even, Vec odd) {
    const uint16x8_t e = vreinterpretq_u16_bf16(vcvtq_low_bf16_f32(even.v)),
                     o = vreinterpretq_u16_bf16(vcvtq_low_bf16_f32(odd.v));
    return {vreinterpretq_bf16_u16(vzip1q_u16(e, o))};
  }
  void store(uint16_t* p) const { vst1q_u16(p, vreinterpretq_u16_bf16(v)); }
};

/// In the lowest lane: bfdot takes it from there, and a broadcast would be an instruction.
struct Pair {
  bfloat16x4_t v;

  static Pair load(const uint16_t* p) {
    using Word = uint32_t __attribute__((may_alias));
    return {vreinterpret_bf16_u32(uint32x2_t{*reinterpret_cast<const Word*>(p), 0})};
  }
};

inline Vec dot(Pair a, Pairs b, Vec c) { return {vbfdotq_lane_f32(c.v, b.v, a.v, 0)}; }

}  // namespace nd::ND_ISA
