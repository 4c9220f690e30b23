// Convolution (cross-correlation, as torch's): y[b, i, j, n] = act(Σ_{c, r, s} in[b, i·stride + r − padTop,
// j·stride + s − padLeft, c] W[n, c, r, s] + bias[n] + channelAdd[b, n]) + residual, where `in` is [x | skip]
// along channels, resized by nearest neighbour, and zero outside or, where it wraps, the other side again.
#include <algorithm>
#include <cmath>

#include "cpu/reference/reference.h"

namespace nd {

/// torch's nearest rule, in single precision as torch computes it: floor(i · in/out), at most in − 1.
static int64_t nearestSource(int64_t i, int64_t in, int64_t out) {
  const float scale = static_cast<float>(in) / static_cast<float>(out);
  return std::min(static_cast<int64_t>(std::floor(static_cast<float>(i) * scale)), in - 1);
}

/// One value of the input that the kernel slides over.
static double inputAt(const ConvArgs& a, int64_t b, int64_t h, int64_t w, int64_t c) {
  if (a.wrapY) h = (h % a.inputH + a.inputH) % a.inputH;
  if (a.wrapX) w = (w % a.inputW + a.inputW) % a.inputW;
  if (h < 0 || h >= a.inputH || w < 0 || w >= a.inputW) return 0;
  const int64_t height = a.x.shape[1], width = a.x.shape[2], c1 = a.x.shape[3];
  const int64_t pixel =
      (b * height + nearestSource(h, height, a.inputH)) * width + nearestSource(w, width, a.inputW);
  return c < c1 ? reference::row(a.x, pixel)[c] : reference::row(*a.skip, pixel)[c - c1];
}

void ReferenceBackend::conv2d(const ConvArgs& a) {
  const ReferenceWeight& weight = reference::weight(a.weight);
  const int64_t channels = a.x.shape[3] + (a.skip ? a.skip->shape[3] : 0);
  const int64_t batch = a.y.shape[0], outH = a.y.shape[1], outW = a.y.shape[2], features = a.y.shape[3];
  // A 1×1 convolution's weight is [N, C] whether it came as a Conv or as a Linear weight.
  expect(weight.k == channels * a.kernelH * a.kernelW && weight.n == features && a.x.shape[0] == batch,
         "conv2d: weight [N, C1 + C2, kh, kw], y [B, Ho, Wo, N]");

  for (int64_t b = 0; b < batch; b++)
    for (int64_t i = 0; i < outH; i++)
      for (int64_t j = 0; j < outW; j++)
        for (int64_t n = 0; n < features; n++) {
          double sum = 0;
          for (int64_t c = 0; c < channels; c++)
            for (int64_t r = 0; r < a.kernelH; r++)
              for (int64_t s = 0; s < a.kernelW; s++)
                sum += inputAt(a, b, i * a.stride + r - a.padTop, j * a.stride + s - a.padLeft, c) *
                       weight.at(n, (c * a.kernelH + r) * a.kernelW + s);
          const int64_t pixel = (b * outH + i) * outW + j;
          if (a.bias) sum += reference::weight(a.bias).values[n];
          if (a.channelAdd) sum += reference::row(*a.channelAdd, b)[n];
          sum = reference::activate(sum, a.activation);
          if (a.residual) sum += reference::row(*a.residual, pixel)[n];
          reference::row(a.y, pixel)[n] = static_cast<float>(sum);
        }
}

}  // namespace nd
