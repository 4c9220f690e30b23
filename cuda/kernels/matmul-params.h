// What the kernels of matmul.cu are given, and the end of every result: bias, additions, activation, the
// store.
#pragma once

#include "cuda/kernels/activation.h"
#include "cuda/kernels/matmul.h"
#include "cuda/tile/platform.h"

namespace nd::cuda {

template <class T>
struct MatmulParams {
  Global<const T> x, skip, w, channelAdd, residual;
  Global<const float> bias;
  Global<T> y;
  Global<float> partial;  // [splits, m, n] where K is cut
  int64_t xStride, skipStride, wPitch, channelAddStride, residualStride, yStride;
  int m, n, k;  // of a phase; n: rows of the weight
  int c1, c, height, width, inputH, inputW, outW, outPixels;
  int gridW, gridPixels, phases;  // m counts places of this grid; of `enlarged` there are four
  int kernelH, kernelW, stride, padTop, padLeft;
  float scaleH, scaleW;  // of the resize; 0: none
  int tilesPerSplit, splits;
  Activation activation;
  bool geglu, wrapX, wrapY;
  bool wideRows;  // rows of y and residual allow 16-byte accesses

  /// Place (i, j) of an image's grid → row of y.
  ND_DEVICE int rowAt(int image, int i, int j, int phase) const {
    if (phases > 1) i = 2 * i + phase / 2, j = 2 * j + phase % 2;
    return image * outPixels + i * outW + j;
  }
  ND_DEVICE int rowOf(int place, int phase) const {
    if (phases == 1) return place;
    const int image = place / gridPixels, pixel = place - image * gridPixels, i = pixel / gridW;
    return rowAt(image, i, pixel - i * gridW, phase);
  }
};

/// value · gelu(gate), or its approximation by tanh, of four pairs → four results of row m, columns n0 / 2
/// on.
template <class T>
ND_DEVICE void finishGated(const MatmulParams<T>& p, const float (&v)[8], int m, int n0) {
  const int features = p.n / 2, first = n0 / 2;
  float result[4];
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const int n = first + i;
    const bool inside = n < features;
    const float value = v[2 * i] + (p.bias && inside ? p.bias[n] : 0);
    const float gate = v[2 * i + 1] + (p.bias && inside ? p.bias[features + n] : 0);
    result[i] =
        value * activate(gate, p.activation == Activation::GeluTanh ? p.activation : Activation::Gelu);
    if (p.residual && inside) result[i] += toFloat(p.residual[m * p.residualStride + n]);
  }
  if (p.wideRows && first + 4 <= features) {
    store8(p.y + (m * p.yStride + first), pack2<T>(result[0], result[1]), pack2<T>(result[2], result[3]));
  } else {
#pragma unroll
    for (int i = 0; i < 4; i++)
      if (first + i < features) p.y[m * p.yStride + first + i] = fromFloat<T>(result[i]);
  }
}

/// The sums v of row m, columns n0 to n0 + 7 (as far as there are columns) become results.
template <class T>
ND_DEVICE void finish8(const MatmulParams<T>& p, const float (&sums)[8], int m, int n0) {
  if (p.geglu) return finishGated(p, sums, m, n0);
  float v[8];
  const int64_t image = p.channelAdd ? m / p.outPixels * p.channelAddStride : 0;
  const bool whole = n0 + 8 <= p.n;
#pragma unroll
  for (int i = 0; i < 8; i++) {
    v[i] = sums[i];
    if (!whole && n0 + i >= p.n) continue;
    if (p.bias) v[i] += p.bias[n0 + i];
    if (p.channelAdd) v[i] += toFloat(p.channelAdd[image + n0 + i]);
  }
  if (p.activation != Activation::None)
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = activate(v[i], p.activation);
  if (whole && p.wideRows) {
    if (p.residual) {
      const Vec16 r = load16(p.residual + (m * p.residualStride + n0));
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const Float2 pair = unpack2<T>(r.w[i]);
        v[2 * i] += pair.x, v[2 * i + 1] += pair.y;
      }
    }
    store16(p.y + (m * p.yStride + n0),
            Vec16{{pack2<T>(v[0], v[1]), pack2<T>(v[2], v[3]), pack2<T>(v[4], v[5]), pack2<T>(v[6], v[7])}});
    return;
  }
#pragma unroll
  for (int i = 0; i < 8; i++) {
    if (n0 + i >= p.n) continue;
    if (p.residual) v[i] += toFloat(p.residual[m * p.residualStride + n0 + i]);
    p.y[m * p.yStride + n0 + i] = fromFloat<T>(v[i]);
  }
}

}  // namespace nd::cuda
