// Stored tensors as floats: every half, and the dtypes that are refused.
#include "engine/host-floats.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "engine/half.h"
#include "test/native/check.h"

ND_TEST("host floats: every float16 is what the scalar conversion gives") {
  std::vector<uint16_t> all(65536);
  for (size_t i = 0; i < all.size(); i++) all[i] = static_cast<uint16_t>(i);
  const std::vector<float> floats = nd::toFloats({all.data(), nd::DType::F16, {65536}, "all"});
  for (size_t i = 0; i < all.size(); i++) {
    const float expected = nd::halfToFloat(all[i]);
    CHECK(std::isnan(expected) ? std::isnan(floats[i])
                               : std::bit_cast<uint32_t>(floats[i]) == std::bit_cast<uint32_t>(expected));
  }
}

ND_TEST("host floats: numbers of other dtypes, unaligned too") {
  const int64_t count = 12;
  std::vector<uint8_t> bytes(1 + sizeof(count));
  std::memcpy(bytes.data() + 1, &count, sizeof(count));
  CHECK(nd::toFloats({bytes.data() + 1, nd::DType::I64, {}, "alpha"})[0] == 12.0f);
  const double half = 0.5;
  CHECK(nd::toFloats({&half, nd::DType::F64, {1}, "alpha"})[0] == 0.5f);
  const uint8_t flag = 1;
  CHECK_ERROR(nd::toFloats({&flag, nd::DType::BOOL, {1}, "flag"}), nd::ErrorCode::ModelFormat, "flag");
}
