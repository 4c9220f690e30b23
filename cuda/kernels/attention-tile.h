// What both attention kernels do with a tile of scores in registers, in the layout of mma's accumulators.
#pragma once

#include "cuda/kernels/attention.h"
#include "cuda/tile/platform.h"

namespace nd::cuda {

template <class T>
struct AttentionParams {
  Global<const T> q, k, v;
  Global<T> y;
  Global<const float> bias;  // [B, heads, lq, lk] or null
  int64_t biasBatch;         // elements from image to image; 0: one for all
  int64_t qStride, kStride, vStride, yStride;
  int lq, lk, d;
  float scale;  // times log2(e): weights are powers of 2
  bool causal;
  bool wide;   // q, k and v allow 16-byte copies
  bool pairs;  // rows of y allow 4-byte stores
};

/// Adds the bias of 16 rows, in units of what the scale makes of a score. `bias` is that of the image and
/// head.
template <class P, class T>
ND_DEVICE void addBias(const AttentionParams<T>& p, float (&s)[P::kKeys / 8][4], Global<const float> bias,
                       int query, int key) {
  const float unit = 1.44269504f / p.scale;
#pragma unroll
  for (int h = 0; h < 2; h++) {
    if (query + 8 * h >= p.lq) continue;
    const Global<const float> row = bias + static_cast<int64_t>(query + 8 * h) * p.lk;
#pragma unroll
    for (int j = 0; j < P::kKeys / 8; j++)
#pragma unroll
      for (int e = 0; e < 2; e++) {
        const int column = key + 8 * j + laneId() % 4 * 2 + e;
        // Where everything is hidden the weights are equal, as they are without the bound.
        if (column < p.lk) s[j][2 * h + e] += fmaxf(row[column] * unit, -1e30f);
      }
  }
}

/// Turns 16 rows of scores into weights under their new maxima, and rescales what was summed under the old
/// ones. A lane has rows g and g + 8: [h] below.
template <class P>
ND_DEVICE void softmaxTile(float (&s)[P::kKeys / 8][4], float (&o)[P::kColumnTiles][4], float (&maximum)[2],
                           float (&sum)[2], float scale, int query, int key, int lk, bool causal) {
  const int t = laneId() % 4;
#pragma unroll
  for (int h = 0; h < 2; h++) {
    const int last = causal ? min(query + 8 * h, lk - 1) : lk - 1;  // key that the row sees
    float most = maximum[h];
#pragma unroll
    for (int j = 0; j < P::kKeys / 8; j++)
#pragma unroll
      for (int e = 0; e < 2; e++) {
        float& value = s[j][2 * h + e];
        value = key + 8 * j + 2 * t + e <= last ? value * scale : -INFINITY;
        most = fmaxf(most, value);
      }
    most = fmaxf(most, shuffleXor(most, 1));
    most = fmaxf(most, shuffleXor(most, 2));
    // The first tile has key 0, which every row sees: the maximum is a number (or the row is NaN, and stays
    // so).
    const float keep = fastExp2(maximum[h] - most);
    maximum[h] = most;
    float total = 0;
#pragma unroll
    for (int j = 0; j < P::kKeys / 8; j++)
#pragma unroll
      for (int e = 0; e < 2; e++) {
        float& value = s[j][2 * h + e];
        value = fastExp2(value - most);
        total += value;
      }
    sum[h] = sum[h] * keep + total;  // of this lane's columns; the lanes add up at the end
#pragma unroll
    for (int j = 0; j < P::kColumnTiles; j++) o[j][2 * h] *= keep, o[j][2 * h + 1] *= keep;
  }
}

/// Divides 16 rows of a warp by their sums and writes them: the lane's rows are query and query + 8, its
/// columns from `column` on.
template <class P, class T>
ND_DEVICE void storeRows(const AttentionParams<T>& p, const float (&o)[P::kColumnTiles][4],
                         const float (&sum)[2], int query, int column, int head, int64_t batch) {
#pragma unroll
  for (int h = 0; h < 2; h++) {
    float total = sum[h];
    total += shuffleXor(total, 1);
    total += shuffleXor(total, 2);
    if (query + 8 * h >= p.lq) continue;
    const Global<T> row = p.y + ((batch * p.lq + query + 8 * h) * p.yStride + head);
    const float scale = 1 / total;
#pragma unroll
    for (int j = 0; j < P::kColumnTiles; j++) {
      const int c = column + 8 * j + laneId() % 4 * 2;
      const float first = o[j][2 * h] * scale, second = o[j][2 * h + 1] * scale;
      if (p.pairs && c + 1 < p.d) {
        store4(row + c, pack2<T>(first, second));
      } else {
        if (c < p.d) row[c] = fromFloat<T>(first);
        if (c + 1 < p.d) row[c + 1] = fromFloat<T>(second);
      }
    }
  }
}

/// The weights of 16 keys as the operand A of mma: accumulators of two times 8 columns.
template <class T>
ND_DEVICE void weightOperand(uint32_t (&a)[4], const float (&first)[4], const float (&second)[4]) {
  a[0] = pack2<T>(first[0], first[1]), a[1] = pack2<T>(first[2], first[3]);
  a[2] = pack2<T>(second[0], second[1]), a[3] = pack2<T>(second[2], second[3]);
}

}  // namespace nd::cuda
