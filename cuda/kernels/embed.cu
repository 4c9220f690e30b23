#include "cuda/kernels/embed.h"

#include "cuda/kernels/vector.h"

namespace nd::cuda {

namespace {

template <class T>
struct Params {
  Global<const T> table, positions;
  Global<const int32_t> ids;
  Rows<T> y;
  uint32_t rows, perRow, length;
};

template <class T, int N>
__global__ void embedKernel(Params<T> p) {
  const Position at = positionOf(p.perRow, N);
  if (at.row >= p.rows) return;
  const int64_t width = static_cast<int64_t>(p.perRow) * N;
  float v[N];
  loadFloats<N, T>(v, p.table + (p.ids[at.row] * width + at.column));
  if (p.positions) {
    float q[N];
    loadFloats<N, T>(q, p.positions + (at.row % p.length * width + at.column));
#pragma unroll
    for (int i = 0; i < N; i++) v[i] += q[i];
  }
  storeFloats<N, T>(p.y.at(at.row, at.column), v);
}

}  // namespace

void embed(const Launch& launchOn, DType type, const void* table, const void* positions, const int32_t* ids,
           int64_t length, const Tensor& y) {
  const int64_t rows = y.shape.rows(), columns = y.shape.last();
  withType(type, [&](auto t) {
    using T = decltype(t);
    withWidth(wide(y), [&](auto width) {
      constexpr int N = decltype(width)::value;
      launch("embed", embedKernel<T, N>, overRows(rows, columns, N, launchOn.stream),
             Params<T>{Global<const T>(table), Global<const T>(positions), Global<const int32_t>(ids),
                       rowsOf<T>(y), static_cast<uint32_t>(rows), static_cast<uint32_t>(columns / N),
                       static_cast<uint32_t>(length)});
    });
  });
}

}  // namespace nd::cuda
