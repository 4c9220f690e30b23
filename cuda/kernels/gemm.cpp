// A linear layer is a 1 × 1 convolution over one image of one row (matmul.h).
#include "cuda/kernels/gemm.h"

#include "cuda/kernels/matmul.h"

namespace nd::cuda {

void gemm(const Launch& launch, const GemmArgs& args) {
  if (args.m == 0 || args.n == 0) return;
  MatmulProblem p;
  p.x = args.x, p.xStride = args.xStride, p.weight = args.w, p.weightPitch = args.wPitch, p.bias = args.bias;
  p.residual = args.residual, p.residualStride = args.residualStride, p.y = args.y, p.yStride = args.yStride;
  p.width = p.inputW = p.outW = args.m;
  p.n = args.n, p.c1 = p.c = args.k;
  p.activation = args.activation, p.geglu = args.geglu;
  matmul(launch, args.type, p);
}

}  // namespace nd::cuda
