// Element types, shapes and the two kinds of tensor: HostTensor (weights as they lie in a mapped file)
// and Tensor (activations on a backend). Neither owns memory.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>

#include "engine/error.h"

namespace nd {

/// Every dtype of the safetensors format. Weights convert from F32, F16, BF16, F8_E4M3, F8_E5M2.
enum class DType : uint8_t {
  BOOL,
  F4,
  F6_E2M3,
  F6_E3M2,
  U8,
  I8,
  F8_E5M2,
  F8_E4M3,
  F8_E8M0,
  I16,
  U16,
  F16,
  BF16,
  I32,
  U32,
  F32,
  C64,
  F64,
  I64,
  U64
};

int dtypeBits(DType dtype);
const char* dtypeName(DType dtype);

constexpr int kMaxRank = 6;

struct Shape {
  int rank = 0;
  int64_t dim[kMaxRank] = {};

  Shape() = default;
  Shape(std::initializer_list<int64_t> dims) {
    expect(dims.size() <= kMaxRank, "rank <= 6");
    for (int64_t d : dims) dim[rank++] = d;
  }
  int64_t operator[](int i) const { return dim[i < 0 ? rank + i : i]; }
  int64_t count() const {
    int64_t n = 1;
    for (int i = 0; i < rank; i++) n *= dim[i];
    return n;
  }
  int64_t last() const { return rank ? dim[rank - 1] : 1; }
  /// Rows of the matrix that the tensor is when all but the last dimension are flattened.
  int64_t rows() const { return rank ? count() / (last() ? last() : 1) : 1; }
  bool operator==(const Shape& o) const {
    if (rank != o.rank) return false;
    for (int i = 0; i < rank; i++)
      if (dim[i] != o.dim[i]) return false;
    return true;
  }
  std::string text() const;  // "[2, 64, 64, 320]"
};

/// A tensor in host memory, row-major and contiguous: weights in the mapped file, or a converted copy.
struct HostTensor {
  const void* data = nullptr;
  DType dtype = DType::F32;
  Shape shape;
  std::string name;  // for messages
};

/// Activations on a backend, in the backend's activation type (float on the CPU).
/// Images are NHWC [B, H, W, C], tokens [B, L, C]. Rows (the last dimension) are contiguous and
/// `stride` elements apart, so that a column range of a fused projection is a Tensor as well.
struct Tensor {
  void* data = nullptr;
  Shape shape;
  int64_t stride = 0;

  bool contiguous() const { return stride == shape.last(); }
  explicit operator bool() const { return data != nullptr; }
  float* f32() const { return static_cast<float*>(data); }  // CPU backends only
};

}  // namespace nd
