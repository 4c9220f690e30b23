#include "cuda/kernels/activate.h"

#include "cuda/kernels/activation.h"
#include "cuda/kernels/vector.h"

namespace nd::cuda {

namespace {

template <class T>
struct Params {
  Rows<const T> x;
  Rows<T> y;
  uint32_t rows, perRow;
  Activation activation;
};

template <class T, int N>
__global__ void activateKernel(Params<T> p) {
  const Position at = positionOf(p.perRow, N);
  if (at.row >= p.rows) return;
  float v[N];
  loadFloats<N, T>(v, p.x.at(at.row, at.column));
#pragma unroll
  for (int i = 0; i < N; i++) v[i] = activate(v[i], p.activation);
  storeFloats<N, T>(p.y.at(at.row, at.column), v);
}

}  // namespace

void activate(const Launch& launchOn, DType type, const Tensor& x, Activation activation, const Tensor& y) {
  const int64_t rows = y.shape.rows(), columns = y.shape.last();
  withType(type, [&](auto t) {
    using T = decltype(t);
    withWidth(wide({x, y}), [&](auto width) {
      constexpr int N = decltype(width)::value;
      launch("activate", activateKernel<T, N>, overRows(rows, columns, N, launchOn.stream),
             Params<T>{rowsOf<const T>(x), rowsOf<T>(y), static_cast<uint32_t>(rows),
                       static_cast<uint32_t>(columns / N), activation});
    });
  });
}

}  // namespace nd::cuda
