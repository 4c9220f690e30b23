// Narrow float conversions, each against arithmetic that does not share their bit tricks.
#include "engine/half.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "engine/tensor.h"
#include "test/native/check.h"

namespace {

/// The value that sign, exponent and fraction mean, by the definition.
double decode(uint32_t bits, int exponentBits, int fractionBits, int bias) {
  const uint32_t fraction = bits & ((1u << fractionBits) - 1);
  const int exponent = static_cast<int>(bits >> fractionBits & ((1u << exponentBits) - 1));
  const double sign = bits >> (exponentBits + fractionBits) & 1 ? -1 : 1;
  const double scaled = std::ldexp(fraction, -fractionBits);
  return sign * (exponent ? std::ldexp(1 + scaled, exponent - bias) : std::ldexp(scaled, 1 - bias));
}

bool sameFloat(float a, double b) {
  return std::isnan(b) ? std::isnan(a) : a == b && std::signbit(a) == std::signbit(b);
}

/// The nearest F16 to a double by search over the neighbours of a truncation: ties to even.
uint16_t nearestHalf(double value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const double magnitude = std::fabs(value);
  uint32_t low = 0, high = 0x7c00;  // 0x7c00 stands for 65536, what the next step would be
  while (high - low > 1) {
    const uint32_t middle = (low + high) / 2;
    (decode(middle, 5, 10, 15) <= magnitude ? low : high) = middle;
  }
  const double below = magnitude - decode(low, 5, 10, 15), above = decode(high, 5, 10, 15) - magnitude;
  const bool up = above < below || (above == below && (low & 1));
  return static_cast<uint16_t>(sign | (up ? high : low));
}

}  // namespace

ND_TEST("half: every F16 converts exactly and back") {
  for (uint32_t h = 0; h < 0x10000; h++) {
    const float value = nd::halfToFloat(static_cast<uint16_t>(h));
    const uint32_t magnitude = h & 0x7fff;
    if (magnitude > 0x7c00) {
      CHECK(std::isnan(value) && std::isnan(nd::halfToFloat(nd::floatToHalf(value))));
      continue;
    }
    if (magnitude == 0x7c00)
      CHECK(std::isinf(value) && std::signbit(value) == (h >> 15 & 1));
    else
      CHECK(sameFloat(value, decode(h, 5, 10, 15)));
    CHECK(nd::floatToHalf(value) == h);
  }
}

ND_TEST("half: float to F16 rounds to nearest even") {
  for (uint32_t h = 0; h < 0x7c00; h++) {
    const double a = decode(h, 5, 10, 15), b = decode(h + 1, 5, 10, 15);
    for (const double value : {(a + b) / 2, a + (b - a) * 0.499, a + (b - a) * 0.501}) {
      const float f = static_cast<float>(value);
      CHECK(nd::floatToHalf(f) == nearestHalf(f));
      CHECK(nd::floatToHalf(-f) == nearestHalf(-f));
    }
  }
  CHECK(nd::floatToHalf(65519.99f) == 0x7bff);
  CHECK(nd::floatToHalf(65520.0f) == 0x7c00);
  CHECK(nd::floatToHalf(-std::numeric_limits<float>::infinity()) == 0xfc00);
  CHECK(nd::floatToHalf(std::numeric_limits<float>::denorm_min()) == 0);
  CHECK(nd::floatToHalf(0x1p-25f) == 0 && nd::floatToHalf(std::nextafter(0x1p-25f, 1.0f)) == 1);
}

ND_TEST("half: BF16 is the upper half of a float, rounded to nearest even") {
  for (uint32_t b = 0; b < 0x10000; b++) {
    const float value = nd::bfloatToFloat(static_cast<uint16_t>(b));
    if (std::isnan(value)) {
      CHECK(std::isnan(nd::bfloatToFloat(nd::floatToBfloat(value))));
      continue;
    }
    CHECK(nd::floatToBfloat(value) == b);
    if (std::isinf(value)) continue;
    const auto withLow = [b](uint32_t low) { return nd::floatToBfloat(std::bit_cast<float>(b << 16 | low)); };
    CHECK(withLow(0x7fff) == b);
    CHECK(withLow(0x8000) == b + (b & 1));
    CHECK(withLow(0x8001) == b + 1);
  }
  CHECK(std::isnan(nd::bfloatToFloat(nd::floatToBfloat(std::bit_cast<float>(0x7f800001u)))));
}

ND_TEST("half: every F8_E4M3 and F8_E5M2, as float and as F16") {
  for (uint32_t f = 0; f < 256; f++) {
    const uint8_t byte = static_cast<uint8_t>(f);
    const double e4m3 = (f & 0x7f) == 0x7f ? std::nan("") : decode(f, 4, 3, 7);
    CHECK(sameFloat(nd::float8e4m3ToFloat(byte), e4m3));
    CHECK(sameFloat(nd::halfToFloat(nd::float8e4m3ToHalf(byte)), e4m3));
    double e5m2 = decode(f, 5, 2, 15);
    if ((f & 0x7c) == 0x7c) e5m2 = f & 3 ? std::nan("") : std::copysign(INFINITY, e5m2);
    CHECK(sameFloat(nd::float8e5m2ToFloat(byte), e5m2));
    CHECK(sameFloat(nd::halfToFloat(nd::float8e5m2ToHalf(byte)), e5m2));
  }
  CHECK(nd::float8e4m3ToFloat(0x7e) == 448 && nd::float8e4m3ToFloat(0x01) == 0x1p-9f);
  CHECK(nd::float8e5m2ToFloat(0x7b) == 57344 && nd::float8e5m2ToFloat(0x01) == 0x1p-16f);
}

ND_TEST("tensor: shape text") {
  CHECK(nd::Shape({2, 64, 64, 320}).text() == "[2, 64, 64, 320]");
  CHECK(nd::Shape().text() == "[]");
}
