#include "cuda/kernels/weight-layout.h"

#include "cuda/kernels/vector.h"

namespace nd::cuda {

namespace {

// The stored dtypes that have no arithmetic type of their own.
struct E4m3 {
  uint8_t bits;
};
struct E5m2 {
  uint8_t bits;
};

/// As a float's exponent and mantissa the value is 2^120 too small (biases 7 and 127); the product is exact.
ND_DEVICE float widened(E4m3 v) {
  const uint32_t magnitude = v.bits & 0x7fu, sign = (v.bits & 0x80u) << 24;
  if (magnitude == 0x7f) return bitsToFloat(0x7fc00000u | sign);
  return bitsToFloat(floatToBits(bitsToFloat(magnitude << 20) * 0x1p120f) | sign);
}
ND_DEVICE float widened(E5m2 v) {
  const uint32_t magnitude = v.bits & 0x7fu, sign = (v.bits & 0x80u) << 24;
  if (magnitude >= 0x7c) return bitsToFloat(sign | 0x7f800000u | (magnitude & 3) << 21);
  return bitsToFloat(floatToBits(bitsToFloat(magnitude << 21) * 0x1p112f) | sign);
}
template <class S>
ND_DEVICE float widened(S v) {
  return toFloat(v);
}

template <class S, class T>
struct Params {
  Global<const S> source;
  Global<T> target;
  int64_t first, pitch, gated;
  uint32_t count, columns, taps, channels;
};

template <class S, class T>
__global__ void layoutKernel(Params<S, T> p) {
  const Position at = positionOf(static_cast<uint32_t>(p.pitch), 1);
  if (at.row >= p.count) return;
  const int64_t row = p.first + at.row;
  const int64_t to = p.gated == 0 ? row : row < p.gated ? 2 * row : 2 * (row - p.gated) + 1;
  float value = 0;
  if (at.column < p.columns) {
    const uint32_t tap = at.column / p.channels, channel = at.column % p.channels;
    const S stored = p.source[static_cast<int64_t>(at.row) * p.columns + channel * p.taps + tap];
    value = widened(stored);
  }
  p.target[to * p.pitch + at.column] = fromFloat<T>(value);
}

template <class S, class T>
void run(const Launch& launchOn, const WeightRows& rows) {
  launch("layoutWeight", layoutKernel<S, T>, overRows(rows.count, rows.pitch, 1, launchOn.stream),
         Params<S, T>{Global<const S>(rows.source), Global<T>(static_cast<T*>(rows.target)), rows.first,
                      rows.pitch, rows.gated, static_cast<uint32_t>(rows.count),
                      static_cast<uint32_t>(rows.columns), static_cast<uint32_t>(rows.taps),
                      static_cast<uint32_t>(rows.columns / rows.taps)});
}

template <class T>
void fromStored(const Launch& launchOn, const WeightRows& rows) {
  switch (rows.sourceType) {
    case DType::F32:
      return run<float, T>(launchOn, rows);
    case DType::F16:
      return run<Half, T>(launchOn, rows);
    case DType::BF16:
      return run<Bfloat, T>(launchOn, rows);
    case DType::F8_E4M3:
      return run<E4m3, T>(launchOn, rows);
    case DType::F8_E5M2:
      return run<E5m2, T>(launchOn, rows);
    default:
      throw Error(ErrorCode::Internal, "cuda: a weight of a dtype that was not checked");
  }
}

}  // namespace

void layoutWeight(const Launch& launchOn, const WeightRows& rows) {
  if (rows.type == DType::F32) return fromStored<float>(launchOn, rows);
  withType(rows.type, [&](auto t) { fromStored<decltype(t)>(launchOn, rows); });
}

}  // namespace nd::cuda
