// Noise against what torch gave (test/reference/rng.safetensors, philox.safetensors).
#include "engine/random.h"

#include <bit>
#include <cmath>
#include <string>
#include <vector>

#include "engine/safetensors.h"
#include "test/native/check.h"

namespace {

constexpr uint64_t kSeeds[] = {0, 1, 42, 1234567890123ull, (1ull << 63) + 11};

/// Distance in representable floats; across zero the two distances add up.
int64_t ulps(float a, float b) {
  const auto ordered = [](float x) {
    const int32_t bits = std::bit_cast<int32_t>(x);
    return bits < 0 ? int64_t{INT32_MIN} - bits : int64_t{bits};
  };
  const int64_t difference = ordered(a) - ordered(b);
  return difference < 0 ? -difference : difference;
}

std::vector<float> floats(const nd::SafetensorsFile& file, const std::string& name) {
  const nd::HostTensor tensor = file.tensor(name);
  CHECK(tensor.dtype == nd::DType::F32);
  const float* data = static_cast<const float*>(tensor.data);
  return {data, data + tensor.shape.count()};
}

/// Largest distance from the stored tensor; `drawn` must have its length.
int64_t worst(const nd::SafetensorsFile& file, const std::string& name, const std::vector<float>& drawn) {
  const std::vector<float> expected = floats(file, name);
  CHECK(expected.size() == drawn.size());
  int64_t largest = 0;
  for (size_t i = 0; i < drawn.size(); i++) {
    CHECK(std::isfinite(drawn[i]));
    largest = std::max(largest, ulps(drawn[i], expected[i]));
  }
  return largest;
}

std::vector<float> draw(nd::NoiseSource& source, int64_t n) {
  std::vector<float> out(static_cast<size_t>(n));
  source.randn(out.data(), n);
  return out;
}

}  // namespace

ND_TEST("random: torch.randn of every length, float32") {
  const auto file = nd::SafetensorsFile::open(ndtest::reference("rng.safetensors"));
  int64_t largest = 0, compared = 0;
  for (const uint64_t seed : kSeeds)
    for (const int64_t n : {1, 2, 5, 15, 16, 17, 31, 100, 1000, 16384}) {
      const std::string name = "f32." + std::to_string(seed) + "." + std::to_string(n);
      if (!file->has(name)) continue;
      nd::TorchGenerator generator(seed);
      largest = std::max(largest, worst(*file, name, draw(generator, n)));
      compared++;
    }
  ndtest::note(std::to_string(compared) + " draws, largest distance " + std::to_string(largest) + " ulp");
  CHECK(compared == 46);
  CHECK(largest <= 1);
}

ND_TEST("random: successive draws continue one generator") {
  const auto file = nd::SafetensorsFile::open(ndtest::reference("rng.safetensors"));
  int64_t largest = 0;
  for (const uint64_t seed : kSeeds) {
    nd::TorchGenerator generator(seed);
    int i = 0;
    for (const int64_t n : {256, 3, 256, 7, 20}) {
      draw(generator, 0);  // an empty draw changes nothing
      const std::string name = "seq." + std::to_string(seed) + "." + std::to_string(i++);
      largest = std::max(largest, worst(*file, name, draw(generator, n)));
    }
  }
  ndtest::note("largest distance " + std::to_string(largest) + " ulp");
  CHECK(largest <= 1);
}

ND_TEST("random: torch.rand is torch's to the bit") {
  const auto file = nd::SafetensorsFile::open(ndtest::reference("rng.safetensors"));
  for (const uint64_t seed : kSeeds) {
    nd::TorchGenerator generator(seed);
    std::vector<float> out(20);
    generator.rand(out.data(), 20);
    CHECK(worst(*file, "rand." + std::to_string(seed) + ".20", out) == 0);
  }
}

ND_TEST("random: torch.randn in float16") {
  const auto file = nd::SafetensorsFile::open(ndtest::reference("rng.safetensors"));
  int64_t different = 0;
  for (const uint64_t seed : kSeeds) {
    const nd::HostTensor tensor = file->tensor("f16." + std::to_string(seed) + ".64");
    CHECK(tensor.dtype == nd::DType::F16 && tensor.shape.count() == 64);
    const uint16_t* expected = static_cast<const uint16_t*>(tensor.data);
    nd::TorchGenerator generator(seed);
    uint16_t out[64];
    generator.randnHalf(out, 64);
    for (int i = 0; i < 64; i++) different += out[i] != expected[i];
  }
  ndtest::note(std::to_string(different) + " of 320 values differ");
  CHECK(different == 0);
}

ND_TEST("random: the low 32 bits of the seed count, as in torch") {
  nd::TorchGenerator a(42), b(42 + (7ull << 32)), c(~0ull), d(0xffffffffull);
  CHECK(draw(a, 40) == draw(b, 40));
  CHECK(draw(c, 40) == draw(d, 40));
}

ND_TEST("random: Philox as on a CUDA device, successive calls") {
  const auto file = nd::SafetensorsFile::open(ndtest::reference("philox.safetensors"));
  int64_t largest = 0, compared = 0;
  for (const uint64_t seed : {uint64_t{0}, uint64_t{1}, uint64_t{42}, uint64_t{1234567890123}})
    for (const int64_t n : {4, 100, 16384}) {
      const auto source = nd::makeNoiseSource(seed, nd::NoiseKind::Cuda);
      for (int call = 0; call < 3; call++) {
        const std::vector<float> drawn = draw(*source, n);
        const std::string name = std::to_string(seed) + "." + std::to_string(call) + "." + std::to_string(n);
        if (!file->has(name)) continue;
        largest = std::max(largest, worst(*file, name, drawn));
        compared++;
      }
    }
  ndtest::note(std::to_string(compared) + " draws, largest distance " + std::to_string(largest) + " ulp");
  CHECK(compared == 28);
  CHECK(largest <= 1);
}

ND_TEST("random: Philox keys with high words") {
  nd::PhiloxGenerator a(5), b(5 + (1ull << 32));
  CHECK(draw(a, 8) != draw(b, 8));
}
