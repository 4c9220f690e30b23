// Implicit GEMM: the matrix of taps × channels exists only tile by tile in shared memory (matmul.h).
// M = B·Ho·Wo, K = kh·kw·(C1 + C2): 2·M·N·K FLOP.
#include "cuda/kernels/conv.h"

#include "cuda/kernels/matmul.h"

namespace nd::cuda {

namespace {

MatmulProblem problemOf(const ConvArgs& a, const void* weight, int64_t pitch, const float* bias) {
  MatmulProblem p;
  p.x = a.x.data, p.xStride = a.x.stride, p.c1 = p.c = a.x.shape[3];
  if (a.skip) p.skip = a.skip->data, p.skipStride = a.skip->stride, p.c += a.skip->shape[3];
  p.weight = weight, p.weightPitch = pitch, p.bias = bias;
  if (a.channelAdd) p.channelAdd = a.channelAdd->data, p.channelAddStride = a.channelAdd->stride;
  if (a.residual) p.residual = a.residual->data, p.residualStride = a.residual->stride;
  p.y = a.y.data, p.yStride = a.y.stride;
  p.batch = a.x.shape[0], p.height = a.x.shape[1], p.width = a.x.shape[2];
  p.inputH = a.inputH, p.inputW = a.inputW, p.outH = a.y.shape[1], p.outW = a.y.shape[2], p.n = a.y.shape[3];
  p.kernelH = a.kernelH, p.kernelW = a.kernelW, p.stride = a.stride, p.padTop = a.padTop,
  p.padLeft = a.padLeft;
  p.wrapX = a.wrapX, p.wrapY = a.wrapY;
  p.activation = a.activation;
  return p;
}

void run(const Launch& launch, DType type, const MatmulProblem& p) {
  if (p.batch * p.outH * p.outW == 0 || p.n == 0) return;
  matmul(launch, type, p);
}

}  // namespace

void conv(const Launch& launch, DType type, const ConvArgs& a, const void* weight, int64_t pitch,
          const float* bias) {
  run(launch, type, problemOf(a, weight, pitch, bias));
}

bool isEnlarged(const ConvArgs& a) {
  const int64_t height = 2 * a.x.shape[1], width = 2 * a.x.shape[2];
  return a.inputH == height && a.inputW == width && a.y.shape[1] == height && a.y.shape[2] == width &&
         a.kernelH == 3 && a.kernelW == 3 && a.stride == 1 && a.padTop == 1 && a.padLeft == 1;
}

void convEnlarged(const Launch& launch, DType type, const ConvArgs& a, const void* folded, int64_t pitch,
                  const float* bias) {
  expect(isEnlarged(a), "convEnlarged: 3 x 3 over twice the size");
  MatmulProblem p = problemOf(a, folded, pitch, bias);
  p.enlarged = true;
  p.kernelH = p.kernelW = 2;
  p.inputH = p.height, p.inputW = p.width;
  run(launch, type, p);
}

}  // namespace nd::cuda
