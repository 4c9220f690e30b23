#include "engine/random.h"

#include <bit>
#include <cmath>
#include <numbers>
#include <utility>
#include <vector>

#include "engine/error.h"
#include "engine/half.h"

namespace nd {
namespace {

/// log(x) for a normal float x > 0: a polynomial of degree 9 on [sqrt(1/2), sqrt(2)) (Cephes logf), with the
/// fused multiply-adds that torch's binaries have.
float cephesLog(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  float e = static_cast<float>(static_cast<int>(bits >> 23) - 126);
  x = std::bit_cast<float>((bits & 0x007fffff) | 0x3f000000);  // in [1/2, 1)
  if (x < 0.707106781186547524f) {
    e -= 1;
    x = x - 1 + x;
  } else {
    x -= 1;
  }
  const float z = x * x;
  float y = 7.0376836292e-2f;
  for (const float c : {-1.1514610310e-1f, 1.1676998740e-1f, -1.2420140846e-1f, 1.4249322787e-1f,
                        -1.6668057665e-1f, 2.0000714765e-1f, -2.4999993993e-1f, 3.3333331174e-1f})
    y = std::fma(y, x, c);
  y *= x;
  y = std::fma(y, z, e * -2.12194440e-4f);  // ln 2 in two parts
  y = std::fma(z, -0.5f, y);
  return std::fma(e, 0.693359375f, x + y);
}

struct SinCos {
  float sin, cos;
};

/// For x ≥ 0 and small: reduction by multiples of π/4 in three parts, polynomials on ±π/4 (Cephes sinf,
/// cosf).
SinCos cephesSinCos(float x) {
  const int octant = (static_cast<int>(x * 1.27323954473516f) + 1) & ~1;
  const float n = static_cast<float>(octant);
  x = std::fma(n, -0.78515625f, x);
  x = std::fma(n, -2.4187564849853515625e-4f, x);
  x = std::fma(n, -3.77489497744594108e-8f, x);
  const float z = x * x;

  float c = std::fma(2.443315711809948e-5f, z, -1.388731625493765e-3f);
  c = std::fma(c, z, 4.166664568298827e-2f) * z;
  c = std::fma(c, z, z * -0.5f) + 1;
  float s = std::fma(-1.9515295891e-4f, z, 8.3321608736e-3f);
  s = std::fma(s, z, -1.6666654611e-1f) * z;
  s = std::fma(s, x, x);

  if (octant & 2) std::swap(s, c);
  return {octant & 4 ? -s : s, (octant + 2) & 4 ? -c : c};
}

/// Box-Muller over 8 pairs (j, j + 8) of uniforms, in place.
void normal16(float* data) {
  constexpr float kTwoPi = static_cast<float>(2 * std::numbers::pi);
  for (int j = 0; j < 8; j++) {
    const float radius = std::sqrt(-2 * cephesLog(1 - data[j]));  // 1 − u is never 0
    const SinCos angle = cephesSinCos(kTwoPi * data[j + 8]);
    data[j] = radius * angle.cos;
    data[j + 8] = radius * angle.sin;
  }
}

using Words = std::array<uint32_t, 4>;

/// Ten rounds of Philox 4x32.
Words philox(Words c, uint32_t k0, uint32_t k1) {
  for (int round = 0; round < 10; round++) {
    const uint64_t p0 = 0xD2511F53ull * c[0], p1 = 0xCD9E8D57ull * c[2];
    c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k0, static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k1, static_cast<uint32_t>(p0)};
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return c;
}

}  // namespace

Mt19937::Mt19937(uint32_t seed) {
  state_[0] = seed;
  for (uint32_t i = 1; i < kSize; i++) state_[i] = 1812433253u * (state_[i - 1] ^ state_[i - 1] >> 30) + i;
}

void Mt19937::refill() {
  constexpr int kShift = 397;
  for (int i = 0; i < kSize; i++) {
    const uint32_t y = (state_[i] & 0x80000000) | (state_[(i + 1) % kSize] & 0x7fffffff);
    state_[i] = state_[(i + kShift) % kSize] ^ y >> 1 ^ (y & 1 ? 0x9908b0dfu : 0u);
  }
  at_ = 0;
}

uint32_t Mt19937::next() {
  if (at_ == kSize) refill();
  uint32_t y = state_[at_++];
  y ^= y >> 11;
  y ^= y << 7 & 0x9d2c5680;
  y ^= y << 15 & 0xefc60000;
  return y ^ y >> 18;
}

double TorchGenerator::uniformDouble() {
  const uint64_t high = engine_.next();
  const uint64_t bits = high << 32 | engine_.next();
  return static_cast<double>(bits & ((1ull << 53) - 1)) * 0x1p-53;
}

double TorchGenerator::normalDouble() {
  if (spare_) {
    const double value = *spare_;
    spare_.reset();
    return value;
  }
  const double u1 = uniformDouble(), u2 = uniformDouble();
  const double radius = std::sqrt(-2 * std::log1p(-u2)), theta = 2 * std::numbers::pi * u1;
  spare_ = radius * std::sin(theta);
  return radius * std::cos(theta);
}

void TorchGenerator::randn(float* out, int64_t n) {
  if (n < 16) {
    for (int64_t i = 0; i < n; i++) out[i] = static_cast<float>(normalDouble());
    return;
  }
  rand(out, n);
  for (int64_t i = 0; i + 16 <= n; i += 16) normal16(out + i);
  if (n % 16) {
    float* last = out + n - 16;
    rand(last, 16);
    normal16(last);
  }
}

void TorchGenerator::randnHalf(uint16_t* out, int64_t n) {
  std::vector<float> values(static_cast<size_t>(n));
  randn(values.data(), n);
  for (int64_t i = 0; i < n; i++) out[i] = floatToHalf(values[static_cast<size_t>(i)]);
}

void TorchGenerator::rand(float* out, int64_t n) {
  for (int64_t i = 0; i < n; i++) out[i] = uniform();
}

void PhiloxGenerator::randn(float* out, int64_t n) {
  if (n <= 0) return;
  const uint32_t k0 = static_cast<uint32_t>(seed_), k1 = static_cast<uint32_t>(seed_ >> 32);
  for (int64_t i = 0; i < n; i++) {
    const Words x = philox({call_, 0, static_cast<uint32_t>(i), static_cast<uint32_t>(i >> 32)}, k0, k1);
    const float u = static_cast<float>(x[0] * 0x1p-32 + 0x1p-33);
    const float v = static_cast<float>((x[1] * 0x1p-32 + 0x1p-33) * 2 * std::numbers::pi);
    const double radius = std::sqrt(-2 * std::log(static_cast<double>(u)));
    out[i] = static_cast<float>(radius * std::sin(static_cast<double>(v)));
  }
  call_++;
}

std::unique_ptr<NoiseSource> makeNoiseSource(uint64_t seed, NoiseKind kind) {
  switch (kind) {
    case NoiseKind::Cpu:
      return std::make_unique<TorchGenerator>(seed);
    case NoiseKind::Cuda:
      return std::make_unique<PhiloxGenerator>(seed);
  }
  throw Error(ErrorCode::Internal, "makeNoiseSource: not a NoiseKind");
}

}  // namespace nd
