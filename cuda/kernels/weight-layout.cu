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
struct FoldParams {
  Global<const T> weight;
  Global<T> target;
  int64_t pitch, targetPitch;
  uint32_t n, channels;
};

/// Of three taps those that a result of parity `odd` sees through small pixel `side`: 0 | 1, 2 or 0, 1 | 2.
struct Taps {
  int first, last;
  ND_DEVICE Taps(uint32_t odd, uint32_t side)
      : first(side == 0 ? 0
              : odd     ? 2
                        : 1),
        last(side != 0 ? 2
             : odd     ? 1
                       : 0) {}
};

template <class T>
__global__ void foldKernel(FoldParams<T> p) {
  const Position at = positionOf(static_cast<uint32_t>(p.targetPitch), 1);
  if (at.row >= 4 * p.n) return;
  const uint32_t phase = at.row / p.n, tap = at.column / p.channels, channel = at.column % p.channels;
  float sum = 0;
  if (tap < 4) {
    const Taps rows(phase / 2, tap / 2), columns(phase % 2, tap % 2);
    const Global<const T> weight = p.weight + (at.row % p.n * p.pitch + channel);
    for (int r = rows.first; r <= rows.last; r++)
      for (int s = columns.first; s <= columns.last; s++) sum += toFloat(weight[(3 * r + s) * p.channels]);
  }
  p.target[at.row * p.targetPitch + at.column] = fromFloat<T>(sum);
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

void foldWeight(const Launch& launchOn, const FoldedWeight& f) {
  withType(f.type, [&](auto t) {
    using T = decltype(t);
    launch(
        "foldWeight", foldKernel<T>, overRows(4 * f.n, f.targetPitch, 1, launchOn.stream),
        FoldParams<T>{Global<const T>(static_cast<const T*>(f.weight)), Global<T>(static_cast<T*>(f.target)),
                      f.pitch, f.targetPitch, static_cast<uint32_t>(f.n), static_cast<uint32_t>(f.channels)});
  });
}

}  // namespace nd::cuda
