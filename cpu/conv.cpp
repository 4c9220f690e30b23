// Linear layers and convolutions: their arguments as one implicit matrix product.
//   linear   x [.., K] → y [.., N]: row m of A is row m of x
//   conv2d   x [B, H, W, C1] (+ skip [B, H, W, C2]) → y [B, Ho, Wo, N]: row m of A is what the kernel sees at
//   pixel m
// Resizing by nearest neighbour, padding and concatenation are only a matter of where the rows point to;
// nothing is copied.
#include <algorithm>
#include <cmath>

#include "cpu/cpu-backend.h"
#include "cpu/gemm.h"
#include "cpu/strassen.h"
#include "cpu/winograd.h"

namespace nd {

namespace {

/// torch's nearest rule, in single precision as torch computes it: floor(i · in/out), at most in − 1.
std::vector<int32_t> nearestMap(int64_t in, int64_t out) {
  const float scale = static_cast<float>(in) / static_cast<float>(out);
  std::vector<int32_t> map(out);
  for (int64_t i = 0; i < out; i++)
    map[i] = static_cast<int32_t>(
        std::min<int64_t>(static_cast<int64_t>(std::floor(static_cast<float>(i) * scale)), in - 1));
  return map;
}

GemmInput::Source source(const Tensor& t) { return {t.f32(), t.stride, t.shape.last()}; }

GemmOutput output(const Tensor& y, const Weight* bias, const Tensor* residual, Activation activation) {
  GemmOutput out;
  out.y = y.f32();
  out.stride = y.stride;
  out.bias = vectorData(bias);
  out.residual = residual ? residual->f32() : nullptr;
  out.residualStride = residual ? residual->stride : 0;
  out.act = static_cast<Act>(activation);
  return out;
}

}  // namespace

void CpuBackend::multiply(int64_t m, int64_t rowsPerImage, const PackedWeight& weight, const GemmInput& input,
                          const GemmOutput& output) {
  if (bf16_)
    gemmBf16(k_, *bf16_, pool_, scratch_, shared_, m, weight, input, output);
  else if (useStrassen(strassenUse, k_, rowsPerImage, weight, input))
    strassen(k_, pool_, scratch_, m, weight, input, output);
  else
    gemm(k_, pool_, scratch_, m, weight, input, output);
}

void CpuBackend::linear(const LinearArgs& a) {
  const PackedWeight& weight = packed(a.weight);
  expect(weight.panels > 0 && weight.k == a.x.shape.last() && weight.n == a.y.shape.last(),
         "linear: weight [N, K], x [.., K], y [.., N]");
  expect(weight.kind != WeightKind::Geglu || a.activation == Activation::None ||
             a.activation == Activation::GeluTanh,
         "linear: Geglu has its activation");
  GemmInput in;
  in.source[0] = source(a.x);
  const int64_t rows = a.x.shape.rows();
  multiply(rows, a.x.shape.rank > 2 ? rows / a.x.shape[0] : rows, weight, in,
           output(a.y, a.bias, a.residual, a.activation));
}

void CpuBackend::conv2d(const ConvArgs& a) {
  const PackedWeight& weight = packed(a.weight);
  GemmInput in;
  in.source[0] = source(a.x);
  if (a.skip) in.source[1] = source(*a.skip);
  in.height = a.x.shape[1], in.width = a.x.shape[2];
  in.outH = a.y.shape[1], in.outW = a.y.shape[2];
  in.kernelH = a.kernelH, in.kernelW = a.kernelW, in.stride = a.stride;
  in.padTop = a.padTop, in.padLeft = a.padLeft;
  in.wrapY = a.wrapY, in.wrapX = a.wrapX;
  const int64_t channels = in.source[0].channels + in.source[1].channels;
  expect(weight.panels > 0 && weight.kind != WeightKind::Geglu &&
             weight.k == channels * a.kernelH * a.kernelW && weight.n == a.y.shape.last(),
         "conv2d: weight [N, C1 + C2, kh, kw], y [B, Ho, Wo, N]");

  in.rows = a.kernelH == 1 && a.kernelW == 1 && a.stride == 1 && a.padTop == 0 && a.padLeft == 0 &&
            a.inputH == in.height && a.inputW == in.width && in.outH == in.height && in.outW == in.width;
  if (!in.rows) in.mapY = nearestMap(in.height, a.inputH), in.mapX = nearestMap(in.width, a.inputW);

  GemmOutput out = output(a.y, a.bias, a.residual, a.activation);
  if (a.channelAdd) {
    out.channelAdd = a.channelAdd->f32();
    out.channelStride = a.channelAdd->stride;
    out.rowsPerImage = in.outH * in.outW;
  }
  if (!bf16_ && useWinograd(winogradOptions, k_, weight, in))
    winograd(winogradOptions, k_, pool_, scratch_, shared_, a.y.shape[0], weight, in, out);
  else
    multiply(a.y.shape.rows(), in.outH * in.outW, weight, in, out);
}

}  // namespace nd
