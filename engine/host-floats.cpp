#include "engine/host-floats.h"

#include <cstring>

#include "engine/half.h"

namespace nd {

namespace {

/// halfToFloat() without branches, which compilers turn into vector code: read with float's bias the value is
/// 2^112 too small, and the product is exact, for subnormals too.
inline float halfBits(uint16_t h) {
  const uint32_t magnitude = h & 0x7fffu;
  const uint32_t finite = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude << 13) * 0x1p112f);
  const uint32_t special = 0x7f800000u | magnitude << 13;
  return std::bit_cast<float>((h & 0x8000u) << 16 | (magnitude >= 0x7c00 ? special : finite));
}

template <class T, class Convert>
void convert(const HostTensor& tensor, float* out, Convert&& one) {
  const auto* bytes = static_cast<const uint8_t*>(tensor.data);
  const auto count = static_cast<size_t>(tensor.shape.count());
  for (size_t i = 0; i < count; i++) {
    T value;  // mapped files promise no alignment
    std::memcpy(&value, bytes + i * sizeof(T), sizeof(T));
    out[i] = one(value);
  }
}

}  // namespace

void toFloats(const HostTensor& tensor, float* out) {
  switch (tensor.dtype) {
    case DType::F32:
      std::memcpy(out, tensor.data, static_cast<size_t>(tensor.shape.count()) * sizeof(float));
      break;
    case DType::F16:
      convert<uint16_t>(tensor, out, halfBits);
      break;
    case DType::BF16:
      convert<uint16_t>(tensor, out, bfloatToFloat);
      break;
    case DType::F8_E4M3:
      convert<uint8_t>(tensor, out, float8e4m3ToFloat);
      break;
    case DType::F8_E5M2:
      convert<uint8_t>(tensor, out, float8e5m2ToFloat);
      break;
    case DType::F64:
      convert<double>(tensor, out, [](double value) { return static_cast<float>(value); });
      break;
    case DType::I64:
      convert<int64_t>(tensor, out, [](int64_t value) { return static_cast<float>(value); });
      break;
    case DType::I32:
      convert<int32_t>(tensor, out, [](int32_t value) { return static_cast<float>(value); });
      break;
    default:
      throw Error(ErrorCode::ModelFormat, format("Expected dtype F32, F16, BF16, F8_E4M3, F8_E5M2, F64, I64 "
                                                 "or I32 for tensor %s but received %s",
                                                 tensor.name.c_str(), dtypeName(tensor.dtype)));
  }
}

std::vector<float> toFloats(const HostTensor& tensor) {
  std::vector<float> out(static_cast<size_t>(tensor.shape.count()));
  toFloats(tensor, out.data());
  return out;
}

}  // namespace nd
