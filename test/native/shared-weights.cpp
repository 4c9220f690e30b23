// Weights that pipelines share: what is made of the same tensors of the same file exists once, however the
// file is named, and as long as somebody uses it.
#include "engine/shared-weights.h"

#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>
#include <vector>

#include "cpu/cpu-backend.h"
#include "cpu/dispatch.h"
#include "engine/weight-loader.h"
#include "test/native/check.h"

namespace {

using nd::CpuBackend;
using nd::WeightPtr;

constexpr int64_t kRows = 40, kColumns = 24;

/// One F32 tensor "t" [40, 24].
std::string writeFile(const std::string& name, float first) {
  std::string header = R"({"t":{"dtype":"F32","shape":[40,24],"data_offsets":[0,3840]}})";
  while (header.size() % 8) header += ' ';
  std::string data;
  for (int i = 0; i < 8; i++) data += static_cast<char>(header.size() >> (8 * i));
  data += header;
  std::vector<float> values(kRows * kColumns);
  for (size_t i = 0; i < values.size(); i++) values[i] = first + static_cast<float>(i);
  data.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
  const std::string path = ndtest::temporaryFile(name);
  std::ofstream(path, std::ios::binary).write(data.data(), static_cast<std::streamsize>(data.size()));
  return path;
}

WeightPtr linear(CpuBackend& backend, const std::string& path, const nd::TensorView& view = {},
                 int64_t rows = kRows) {
  nd::TensorMap map("unet");
  map.add("a.weight", nd::SafetensorsFile::open(path), "t", view);
  return nd::WeightLoader(backend, map).linear("a", kColumns, rows, false).weight;
}

CpuBackend backend() { return CpuBackend(nd::chooseKernels("scalar"), 1); }

}  // namespace

ND_TEST("shared weights: two pipelines of a file, under whatever name, have the same") {
  const std::string path = writeFile("shared-a.safetensors", 0), link = path + ".link";
  std::filesystem::remove(link);
  std::filesystem::create_symlink(path, link);
  CpuBackend one = backend(), two = backend();
  WeightPtr first = linear(one, path), second = linear(two, link);
  CHECK(first.get() == second.get());
  CHECK(one.memory().weights == first->bytes());
  CHECK(two.memory().weights == first->bytes());

  // Whoever is left keeps it, and the other one no longer counts it.
  const nd::Weight* const address = first.get();
  first.reset();
  CHECK(one.memory().weights == 0);
  CHECK(linear(one, path).get() == address);
  second.reset();
  CHECK(two.memory().weights == 0);
}

ND_TEST("shared weights: other contents, views, kinds and layouts are not the same") {
  const std::string path = writeFile("shared-b.safetensors", 0);
  CpuBackend one = backend(), two = backend();
  const WeightPtr whole = linear(one, path), half = linear(two, path, {0, 20, false}, 20);
  CHECK(whole.get() != half.get());
  CHECK(half->n == 20);
  const WeightPtr other = linear(two, writeFile("shared-c.safetensors", 1));
  CHECK(whole.get() != other.get());
  {
    nd::TensorMap map("unet");
    map.add("a", nd::SafetensorsFile::open(path), "t");
    CHECK(nd::WeightLoader(two, map).table("a", kRows, kColumns).get() != whole.get());
  }
  for (const nd::IsaInfo& isa : nd::cpuIsas()) {
    if (!isa.supported) continue;
    CpuBackend third(nd::chooseKernels(isa.name), 1);
    CHECK((linear(third, path).get() == whole.get()) == (third.kernels().nr == one.kernels().nr));
  }

  // The file was written anew: the name is the same, the weights are not.
  const auto before = std::filesystem::last_write_time(path);
  writeFile("shared-b.safetensors", 2);
  std::filesystem::last_write_time(path, before + std::chrono::seconds(2));
  CHECK(linear(two, path).get() != whole.get());
}

ND_TEST("shared weights: what an adapter changes is its pipeline's own") {
  class Zero final : public nd::WeightEdits {
   public:
    std::string key(const std::string&) const override { return "zero"; }
    void apply(const std::string&, const nd::HostTensor& stored, float* changed) const override {
      std::fill_n(changed, stored.shape.count(), 0.0f);
    }
  };
  const std::string path = writeFile("shared-d.safetensors", 0);
  CpuBackend one = backend(), two = backend();
  const WeightPtr plain = linear(one, path);
  nd::TensorMap map("unet");
  map.add("a.weight", nd::SafetensorsFile::open(path), "t");
  nd::WeightCache cache;
  const Zero zero;
  const WeightPtr changed =
      nd::WeightLoader(two, map, &cache, &zero).linear("a", kColumns, kRows, false).weight;
  CHECK(changed.get() != plain.get());
  CHECK(linear(two, path).get() == plain.get());
}

ND_TEST("shared weights: pipelines that load at the same time make each weight once") {
  const std::string path = writeFile("shared-e.safetensors", 0);
  for (int round = 0; round < 20; round++) {
    constexpr int kPipelines = 4;
    std::vector<std::unique_ptr<CpuBackend>> backends;
    for (int i = 0; i < kPipelines; i++)
      backends.push_back(std::make_unique<CpuBackend>(nd::chooseKernels("scalar"), 1));
    std::vector<WeightPtr> weights(kPipelines);
    std::vector<std::thread> threads;
    for (int i = 0; i < kPipelines; i++)
      threads.emplace_back([&, i] { weights[i] = linear(*backends[i], path); });
    for (std::thread& thread : threads) thread.join();
    for (const WeightPtr& weight : weights) CHECK(weight.get() == weights[0].get());
  }
}
