// From the accumulators of a warp to finished rows: through shared memory, so that additions and stores are
// 16 bytes wide.
#pragma once

#include "cuda/kernels/matmul-params.h"

namespace nd::cuda {

/// Floats from row to row of the staging area: 8 or 24 mod 32, without bank conflicts.
constexpr int stagingPitch(int columns) {
  return columns % 32 == 0 ? columns + 8 : columns % 32 == 16 ? columns + 24 : columns;
}
/// Of one warp.
constexpr uint32_t stagingBytes(int columns) { return 16 * stagingPitch(columns) * 4; }

/// 16 rows × 8·kColumns sums of a warp, from column n0 of the result on. value(j, e) is the lane's element e
/// (mma's layout) of the j-th 8 columns; rowOf(r) is row r's place in the result, or −1.
template <int kColumns, class T, class Value, class RowOf>
ND_DEVICE void finishRows(const MatmulParams<T>& p, Shared<float> staging, int n0, const Value& value,
                          const RowOf& rowOf) {
  constexpr int kPitch = stagingPitch(8 * kColumns);
  const int lane = laneId();
#pragma unroll
  for (int j = 0; j < kColumns; j++) {
    const int at = lane / 4 * kPitch + 8 * j + lane % 4 * 2;
    store8(staging + at, floatToBits(value(j, 0)), floatToBits(value(j, 1)));
    store8(staging + (at + 8 * kPitch), floatToBits(value(j, 2)), floatToBits(value(j, 3)));
  }
  syncWarp();
#pragma unroll 1
  for (int chunk = lane; chunk < 16 * kColumns; chunk += 32) {
    const int row = chunk / kColumns, column = chunk % kColumns * 8;
    const int m = rowOf(row), n = n0 + column;
    if (m < 0 || n >= p.n) continue;
    const Vec16 low = load16(staging + (row * kPitch + column)),
                high = load16(staging + (row * kPitch + column + 4));
    float v[8];
#pragma unroll
    for (int e = 0; e < 4; e++) v[e] = bitsToFloat(low.w[e]), v[4 + e] = bitsToFloat(high.w[e]);
    if (p.splits == 1) {
      finish8(p, v, m, n);
      continue;
    }
    const auto to = p.partial + ((static_cast<int64_t>(blockIdx.z) * p.phases * p.m + m) * p.n + n);
    if (p.n % 4 == 0 && n + 8 <= p.n) {
      store16(to, low);
      store16(to + 4, high);
    } else {
#pragma unroll
      for (int e = 0; e < 8; e++)
        if (n + e < p.n) to[e] = v[e];
    }
  }
  syncWarp();  // before the next rows overwrite these
}

}  // namespace nd::cuda
