// Sums over warps and blocks, and moments that merge without losing digits.
#pragma once

#include "cuda/tile/platform.h"

namespace nd::cuda {

ND_DEVICE float warpSum(float value) {
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) value += shuffleXor(value, mask);
  return value;
}

/// The sum over the block, to every thread. `scratch` has one entry per warp; blocks are whole warps.
ND_DEVICE float blockSum(float value, Shared<float> scratch) {
  value = warpSum(value);
  const int warps = static_cast<int>(blockDim.x / 32), warp = static_cast<int>(threadIdx.x / 32);
  if (laneId() == 0) scratch[warp] = value;
  syncThreads();
  float sum = 0;
  for (int i = 0; i < warps; i++) sum += scratch[i];
  syncThreads();  // scratch may be used again
  return sum;
}

/// Count, mean and sum of squared deviations of some values (Chan, Golub & LeVeque 1979).
struct Moments {
  float count, mean, squares;
};
ND_DEVICE Moments merge(const Moments& a, const Moments& b) {
  const float count = a.count + b.count;
  if (count == 0) return a;
  const float delta = b.mean - a.mean, share = b.count / count;
  return {count, a.mean + delta * share, a.squares + b.squares + delta * delta * a.count * share};
}
ND_DEVICE Moments warpMerge(Moments m) {
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2)
    m = merge(m, {shuffleXor(m.count, mask), shuffleXor(m.mean, mask), shuffleXor(m.squares, mask)});
  return m;
}

}  // namespace nd::cuda
