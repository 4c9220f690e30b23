// __half and __nv_bfloat16 of the simulator: distinct types over 16 bits, rounded as the GPU does (nearest,
// ties to even).
#pragma once

#include <cstdint>

#include "engine/half.h"

namespace nd::cuda {

struct Half {
  uint16_t bits;
};
struct Bfloat {
  uint16_t bits;
};

namespace sim {
/// All 65536 values of a half.
const float* halfTable();
}  // namespace sim

inline float toFloat(float v) { return v; }
inline float toFloat(Half v) { return sim::halfTable()[v.bits]; }
inline float toFloat(Bfloat v) { return bfloatToFloat(v.bits); }
template <class T>
T fromFloat(float v);
template <>
inline float fromFloat<float>(float v) {
  return v;
}
template <>
inline Half fromFloat<Half>(float v) {
  return {floatToHalf(v)};
}
template <>
inline Bfloat fromFloat<Bfloat>(float v) {
  return {floatToBfloat(v)};
}
struct Float2 {
  float x, y;
};
template <class T>
uint32_t pack2(float a, float b) {
  return fromFloat<T>(a).bits | static_cast<uint32_t>(fromFloat<T>(b).bits) << 16;
}
template <class T>
Float2 unpack2(uint32_t word) {
  return {toFloat(T{static_cast<uint16_t>(word)}), toFloat(T{static_cast<uint16_t>(word >> 16)})};
}

}  // namespace nd::cuda
