// Rows of N elements at once: 16-byte accesses where N is 8, single elements where N is 1. And how kernels
// that treat every element alike are laid over a tensor's rows.
#pragma once

#include <initializer_list>

#include "cuda/launch.h"

namespace nd::cuda {

template <int N, class T>
ND_DEVICE void loadFloats(float (&v)[N], Global<const T> p) {
  if constexpr (N == 8 && sizeof(T) == 2) {
    const Vec16 words = load16(p);
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const Float2 pair = unpack2<T>(words.w[i]);
      v[2 * i] = pair.x, v[2 * i + 1] = pair.y;
    }
  } else if constexpr (N == 8) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const Vec16 words = load16(p + 4 * half);
#pragma unroll
      for (int i = 0; i < 4; i++) v[4 * half + i] = bitsToFloat(words.w[i]);
    }
  } else {
#pragma unroll
    for (int i = 0; i < N; i++) v[i] = toFloat(p[i]);
  }
}

template <int N, class T>
ND_DEVICE void storeFloats(Global<T> p, const float (&v)[N]) {
  if constexpr (N == 8 && sizeof(T) == 2) {
    store16(p,
            Vec16{{pack2<T>(v[0], v[1]), pack2<T>(v[2], v[3]), pack2<T>(v[4], v[5]), pack2<T>(v[6], v[7])}});
  } else if constexpr (N == 8) {
#pragma unroll
    for (int half = 0; half < 2; half++)
      store16(p + 4 * half, Vec16{{floatToBits(v[4 * half]), floatToBits(v[4 * half + 1]),
                                   floatToBits(v[4 * half + 2]), floatToBits(v[4 * half + 3])}});
  } else {
#pragma unroll
    for (int i = 0; i < N; i++) p[i] = fromFloat<T>(v[i]);
  }
}

/// The rows of a tensor as a kernel sees them.
template <class T>
struct Rows {
  Global<T> data;
  int64_t stride = 0;
  ND_DEVICE Global<T> at(uint32_t row, uint32_t column) const {
    return data + (static_cast<int64_t>(row) * stride + column);
  }
};
template <class T>
Rows<T> rowsOf(const Tensor& t) {
  return {Global<T>(static_cast<T*>(t.data)), t.stride};
}

/// Whether rows of `t` can be read eight elements at a time.
inline bool wide(const Tensor& t, int64_t elementBytes = 2) {
  return t.shape.last() % 8 == 0 && t.stride * elementBytes % 16 == 0 &&
         reinterpret_cast<uintptr_t>(t.data) % 16 == 0;
}
inline bool wide(std::initializer_list<Tensor> tensors) {
  for (const Tensor& t : tensors)
    if (!wide(t)) return false;
  return true;
}

/// Calls `run` with an integral constant: 8 or 1 elements per access.
template <int N>
struct Width {
  static constexpr int value = N;
};
template <class Run>
void withWidth(bool isWide, Run run) {
  if (isWide) return run(Width<8>());
  run(Width<1>());
}

constexpr unsigned kElementThreads = 256;

/// One thread per `perThread` elements of a row; see Position.
inline LaunchShape overRows(int64_t rows, int64_t columns, int perThread, cudaStream_t stream) {
  const int64_t threads = rows * (columns / perThread);
  expect(threads < int64_t{1} << 31, "cuda: a tensor of fewer than 2^31 elements");
  return {dim3(static_cast<unsigned>((threads + kElementThreads - 1) / kElementThreads)),
          dim3(kElementThreads), 0, stream};
}

/// Where a thread of overRows() stands: element `column` of `row`.
struct Position {
  uint32_t row, column;
};
ND_DEVICE Position positionOf(uint32_t perRow, uint32_t perThread) {
  const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
  return {i / perRow, i % perRow * perThread};
}

}  // namespace nd::cuda
