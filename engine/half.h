// Scalar conversions between float and the narrow float types of weights. All of them are exact where the
// target holds the value; otherwise they round to nearest, ties to even. NaN stays NaN, overflow is infinity.
//   F16      1.5.10, bias 15     IEEE 754 binary16
//   BF16     1.8.7,  bias 127    the upper half of a float
//   F8_E4M3  1.4.3,  bias 7      the "fn" variant (torch.float8_e4m3fn): no infinity, NaN is S.1111.111, max
//   448 F8_E5M2  1.5.2,  bias 15     the upper half of an F16 (torch.float8_e5m2)
#pragma once

#include <bit>
#include <cstdint>

namespace nd {

inline float halfToFloat(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16;
  const uint32_t magnitude = h & 0x7fff;
  if (magnitude >= 0x7c00) {  // infinity; a NaN keeps its payload and becomes quiet, as F16C does it
    const uint32_t quiet = magnitude > 0x7c00 ? 0x400000u : 0u;
    return std::bit_cast<float>(sign | 0x7f800000u | quiet | (magnitude & 0x3ff) << 13);
  }
  if (magnitude < 0x400) {  // zero and subnormals are multiples of 2^-24
    const float value = static_cast<float>(magnitude) * 0x1p-24f;
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(value));
  }
  return std::bit_cast<float>(sign | ((magnitude << 13) + (112u << 23)));
}

inline uint16_t floatToHalf(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = bits >> 16 & 0x8000;
  const uint32_t magnitude = bits & 0x7fffffff;
  uint32_t half;
  if (magnitude > 0x7f800000) {
    half = 0x7e00 | (magnitude >> 13 & 0x3ff);
  } else if (magnitude >= 0x477ff000) {  // 65520, halfway between the largest F16 and 2^16
    half = 0x7c00;
  } else if (magnitude < 0x38800000) {  // below 2^-14: the sum with 1/2 rounds to multiples of 2^-24
    half = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3f000000;
  } else {
    half = (magnitude - (112u << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13;
  }
  return static_cast<uint16_t>(sign | half);
}

inline float bfloatToFloat(uint16_t b) { return std::bit_cast<float>(static_cast<uint32_t>(b) << 16); }

inline uint16_t floatToBfloat(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/// Exact: F16 holds every F8_E5M2.
inline uint16_t float8e5m2ToHalf(uint8_t f) { return static_cast<uint16_t>(f << 8); }
inline float float8e5m2ToFloat(uint8_t f) { return halfToFloat(float8e5m2ToHalf(f)); }

/// Read with F16's bias the value is 2^8 too small; the product is exact.
inline float float8e4m3ToFloat(uint8_t f) {
  const uint32_t sign = static_cast<uint32_t>(f & 0x80) << 24;
  const uint32_t magnitude = f & 0x7f;
  if (magnitude == 0x7f) return std::bit_cast<float>(sign | 0x7fc00000u);
  const float value = halfToFloat(static_cast<uint16_t>(magnitude << 7)) * 256.0f;
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(value));
}

/// Exact: F16 holds every F8_E4M3.
inline uint16_t float8e4m3ToHalf(uint8_t f) { return floatToHalf(float8e4m3ToFloat(f)); }

}  // namespace nd
