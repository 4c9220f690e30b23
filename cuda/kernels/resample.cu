#include "cuda/kernels/resample.h"

#include "cuda/kernels/vector.h"

namespace nd::cuda {

namespace {

template <class T>
struct Params {
  Rows<const T> x;
  Rows<T> y;
  uint32_t rows, perRow, width, height;  // of y
  uint32_t inWidth, inHeight;
  bool larger;
};

template <class T, int N>
__global__ void resampleKernel(Params<T> p) {
  const Position at = positionOf(p.perRow, N);
  if (at.row >= p.rows) return;
  const uint32_t j = at.row % p.width, line = at.row / p.width, i = line % p.height, b = line / p.height;
  const auto from = [&](uint32_t h, uint32_t w) {
    return p.x.at((b * p.inHeight + h) * p.inWidth + w, at.column);
  };
  float v[N];
  if (p.larger) {
    loadFloats<N, T>(v, from(i / 2, j / 2));
  } else {
    float sum[N] = {};
#pragma unroll
    for (uint32_t part = 0; part < 4; part++) {
      loadFloats<N, T>(v, from(2 * i + part / 2, 2 * j + part % 2));
#pragma unroll
      for (int e = 0; e < N; e++) sum[e] += v[e];
    }
#pragma unroll
    for (int e = 0; e < N; e++) v[e] = sum[e] / 4;
  }
  storeFloats<N, T>(p.y.at(at.row, at.column), v);
}

}  // namespace

void resample(const Launch& launchOn, DType type, const Tensor& x, const Tensor& y) {
  const int64_t rows = y.shape.rows(), columns = y.shape.last();
  if (rows == 0) return;
  withType(type, [&](auto t) {
    using T = decltype(t);
    withWidth(wide({x, y}), [&](auto width) {
      constexpr int N = decltype(width)::value;
      launch("resample", resampleKernel<T, N>, overRows(rows, columns, N, launchOn.stream),
             Params<T>{rowsOf<const T>(x), rowsOf<T>(y), static_cast<uint32_t>(rows),
                       static_cast<uint32_t>(columns / N), static_cast<uint32_t>(y.shape[2]),
                       static_cast<uint32_t>(y.shape[1]), static_cast<uint32_t>(x.shape[2]),
                       static_cast<uint32_t>(x.shape[1]), y.shape[1] > x.shape[1]});
    });
  });
}

}  // namespace nd::cuda
