#include "engine/weight-parts.h"

#include "engine/half.h"

namespace nd {

static const char* kindName(WeightKind kind) {
  switch (kind) {
    case WeightKind::Linear:
      return "linear";
    case WeightKind::Geglu:
      return "GEGLU";
    case WeightKind::Conv:
      return "convolution";
    case WeightKind::Vector:
      return "vector";
    case WeightKind::Table:
      return "table";
  }
  return "unknown";
}

[[noreturn]] static void refuse(WeightKind kind, const HostTensor& part, const char* expected) {
  throw Error(ErrorCode::ModelFormat,
              format("Expected %s for the %s weight '%s' but received %s %s", expected, kindName(kind),
                     part.name.c_str(), dtypeName(part.dtype), part.shape.text().c_str()));
}

/// [rows, columns] of one part.
static WeightMatrix partMatrix(WeightKind kind, const HostTensor& part) {
  switch (part.dtype) {
    case DType::F32:
    case DType::F16:
    case DType::BF16:
    case DType::F8_E4M3:
    case DType::F8_E5M2:
      break;
    default:
      refuse(kind, part, "dtype F32, F16, BF16, F8_E4M3 or F8_E5M2");
  }
  const Shape& shape = part.shape;
  for (int i = 0; i < shape.rank; i++)
    if (shape[i] < 1) refuse(kind, part, "dimensions of at least 1");

  int rank = shape.rank;
  switch (kind) {
    case WeightKind::Linear:
    case WeightKind::Geglu:
      while (rank > 2 && shape[rank - 1] == 1) rank--;  // a 1×1 convolution's [N, K, 1, 1]
      if (rank != 2) refuse(kind, part, "shape [N, K] or [N, K, 1, 1]");
      return {shape[0], shape[1]};
    case WeightKind::Conv:
      if (rank != 4) refuse(kind, part, "shape [N, C, kh, kw]");
      return {shape[0], shape[1] * shape[2] * shape[3]};
    case WeightKind::Vector:
      if (rank != 1) refuse(kind, part, "shape [N]");
      return {shape[0], 1};
    case WeightKind::Table:
      if (rank != 2) refuse(kind, part, "shape [rows, columns]");
      return {shape[0], shape[1]};
  }
  throw Error(ErrorCode::Internal, "unknown weight kind");
}

WeightMatrix checkWeightParts(WeightKind kind, std::span<const HostTensor> parts) {
  expect(!parts.empty(), "a weight has at least one part");
  const bool stacks = kind == WeightKind::Linear || kind == WeightKind::Vector ||
                      (kind == WeightKind::Geglu && parts.size() == 2);
  expect(stacks || parts.size() == 1, "only linear weights and vectors have several parts");

  WeightMatrix whole = partMatrix(kind, parts[0]);
  for (const HostTensor& part : parts.subspan(1)) {
    const WeightMatrix matrix = partMatrix(kind, part);
    if (matrix.columns != whole.columns)
      refuse(kind, part,
             format("%lld columns (those of '%s', which it is stacked with)",
                    static_cast<long long>(whole.columns), parts[0].name.c_str())
                 .c_str());
    whole.rows += matrix.rows;
  }
  if (kind == WeightKind::Geglu && whole.rows % 2)
    refuse(kind, parts[0], "an even number of rows (value and gate)");
  return whole;
}

float weightValue(const HostTensor& part, int64_t i) {
  switch (part.dtype) {
    case DType::F32:
      return static_cast<const float*>(part.data)[i];
    case DType::F16:
      return halfToFloat(static_cast<const uint16_t*>(part.data)[i]);
    case DType::BF16:
      return bfloatToFloat(static_cast<const uint16_t*>(part.data)[i]);
    case DType::F8_E4M3:
      return float8e4m3ToFloat(static_cast<const uint8_t*>(part.data)[i]);
    case DType::F8_E5M2:
      return float8e5m2ToFloat(static_cast<const uint8_t*>(part.data)[i]);
    default:
      throw Error(ErrorCode::Internal, "weight of a dtype that was not checked");
  }
}

}  // namespace nd
