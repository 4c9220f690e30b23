#include "cuda/kernels/rows.h"

#include "cuda/kernels/vector.h"

namespace nd::cuda {

namespace {

template <class T>
struct AddParams {
  Rows<const T> a, b;
  Rows<T> y;
  uint32_t rows, perRow;
  float scale;
};

template <class T, int N>
__global__ void addKernel(AddParams<T> p) {
  const Position at = positionOf(p.perRow, N);
  if (at.row >= p.rows) return;
  float a[N], b[N];
  loadFloats<N, T>(a, p.a.at(at.row, at.column));
  loadFloats<N, T>(b, p.b.at(at.row, at.column));
#pragma unroll
  for (int i = 0; i < N; i++) a[i] += p.scale * b[i];
  storeFloats<N, T>(p.y.at(at.row, at.column), a);
}

/// Bits are moved, whatever they mean: NaN keeps its payload.
template <class T>
struct CopyParams {
  Rows<const T> x;
  Rows<T> y;
  Global<const int32_t> source;  // row of x per row of y; null: the same
  uint32_t rows, perRow, column;
};

template <class T, int N>
__global__ void copyKernel(CopyParams<T> p) {
  const Position at = positionOf(p.perRow, N);
  if (at.row >= p.rows) return;
  const uint32_t from = p.source ? static_cast<uint32_t>(p.source[at.row]) : at.row;
  const Global<const T> x = p.x.at(from, at.column);
  const Global<T> y = p.y.at(at.row, at.column + p.column);
  if constexpr (N == 8)
    store16(y, load16(x));
  else
    y[0] = x[0];
}

void copy(const char* name, const Launch& launchOn, DType type, const Tensor& x, const int32_t* source,
          const Tensor& y, int64_t rows, int64_t column) {
  const int64_t columns = x.shape.last();
  Tensor target = y;
  target.shape = {rows, columns};
  target.data = static_cast<char*>(y.data) + column * 2;
  withType(type, [&](auto t) {
    using T = decltype(t);
    withWidth(wide({x, target}), [&](auto width) {
      constexpr int N = decltype(width)::value;
      launch(name, copyKernel<T, N>, overRows(rows, columns, N, launchOn.stream),
             CopyParams<T>{rowsOf<const T>(x), rowsOf<T>(y), Global<const int32_t>(source),
                           static_cast<uint32_t>(rows), static_cast<uint32_t>(columns / N),
                           static_cast<uint32_t>(column)});
    });
  });
}

}  // namespace

void add(const Launch& launchOn, DType type, const Tensor& a, const Tensor& b, float scale, const Tensor& y) {
  const int64_t rows = y.shape.rows(), columns = y.shape.last();
  withType(type, [&](auto t) {
    using T = decltype(t);
    withWidth(wide({a, b, y}), [&](auto width) {
      constexpr int N = decltype(width)::value;
      launch("add", addKernel<T, N>, overRows(rows, columns, N, launchOn.stream),
             AddParams<T>{rowsOf<const T>(a), rowsOf<const T>(b), rowsOf<T>(y), static_cast<uint32_t>(rows),
                          static_cast<uint32_t>(columns / N), scale});
    });
  });
}

void gatherRows(const Launch& launchOn, DType type, const Tensor& x, const int32_t* rows, const Tensor& y) {
  copy("gatherRows", launchOn, type, x, rows, y, y.shape.rows(), 0);
}

void copyColumns(const Launch& launchOn, DType type, const Tensor& x, const Tensor& y, int64_t column) {
  copy("copyColumns", launchOn, type, x, nullptr, y, x.shape.rows(), column);
}

}  // namespace nd::cuda
