// Activations over a stretch of floats: x[count] → act(x)[count]. Bound by memory for long stretches, by the
// exponential or the error function for those in the cache. Measured (2026-11-23, AMD EPYC Zen 3, AVX2, one
// thread, in the cache): SiLU 1.5, GELU 1.9, QuickGELU 1.8 billion values a second.
#pragma once

#include "cpu/kernels/gemm.h"

namespace nd::ND_ISA {

template <Act A>
inline void activateStretch(const float* x, float* y, int64_t count) {
  int64_t i = 0;
  for (; i + Vec::kWidth <= count; i += Vec::kWidth) activate<A>(Vec::load(x + i)).store(y + i);
  if (const int n = static_cast<int>(count - i); n > 0)
    activate<A>(Vec::loadPartial(x + i, n)).storePartial(y + i, n);
}

inline void activateMany(const float* x, float* y, int64_t count, Act act) {
  switch (act) {
    case Act::None:
      return activateStretch<Act::None>(x, y, count);
    case Act::Silu:
      return activateStretch<Act::Silu>(x, y, count);
    case Act::Gelu:
      return activateStretch<Act::Gelu>(x, y, count);
    case Act::QuickGelu:
      return activateStretch<Act::QuickGelu>(x, y, count);
    case Act::Relu:
      return activateStretch<Act::Relu>(x, y, count);
    case Act::GeluTanh:
      return activateStretch<Act::GeluTanh>(x, y, count);
  }
}

}  // namespace nd::ND_ISA
