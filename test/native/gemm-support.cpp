#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "cpu/cpu-backend.h"
#include "engine/half.h"
#include "test/native/backends.h"
#include "test/native/check.h"

namespace nd {
const KernelTable* emulatedTable();  // gemm-emulated.cpp
}

namespace nd::test {

void fail(const std::string& message) { throw ndtest::Failure(message); }

// Instruction sets that this machine cannot run show up as skipped tests.
static const std::vector<ndtest::Registration> kMissing = [] {
  std::vector<ndtest::Registration> list;
  static std::vector<std::string> names;
  names.reserve(cpuIsas().size());
  for (const IsaInfo& isa : cpuIsas()) {
    if (isa.supported) continue;
    names.push_back("isa: " + isa.name);
    list.emplace_back(names.back().c_str(), [compiled = isa.compiled] {
      throw ndtest::Skip(compiled ? "compiled, but this machine lacks it"
                                  : "not compiled for this architecture");
    });
  }
  return list;
}();

const std::vector<Subject>& subjects() {
  static std::vector<std::unique_ptr<Backend>> owners;
  static const std::vector<Subject> list = [] {
    std::vector<Subject> made;
    for (const IsaInfo& isa : cpuIsas()) {
      if (!isa.supported) continue;
      owners.push_back(makeCpuBackend(2, isa.name));
      made.push_back({isa.name, owners.back().get()});
    }
    owners.push_back(std::make_unique<CpuBackend>(*emulatedTable(), 2));
    made.push_back({"emulated-avx512", owners.back().get()});
    return made;
  }();
  return list;
}

Backend& reference() {
  static const std::unique_ptr<Backend> backend = makeReferenceBackend();
  return *backend;
}

std::vector<float> randomFloats(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<float> values(count);
  for (float& v : values) v = static_cast<float>(random() * (2.0 / 4294967296.0) - 1.0);
  return values;
}

OnBackend::OnBackend(Backend& backend, const Shape& shape, int64_t stride) : backend_(backend) {
  if (stride == 0) stride = shape.last();
  // Exactly the elements that belong to the tensor: a sanitizer sees the first one too many.
  const int64_t rows = shape.rows(), elements = rows ? (rows - 1) * stride + shape.last() : 0;
  bytes_ = elements * backend.activationBytes();
  tensor_ = {backend.allocate(bytes_), shape, stride};
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  if (onHost())
    std::fill(tensor_.f32(), tensor_.f32() + elements, kNan);
  else
    backend.upload(std::vector<float>(shape.count(), kNan).data(), tensor_);
}
OnBackend::OnBackend(Backend& backend, const Shape& shape, const std::vector<float>& host, int64_t stride)
    : OnBackend(backend, shape, stride) {
  backend.upload(host.data(), tensor_);
}
OnBackend::~OnBackend() { backend_.deallocate(tensor_.data, bytes_); }

std::vector<float> OnBackend::download() const {
  std::vector<float> host(tensor_.shape.count());
  backend_.download(tensor_, host.data());
  return host;
}

void OnBackend::checkGaps(const std::string& what) const {
  if (!onHost()) return;
  for (int64_t r = 0; r + 1 < tensor_.shape.rows(); r++)
    for (int64_t c = tensor_.shape.last(); c < tensor_.stride; c++)
      if (!std::isnan(tensor_.f32()[r * tensor_.stride + c]))
        fail(format("%s: row %lld was written beyond its end", what.c_str(), static_cast<long long>(r)));
}

void checkClose(const std::vector<float>& actual, const std::vector<float>& expected, double tolerance,
                const std::string& what) {
  if (actual.size() != expected.size())
    fail(format("%s: %zu values, expected %zu", what.c_str(), actual.size(), expected.size()));
  double worst = -1;
  size_t at = 0;
  for (size_t i = 0; i < actual.size(); i++) {
    const double a = actual[i], e = expected[i];
    if (a == e || (std::isnan(a) && std::isnan(e))) continue;
    const double error = std::isfinite(a - e) ? std::abs(a - e) : std::numeric_limits<double>::infinity();
    if (error > worst) worst = error, at = i;
  }
  if (worst > tolerance)
    fail(format("%s: element %zu of %zu is %.9g, expected %.9g (error %.3g, allowed %.3g)", what.c_str(), at,
                actual.size(), actual[at], expected[at], worst, tolerance));
}

HostWeight::HostWeight(const Shape& shape, const std::vector<float>& values, DType dtype, std::string name) {
  const int size = dtypeBits(dtype) / 8;
  bytes_.resize(values.size() * size);
  for (size_t i = 0; i < values.size(); i++) {
    uint8_t* to = bytes_.data() + i * size;
    uint16_t half;
    switch (dtype) {
      case DType::F32:
        std::memcpy(to, &values[i], 4);
        break;
      case DType::F16:
        half = floatToHalf(values[i]), std::memcpy(to, &half, 2);
        break;
      case DType::BF16:
        half = floatToBfloat(values[i]), std::memcpy(to, &half, 2);
        break;
      case DType::F8_E5M2:
        *to = static_cast<uint8_t>(floatToHalf(values[i]) >> 8);
        break;
      // Any bits but NaN are a value; the upper byte of the half gives a spread of them.
      case DType::F8_E4M3: {
        *to = static_cast<uint8_t>(floatToHalf(values[i]) >> 7);
        if ((*to & 0x7f) == 0x7f) *to ^= 1;
        break;
      }
      default:
        std::memset(to, 0, size);
    }
  }
  tensor_ = {bytes_.data(), dtype, shape, std::move(name)};
}

WeightPtr makeWeight(Backend& backend, WeightKind kind, const HostWeight& weight) {
  return backend.makeWeight(kind, {&weight.tensor(), 1});
}

}  // namespace nd::test
