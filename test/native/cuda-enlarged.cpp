// Convolutions over a map of twice the size on the CUDA backend: their weight's second form comes with the
// first use, outside of recordings, and where there is memory for it.
#include <cmath>

#include "cuda/launch.h"
#include "test/native/backends.h"
#include "test/native/check.h"

namespace nd::test {
namespace {

/// y = conv(x enlarged to twice its size), whose weights' sums 16 bits hold.
struct Enlarging {
  static constexpr int64_t kIn = 16, kOut = 24;
  explicit Enlarging(Backend& b)
      : backend(b),
        weight(makeWeight(b, WeightKind::Conv,
                          HostWeight({kOut, kIn, 3, 3}, coarse(kOut * kIn * 9, 1), DType::F16))),
        x(b, {1, 4, 5, kIn}, coarse(20 * kIn, 2)),
        y(b, {1, 8, 10, kOut}) {}
  static std::vector<float> coarse(int64_t count, uint32_t seed) {
    std::vector<float> values = randomFloats(count, seed);
    for (float& v : values) v = std::round(v * 16) / 16;
    return values;
  }
  void run() {
    ConvArgs a{weight.get()};
    a.x = x, a.y = y;
    a.inputH = 8, a.inputW = 10;
    backend.conv2d(a);
  }

  Backend& backend;
  const WeightPtr weight;
  const OnBackend x, y;
};

void check(Enlarging& e) {
  static const std::vector<float> expected = [] {
    Enlarging r(reference());
    r.run();
    return r.y.download();
  }();
  const std::vector<float> actual = e.y.download();
  for (size_t i = 0; i < expected.size(); i++)
    if (!(std::abs(actual[i] - expected[i]) <= 0x1p-10f * std::abs(expected[i]) + 1e-4f))
      fail(format("enlarging: element %zu is %.9g, expected %.9g", i, actual[i], expected[i]));
}

std::unique_ptr<Backend> gpuOrSkip() {
  if (const CudaInfo info = cudaInfo(); !info.reason.empty()) throw ndtest::Skip(info.reason);
  return makeCudaBackend();
}

constexpr size_t kPlain = Enlarging::kOut * 9 * Enlarging::kIn * 2,
                 kFolded = 4 * Enlarging::kOut * 4 * Enlarging::kIn * 2;

}  // namespace

ND_TEST("cuda enlarged: the second form of a weight counts and goes with it") {
  const auto gpu = gpuOrSkip();
  {
    Enlarging e(*gpu);
    CHECK(gpu->memory().weights == kPlain);
    e.run();
    check(e);
    CHECK(gpu->memory().weights == kPlain + kFolded && e.weight->bytes() == kPlain + kFolded);
    e.run();
    check(e);
    CHECK(gpu->memory().weights == kPlain + kFolded);
  }
  CHECK(gpu->memory().weights == 0);
}

ND_TEST("cuda enlarged: nothing is made while operations are recorded") {
  const auto gpu = gpuOrSkip();
  Enlarging e(*gpu);
  CHECK(gpu->beginRecording());
  e.run();
  const auto recording = gpu->endRecording();
  CHECK(gpu->memory().weights == kPlain);
  gpu->replay(*recording);
  check(e);
}

#ifdef ND_CUDA_SIM
ND_TEST("cuda enlarged: without memory for it the layer is computed as it is") {
  const auto gpu = gpuOrSkip();
  Enlarging e(*gpu);
  struct Limit {
    Limit() {
      size_t free = 0, total = 0;
      cudaMemGetInfo(&free, &total);
      cuda::sim::setMemoryLimit(total - free + 100);
    }
    ~Limit() { cuda::sim::setMemoryLimit(size_t{16} << 30); }
  };
  {
    const Limit limit;
    e.run();
  }
  CHECK(gpu->memory().weights == kPlain);
  check(e);
}
#endif

}  // namespace nd::test
