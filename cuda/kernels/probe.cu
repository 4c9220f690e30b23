#include "cuda/kernels/probe.h"

#include "cuda/kernels/tensor-map.h"
#include "cuda/tile/async-copy.h"
#include "cuda/tile/hopper.h"
#include "cuda/tile/mma.h"

namespace nd::cuda {
namespace {

struct PortableParams {
  Global<const Half> a, b, bTransposed;
  Global<float> product, transposedProduct, exchanged, votes;
};

/// One warp.
__global__ void __launch_bounds__(32) portableKernel(const PortableParams p) {
  const auto a = shared<Half>(0, 256), b = shared<Half>(512, 128), bTransposed = shared<Half>(768, 128);
  const int lane = laneId();
  const int row = lane / 2, half = lane % 2 * 8;
  asyncCopy16(a + (row * 16 + half), p.a + (row * 16 + half), row < 15);
  if (lane < 16) asyncCopy16(b + 8 * lane, p.b + 8 * lane, true);
  asyncCommit();
  if (lane < 16) asyncCopy16(bTransposed + 8 * lane, p.bTransposed + 8 * lane, true);
  asyncCommit();
  asyncWait<1>();
  syncWarp();

  uint32_t words[4], columns[2];
  float sums[4] = {}, transposed[4] = {};
  loadMatrix4(words, a + (lane % 16 * 16 + lane / 16 * 8));
  loadMatrix2(columns, b + (lane % 8 * 16 + lane / 8 % 2 * 8));
  multiply16816<Half>(sums, words, columns);
  asyncWait<0>();
  syncWarp();
  loadMatrix2Transposed(columns, bTransposed + lane % 16 * 8);
  multiply16816<Half>(transposed, words, columns);
  for (int i = 0; i < 4; i++) {
    const int at = (lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2;
    p.product[at] = sums[i], p.transposedProduct[at] = transposed[i];
  }
  const auto own = static_cast<float>(lane);
  p.exchanged[lane] = shuffleXor(own, 5);
  p.exchanged[32 + lane] = shuffleDown(own, 3);
  p.exchanged[64 + lane] = shuffle(own, 7);
  const uint32_t votes = ballot(lane % 3 == 0);
  if (lane == 0) p.votes[0] = static_cast<float>(votes % 65536);
}

struct HopperParams {
  TensorMap image, b, v;
  Global<float> first, second;
};
constexpr uint32_t kBox = 64 * 64;  // elements

/// One warpgroup.
__global__ void __launch_bounds__(128) hopperKernel(const __grid_constant__ HopperParams p) {
#if defined(ND_CUDA_SIM) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  const auto a = shared<Half>(0, kBox), b = shared<Half>(kBox * 2, kBox), v = shared<Half>(kBox * 4, kBox);
  const auto arrived = shared<uint64_t>(kBox * 6, 1);
  if (threadIdx.x == 0) {
    mbarrierInit(arrived, 1);
    mbarrierInitFence();
  }
  syncThreads();
  if (threadIdx.x == 0) {
    mbarrierExpect(arrived, kBox * 6);
    tensorLoad(a, p.image, arrived, 0, -1, 1, 0);
    tensorLoad(b, p.b, arrived, 0, 0, 0, 0);
    tensorLoad(v, p.v, arrived, 0, 0, 0, 0);
  }
  mbarrierWait(arrived, 0);
  float first[8][4] = {}, second[8][4] = {};
  wgmmaFence(first);
#pragma unroll
  for (int k = 0; k < 64; k += 16) wgmma<Half, 64>(first, operandDescriptor(a, k), operandDescriptor(b, k));
  wgmmaCommit();
  wgmmaWait<0>(first);
  uint32_t words[4][4];
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int e = 0; e < 4; e++)
      words[i][e] = pack2<Half>(first[2 * i + e / 2][2 * (e % 2)], first[2 * i + e / 2][2 * (e % 2) + 1]);
  wgmmaFence(second);
#pragma unroll
  for (int i = 0; i < 4; i++)
    wgmmaTransposed<Half, 64>(second, words[i], transposedDescriptor(v, 16 * i, kBox * 2));
  wgmmaCommit();
  wgmmaWait<0>(second);
  const int row = static_cast<int>(threadIdx.x) / 32 * 16 + laneId() / 4;
#pragma unroll
  for (int j = 0; j < 8; j++)
#pragma unroll
    for (int e = 0; e < 4; e++) {
      const int at = (row + e / 2 * 8) * 64 + 8 * j + laneId() % 4 * 2 + e % 2;
      p.first[at] = first[j][e], p.second[at] = second[j][e];
    }
#endif
}

Global<const Half> halves(const void* data) { return Global<const Half>(static_cast<const Half*>(data)); }

}  // namespace

void probePortable(const Launch& launch_, const PortableProbe& q) {
  PortableParams p{};
  p.a = halves(q.a), p.b = halves(q.b), p.bTransposed = halves(q.bTransposed);
  p.product = Global<float>(q.product), p.transposedProduct = Global<float>(q.transposedProduct);
  p.exchanged = Global<float>(q.exchanged), p.votes = Global<float>(q.votes);
  launch("probePortable", portableKernel, {1, 32, 1024, launch_.stream}, p);
}

void probeHopper(const Launch& launch_, const HopperProbe& q) {
  HopperParams p{};
  p.image = tensorMap<Half>(q.image, {60, 9, 8, 1}, {128, 128 * 9, 128 * 9 * 8}, {64, 8, 8, 1});
  p.b = tensorMap<Half>(q.b, {64, 64, 1, 1}, {128, 128 * 64, 128 * 64}, {64, 64, 1, 1});
  p.v = tensorMap<Half>(q.v, {64, 64, 1, 1}, {128, 128 * 64, 128 * 64}, {64, 64, 1, 1});
  p.first = Global<float>(q.first), p.second = Global<float>(q.second);
  launch("probeHopper", hopperKernel, {1, 128, kBox * 6 + 8, launch_.stream}, p);
}

}  // namespace nd::cuda
