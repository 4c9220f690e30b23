// For tests of operations: every CPU backend of this machine beside the reference, random tensors,
// comparison.
#pragma once

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <vector>

#include "engine/backend.h"
#include "test/native/backends.h"
#include "test/native/check.h"

namespace ndtest {

/// Uniform in −1..1, the same on every machine.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 2862933555777941757u + 3037000493u) {}
  float operator()() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<float>(static_cast<int64_t>(state_) >> 39) * 0x1p-24f;
  }

 private:
  uint64_t state_;
};

/// A tensor and its memory: rows `stride` apart (0: contiguous), NaN between them and at both ends, so that a
/// read outside of the rows spoils the result.
struct Owned {
  std::vector<float> memory;
  nd::Tensor tensor;

  explicit Owned(const nd::Shape& shape, int64_t stride = 0) {
    stride = stride ? stride : shape.last();
    memory.assign(shape.rows() * stride + 2 * kMargin, std::numeric_limits<float>::quiet_NaN());
    tensor = {memory.data() + kMargin, shape, stride};
  }
  Owned(const Owned& o) : memory(o.memory), tensor(o.tensor) { tensor.data = memory.data() + kMargin; }
  Owned& operator=(const Owned&) = delete;

  float& at(int64_t row, int64_t column) { return tensor.f32()[row * tensor.stride + column]; }
  Owned& fill(const std::function<float()>& value) {
    for (int64_t r = 0; r < tensor.shape.rows(); r++)
      for (int64_t c = 0; c < tensor.shape.last(); c++) at(r, c) = value();
    return *this;
  }
  /// Everything but the rows is NaN as at the start: nothing was written outside of them.
  bool marginsUntouched() {
    size_t numbers = 0;
    for (float value : memory) numbers += !std::isnan(value);
    size_t own = 0;
    for (int64_t r = 0; r < tensor.shape.rows(); r++)
      for (int64_t c = 0; c < tensor.shape.last(); c++) own += !std::isnan(at(r, c));
    return numbers == own;
  }

  static constexpr int64_t kMargin = 16;
};

/// Largest |a − b|; NaN or infinity on one side only is infinite.
inline double worstError(Owned& a, Owned& b) {
  double worst = 0;
  for (int64_t r = 0; r < a.tensor.shape.rows(); r++)
    for (int64_t c = 0; c < a.tensor.shape.last(); c++) {
      const float x = a.at(r, c), y = b.at(r, c);
      if (x == y || (std::isnan(x) && std::isnan(y))) continue;
      const double error = std::fabs(static_cast<double>(x) - y);
      worst = std::isfinite(error) ? std::max(worst, error) : std::numeric_limits<double>::infinity();
    }
  return worst;
}

inline bool identical(Owned& a, Owned& b) {
  for (int64_t r = 0; r < a.tensor.shape.rows(); r++)
    if (std::memcmp(&a.at(r, 0), &b.at(r, 0), a.tensor.shape.last() * sizeof(float)) != 0) return false;
  return true;
}

inline nd::WeightPtr makeVector(nd::Backend& backend, const std::vector<float>& values) {
  const nd::HostTensor part{values.data(), nd::DType::F32, {static_cast<int64_t>(values.size())}, "vector"};
  return backend.makeWeight(nd::WeightKind::Vector, {&part, 1});
}

using Backends = std::vector<nd::Backend*>;

/// Runs `body` once per instruction set of this machine with backends of 1, 2 and 3 threads, and once with
/// the emulated AVX-512 shape; names the instruction sets that are left out.
inline void forEachIsa(const std::function<void(const std::string& isa, const Backends&)>& body) {
  for (const nd::IsaInfo& isa : nd::cpuIsas())
    if (!isa.supported)
      note(isa.name + ": skipped, " + (isa.compiled ? "this CPU lacks it" : "not compiled for this machine"));
  for (const nd::test::Subject& subject : nd::test::subjects()) {
    if (subject.isa.rfind("emulated", 0) == 0) {
      body(subject.isa, {subject.backend});
      continue;
    }
    const auto one = nd::makeCpuBackend(1, subject.isa), three = nd::makeCpuBackend(3, subject.isa);
    body(subject.isa, {one.get(), subject.backend, three.get()});
  }
}

/// Runs one operation into a fresh result on the reference and on every backend: results within `tolerance`
/// of the reference, the same bits for every number of threads, nothing written outside. Gives the worst
/// error.
inline double compareOperation(const std::string& what, double tolerance, const Owned& empty,
                               const Backends& backends,
                               const std::function<void(nd::Backend&, nd::Tensor y)>& run) {
  Owned expected = empty;
  run(nd::test::reference(), expected.tensor);
  std::vector<Owned> results;
  for (nd::Backend* backend : backends) {
    results.push_back(empty);
    run(*backend, results.back().tensor);
    if (!results.back().marginsUntouched()) fail(__FILE__, __LINE__, what + ": wrote outside of the result");
    if (!identical(results.back(), results.front()))
      fail(__FILE__, __LINE__, what + ": depends on the number of threads");
  }
  const double worst = worstError(results[0], expected);
  if (!(worst <= tolerance))
    fail(__FILE__, __LINE__,
         nd::format("%s: error %.3g, expected at most %.3g", what.c_str(), worst, tolerance));
  return worst;
}

}  // namespace ndtest
