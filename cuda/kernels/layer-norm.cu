#include "cuda/kernels/layer-norm.h"

#include "cuda/kernels/reduce.h"
#include "cuda/kernels/vector.h"

namespace nd::cuda {

namespace {

constexpr int kWarps = 4;

template <class T>
struct Params {
  Rows<const T> x;
  Rows<T> y;
  Global<const float> gamma, beta;
  uint32_t rows, width;
  float epsilon;
  bool centred;

  ND_DEVICE float meanOf(float sum) const { return centred ? sum / static_cast<float>(width) : 0; }
  ND_DEVICE Global<const float> betaOf(uint32_t column) const { return beta ? beta + column : beta; }
};

template <int N>
ND_DEVICE void normalize(float (&v)[N], float mean, float scale, Global<const float> gamma,
                         Global<const float> beta) {
  float g[N], b[N] = {};
  loadFloats<N, float>(g, gamma);
  if (beta) loadFloats<N, float>(b, beta);
#pragma unroll
  for (int i = 0; i < N; i++) v[i] = (v[i] - mean) * scale * g[i] + b[i];
}

/// Lane l holds elements l·8, l·8 + 1 … of each of kParts runs of 256.
template <class T, int kParts>
__global__ void registerKernel(Params<T> p) {
  const uint32_t row = blockIdx.x * kWarps + threadIdx.x / 32;
  if (row >= p.rows) return;
  const uint32_t first = static_cast<uint32_t>(laneId()) * 8;
  float v[kParts][8] = {};
  float sum = 0;
#pragma unroll
  for (int part = 0; part < kParts; part++) {
    const uint32_t column = first + static_cast<uint32_t>(part) * 256;
    if (column >= p.width) continue;
    loadFloats<8, T>(v[part], p.x.at(row, column));
#pragma unroll
    for (int i = 0; i < 8; i++) sum += v[part][i];
  }
  const float mean = p.meanOf(warpSum(sum));
  float squares = 0;
#pragma unroll
  for (int part = 0; part < kParts; part++) {
    if (first + static_cast<uint32_t>(part) * 256 >= p.width) continue;
#pragma unroll
    for (int i = 0; i < 8; i++) squares += (v[part][i] - mean) * (v[part][i] - mean);
  }
  const float scale = rsqrtf(warpSum(squares) / static_cast<float>(p.width) + p.epsilon);
#pragma unroll
  for (int part = 0; part < kParts; part++) {
    const uint32_t column = first + static_cast<uint32_t>(part) * 256;
    if (column >= p.width) continue;
    normalize<8>(v[part], mean, scale, p.gamma + column, p.betaOf(column));
    storeFloats<8, T>(p.y.at(row, column), v[part]);
  }
}

template <class T>
__global__ void anyKernel(Params<T> p) {
  const uint32_t row = blockIdx.x * kWarps + threadIdx.x / 32;
  if (row >= p.rows) return;
  const auto lane = static_cast<uint32_t>(laneId());
  const Global<const T> x = p.x.at(row, 0);
  const Global<T> y = p.y.at(row, 0);
  float sum = 0, squares = 0;
  for (uint32_t c = lane; c < p.width; c += 32) sum += toFloat(x[c]);
  const float mean = p.meanOf(warpSum(sum));
  for (uint32_t c = lane; c < p.width; c += 32) {
    const float d = toFloat(x[c]) - mean;
    squares += d * d;
  }
  const float scale = rsqrtf(warpSum(squares) / static_cast<float>(p.width) + p.epsilon);
  for (uint32_t c = lane; c < p.width; c += 32) {
    float v[1] = {toFloat(x[c])};
    normalize<1>(v, mean, scale, p.gamma + c, p.betaOf(c));
    y[c] = fromFloat<T>(v[0]);
  }
}

}  // namespace

void layerNorm(const Launch& launchOn, DType type, const LayerNormArgs& a, const float* gamma,
               const float* beta) {
  const Tensor &x = a.x, &y = a.y;
  const int64_t rows = y.shape.rows(), width = y.shape.last();
  const LaunchShape shape{dim3(static_cast<unsigned>((rows + kWarps - 1) / kWarps)), dim3(32 * kWarps), 0,
                          launchOn.stream};
  withType(type, [&](auto t) {
    using T = decltype(t);
    const Params<T> params{rowsOf<const T>(x),
                           rowsOf<T>(y),
                           Global<const float>(gamma),
                           Global<const float>(beta),
                           static_cast<uint32_t>(rows),
                           static_cast<uint32_t>(width),
                           a.epsilon,
                           a.centred};
    const int64_t parts = (width + 255) / 256;
    if (!wide({x, y}) || parts > 8) return launch("layerNorm", anyKernel<T>, shape, params);
    if (parts <= 1) return launch("layerNorm", registerKernel<T, 1>, shape, params);
    if (parts <= 2) return launch("layerNorm", registerKernel<T, 2>, shape, params);
    if (parts <= 3) return launch("layerNorm", registerKernel<T, 3>, shape, params);
    if (parts <= 5) return launch("layerNorm", registerKernel<T, 5>, shape, params);
    launch("layerNorm", registerKernel<T, 8>, shape, params);
  });
}

}  // namespace nd::cuda
