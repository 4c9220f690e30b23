// What the tests of operations share: the backends under test, tensors on them, comparison.
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/backend.h"

namespace nd::test {

/// Ends the running test as failed.
[[noreturn]] void fail(const std::string& message);

/// The SIMD backends that this machine runs, with 2 threads, and one with the AVX-512 unit's width and tile
/// shape in portable code ("emulated-avx512").
struct Subject {
  std::string isa;
  Backend* backend;
};
const std::vector<Subject>& subjects();
Backend& reference();

/// Uniform in −1..1, reproducible.
std::vector<float> randomFloats(int64_t count, uint32_t seed);

/// A tensor on a backend with host data in it; freed at the end of the scope. `stride` 0: contiguous. What
/// lies between the rows is NaN, so that a read of it shows.
class OnBackend {
 public:
  OnBackend(Backend& backend, const Shape& shape, const std::vector<float>& host, int64_t stride = 0);
  OnBackend(Backend& backend, const Shape& shape, int64_t stride = 0);
  ~OnBackend();
  OnBackend(const OnBackend&) = delete;
  OnBackend& operator=(const OnBackend&) = delete;
  const Tensor& tensor() const { return tensor_; }
  operator const Tensor&() const { return tensor_; }
  const Tensor* operator&() const { return &tensor_; }
  std::vector<float> download() const;
  /// Fails if something was written between the rows (of tensors in the host's memory).
  void checkGaps(const std::string& what) const;

 private:
  bool onHost() const { return backend_.activationBytes() == sizeof(float); }
  Backend& backend_;
  Tensor tensor_;
  size_t bytes_;
};

/// A setting with another value, for as long as this lives.
template <class T>
class With {
 public:
  With(T& setting, const T& value) : setting_(setting), before_(setting) { setting_ = value; }
  ~With() { setting_ = before_; }
  With(const With&) = delete;
  With& operator=(const With&) = delete;

 private:
  T& setting_;
  const T before_;
};

/// Fails unless |a − b| <= tolerance everywhere; equal infinities and NaN on both sides pass.
void checkClose(const std::vector<float>& actual, const std::vector<float>& expected, double tolerance,
                const std::string& what);

/// The error that an fp32 sum of k products may have, for factors up to 1 and `scale`. The partial sums grow
/// to about √k / 3, each of k additions rounds them by up to 2^-24 of that, independently: k · 2^-24 / 6 is
/// one standard deviation, and the largest of some 10^5 elements lies within 6 of them.
inline double sumTolerance(int64_t k, double scale = 1) {
  return 0x1p-24 * static_cast<double>(k + 8) * scale;
}

/// Largest magnitude that randomFloats() have in a dtype: HostWeight spreads E4M3 over its range.
inline double largest(DType dtype) { return dtype == DType::F8_E4M3 ? 448 : 1; }

/// float32 values as a HostTensor of another dtype, rounded to it. Owns its bytes.
class HostWeight {
 public:
  HostWeight(const Shape& shape, const std::vector<float>& values, DType dtype, std::string name = "weight");
  operator const HostTensor&() const { return tensor_; }
  const HostTensor& tensor() const { return tensor_; }

 private:
  std::vector<uint8_t> bytes_;
  HostTensor tensor_;
};
WeightPtr makeWeight(Backend& backend, WeightKind kind, const HostWeight& weight);

}  // namespace nd::test
