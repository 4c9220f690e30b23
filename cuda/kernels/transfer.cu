#include "cuda/kernels/transfer.h"

#include "cuda/kernels/vector.h"

namespace nd::cuda {

namespace {

template <class T>
struct RowParams {
  Rows<T> rows;
  Global<float> values;
  uint32_t count, perRow;
};

template <class T, int N>
__global__ void narrowKernel(RowParams<T> p) {
  const Position at = positionOf(p.perRow, N);
  if (at.row >= p.count) return;
  float v[N];
  loadFloats<N, float>(v, p.values + (static_cast<int64_t>(at.row) * p.perRow * N + at.column));
  storeFloats<N, T>(p.rows.at(at.row, at.column), v);
}

template <class T, int N>
__global__ void widenKernel(RowParams<T> p) {
  const Position at = positionOf(p.perRow, N);
  if (at.row >= p.count) return;
  float v[N];
  loadFloats<N, T>(v, p.rows.at(at.row, at.column));
  storeFloats<N, float>(p.values + (static_cast<int64_t>(at.row) * p.perRow * N + at.column), v);
}

/// Neighbouring threads hold neighbouring elements of the NHWC side: channels are few (3 or 4 in practice),
/// so the NCHW side is read and written in runs a warp wide as well.
template <class T>
struct PlaneParams {
  Rows<T> image;
  Global<float> planes;
  double scale;
  uint32_t rows, channels, pixels, planeRows;  // rows of the NHWC side; B · pixels of the NCHW side
};

template <class T>
__global__ void fromPlanesKernel(PlaneParams<T> p) {
  const Position at = positionOf(p.channels, 1);
  if (at.row >= p.rows) return;
  const uint32_t row = at.row % p.planeRows, image = row / p.pixels, pixel = row % p.pixels;
  const float value = p.planes[(static_cast<int64_t>(image) * p.channels + at.column) * p.pixels + pixel];
  p.image.at(at.row, at.column)[0] = fromFloat<T>(static_cast<float>(p.scale * value));
}

template <class T>
__global__ void toPlanesKernel(PlaneParams<T> p) {
  const Position at = positionOf(p.channels, 1);
  if (at.row >= p.rows) return;
  const uint32_t image = at.row / p.pixels, pixel = at.row % p.pixels;
  p.planes[(static_cast<int64_t>(image) * p.channels + at.column) * p.pixels + pixel] =
      toFloat(p.image.at(at.row, at.column)[0]);
}

template <class T>
struct PixelParams {
  Rows<const T> x;
  Global<uint8_t> y;
  uint32_t rows, channels;
};

template <class T>
__global__ void pixelsKernel(PixelParams<T> p) {
  const Position at = positionOf(p.channels, 1);
  if (at.row >= p.rows) return;
  const float half = toFloat(p.x.at(at.row, at.column)[0]) * 0.5f + 0.5f;
  const float unit = half > 0 ? fminf(half, 1.0f) : 0.0f;  // NaN paints 0
  p.y[static_cast<int64_t>(at.row) * p.channels + at.column] = static_cast<uint8_t>(rintf(unit * 255.0f));
}

template <class T>
PlaneParams<T> planeParams(const Tensor& nhwc, const float* planes, double scale, int64_t images) {
  const int64_t rows = nhwc.shape.rows(), pixels = rows / nhwc.shape[0];
  return {rowsOf<T>(nhwc),
          Global<float>(const_cast<float*>(planes)),
          scale,
          static_cast<uint32_t>(rows),
          static_cast<uint32_t>(nhwc.shape.last()),
          static_cast<uint32_t>(pixels),
          static_cast<uint32_t>(images * pixels)};
}

template <class T>
RowParams<T> rowParams(const Tensor& t, const float* values, int perThread) {
  return {rowsOf<T>(t), Global<float>(const_cast<float*>(values)), static_cast<uint32_t>(t.shape.rows()),
          static_cast<uint32_t>(t.shape.last() / perThread)};
}

}  // namespace

void narrowRows(const Launch& launchOn, DType type, const float* x, const Tensor& y) {
  withType(type, [&](auto t) {
    using T = decltype(t);
    withWidth(wide(y), [&](auto width) {
      constexpr int N = decltype(width)::value;
      launch("narrowRows", narrowKernel<T, N>, overRows(y.shape.rows(), y.shape.last(), N, launchOn.stream),
             rowParams<T>(y, x, N));
    });
  });
}

void widenRows(const Launch& launchOn, DType type, const Tensor& x, float* y) {
  withType(type, [&](auto t) {
    using T = decltype(t);
    withWidth(wide(x), [&](auto width) {
      constexpr int N = decltype(width)::value;
      launch("widenRows", widenKernel<T, N>, overRows(x.shape.rows(), x.shape.last(), N, launchOn.stream),
             rowParams<T>(x, y, N));
    });
  });
}

void fromPlanes(const Launch& launchOn, DType type, const float* x, double scale, int64_t images, int copies,
                const Tensor& y) {
  expect(y.shape[0] == images * copies, "fromPlanes: y [copies·B, H, W, C]");
  withType(type, [&](auto t) {
    using T = decltype(t);
    launch("fromPlanes", fromPlanesKernel<T>, overRows(y.shape.rows(), y.shape.last(), 1, launchOn.stream),
           planeParams<T>(y, x, scale, images));
  });
}

void toPlanes(const Launch& launchOn, DType type, const Tensor& x, float* y) {
  withType(type, [&](auto t) {
    using T = decltype(t);
    launch("toPlanes", toPlanesKernel<T>, overRows(x.shape.rows(), x.shape.last(), 1, launchOn.stream),
           planeParams<T>(x, y, 1, x.shape[0]));
  });
}

void toPixels(const Launch& launchOn, DType type, const Tensor& x, uint8_t* y) {
  withType(type, [&](auto t) {
    using T = decltype(t);
    launch("toPixels", pixelsKernel<T>, overRows(x.shape.rows(), x.shape.last(), 1, launchOn.stream),
           PixelParams<T>{rowsOf<const T>(x), Global<uint8_t>(y), static_cast<uint32_t>(x.shape.rows()),
                          static_cast<uint32_t>(x.shape.last())});
  });
}

}  // namespace nd::cuda
