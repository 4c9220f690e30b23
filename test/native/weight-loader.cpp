// Views of stored tensors: rows where they lie in the file, transposes of every element size, and what is
// refused.
#include "engine/weight-loader.h"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "test/native/check.h"

namespace {

using nd::ErrorCode;
using nd::HostTensor;
using nd::SafetensorsFile;
using nd::TensorMap;
using nd::TensorView;

/// One tensor "t" whose bytes count up.
std::shared_ptr<const SafetensorsFile> file(const std::string& dtype, const std::string& shape,
                                            size_t bytes) {
  std::string header = R"({"t":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":[0,)" +
                       std::to_string(bytes) + "]}}";
  while (header.size() % 8) header += ' ';
  std::string data;
  for (int i = 0; i < 8; i++) data += static_cast<char>(header.size() >> (8 * i));
  data += header;
  for (size_t i = 0; i < bytes; i++) data += static_cast<char>(i);
  const std::string path = ndtest::temporaryFile(dtype + std::to_string(bytes) + ".safetensors");
  std::ofstream(path, std::ios::binary).write(data.data(), static_cast<std::streamsize>(data.size()));
  return SafetensorsFile::open(path);
}

/// rows [begin, end), -1: all.
TensorView rows(int64_t begin, int64_t end, bool transpose = false) { return {begin, end, transpose}; }

}  // namespace

ND_TEST("weight loader: a range of rows lies in the file") {
  const auto source = file("F16", "[6,5]", 60);
  const auto* start = static_cast<const uint8_t*>(source->tensor("t").data);
  TensorMap map("unet");
  for (int64_t i = 0; i < 3; i++) map.add("part" + std::to_string(i), source, "t", rows(2 * i, 2 * i + 2));
  map.add("all", source, "t");
  for (int64_t i = 0; i < 3; i++) {
    const HostTensor part = map.get("part" + std::to_string(i), {2, 5});
    CHECK(part.data == start + 20 * i);
    CHECK((part.shape == nd::Shape{2, 5}));
  }
  CHECK(map.get("all", {6, 5}).data == start);
  CHECK_ERROR(map.get("part0", {6, 5}), ErrorCode::ModelFormat, "[6, 5]");

  const auto bias = file("F32", "[6]", 24);
  map.add("bias", bias, "t", rows(4, 6));
  CHECK(static_cast<const uint8_t*>(map.get("bias", {2}).data) ==
        static_cast<const uint8_t*>(bias->tensor("t").data) + 16);
}

ND_TEST("weight loader: transposed matrices of every element size") {
  const std::pair<const char*, size_t> dtypes[] = {{"F8_E4M3", 1}, {"BF16", 2}, {"F32", 4}, {"F64", 8}};
  TensorMap map("text");
  std::vector<HostTensor> earlier;
  for (const auto& [dtype, size] : dtypes) {
    const int64_t r = 3, c = 5;
    const auto source = file(dtype, "[3,5]", 15 * size);
    map.add(dtype, source, "t", {0, -1, true});
    map.add(std::string(dtype) + " rows", source, "t", rows(1, 3, true));
    const HostTensor whole = map.get(dtype, {c, r}), part = map.get(std::string(dtype) + " rows", {c, r - 1});
    CHECK(reinterpret_cast<uintptr_t>(whole.data) % size == 0);
    const auto* from = static_cast<const uint8_t*>(source->tensor("t").data);
    for (int64_t i = 0; i < r; i++)
      for (int64_t j = 0; j < c; j++) {
        const uint8_t* expected = from + static_cast<size_t>(i * c + j) * size;
        CHECK(!std::memcmp(static_cast<const uint8_t*>(whole.data) + static_cast<size_t>(j * r + i) * size,
                           expected, size));
        if (i > 0)
          CHECK(!std::memcmp(
              static_cast<const uint8_t*>(part.data) + static_cast<size_t>(j * (r - 1) + i - 1) * size,
              expected, size));
      }
    earlier.push_back(whole);
  }
  // Copies live as long as the map, however many follow.
  CHECK(static_cast<const uint8_t*>(earlier[0].data)[1] == 5);
}

ND_TEST("weight loader: what is made of the same is shared, what is changed is made anew and forgotten") {
  /// Fills one tensor with a number.
  class Plus final : public nd::WeightEdits {
   public:
    Plus(std::string tensor, float number) : tensor_(std::move(tensor)), number_(number) {}
    std::string key(const std::string& tensor) const override {
      return tensor == tensor_ ? std::to_string(number_) : std::string();
    }
    void apply(const std::string&, const HostTensor& stored, float* changed) const override {
      std::fill_n(changed, stored.shape.count(), number_);
    }

   private:
    std::string tensor_;
    float number_;
  };
  const auto backend = nd::makeReferenceBackend();
  TensorMap map("unet");
  map.add("a.weight", file("F32", "[4,2]", 32), "t");
  map.add("b.weight", file("F16", "[4,2]", 16), "t");
  nd::WeightCache cache;
  const auto build = [&](const nd::WeightEdits* edits) {
    const nd::WeightLoader loader(*backend, map, &cache, edits);
    std::vector<nd::WeightPtr> weights = {
        loader.linear("a", 2, 4, false).weight,
        loader.at("b").weight(nd::WeightKind::Linear, {{"b.weight", {4, 2}}})};
    cache.commit();
    return weights;
  };
  const auto first = build(nullptr);
  const Plus plus("a.weight", 1);
  const auto changed = build(&plus);
  CHECK(changed[0] != first[0]);
  CHECK(changed[1] == first[1]);
  CHECK(build(&plus)[0] == changed[0]);
  const Plus more("a.weight", 2);
  CHECK(build(&more)[0] != changed[0]);
  const auto plain = build(nullptr);
  CHECK(plain[0] != first[0]);  // the cache had let go of it
  CHECK(plain[1] == first[1]);
}

ND_TEST("weight loader: views that do not fit are refused") {
  const auto source = file("F16", "[4,2]", 16);
  const auto vector = file("F16", "[9]", 18);
  const auto scalar = file("F32", "[]", 4);
  TensorMap map("text");
  map.add("beyond", source, "t", rows(2, 5));
  map.add("backwards", source, "t", rows(3, 2));
  map.add("negative", source, "t", rows(-1, 2));
  map.add("scalar", scalar, "t", rows(0, 1));
  map.add("vector", vector, "t", {0, -1, true});
  for (const char* name : {"beyond", "backwards", "negative", "scalar"})
    CHECK_ERROR(map.get(name, {2, 2}), ErrorCode::ModelFormat, "enough rows");
  CHECK_ERROR(map.get("vector", {9}), ErrorCode::ModelFormat, "a matrix");
}
