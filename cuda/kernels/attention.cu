// y[i] = Σ_j softmax_j(scale · q_i · k_j + bias_ij) v_j per head: q [B, Lq, heads·d], k and v [B, Lk,
// heads·d] → y [B, Lq, heads·d].
//
// A block has a tile of queries in shared memory and walks over tiles of keys. A warp keeps 16 (or 32) rows
// of scores, their running maxima and sums, and the rows of y in registers; the weights of a tile go from the
// accumulators of q kᵀ straight into the operands of the product with v. While scores are computed the values
// arrive, and while values are multiplied the next keys do (cp.async): two barriers per tile of keys.
//
// A width d is computed as d rounded up to 16 for q kᵀ and to 8 for the product with v: 40 costs 48 and 40,
// not 64. Width 512 (the VAE) divides the columns of y among two warps, each of which computes the scores for
// itself: 1.5 times the products.
//
// Bounds: 4·B·heads·Lq·Lk·d FLOP at the rate of mma.sync, or B·heads·Lq·Lk exponentials at 16 per clock and
// multiprocessor (H200: 3.9 T/s, the tighter bound for d = 40 and close to it for 64). Not yet measured.
#include "cuda/kernels/attention-hopper.h"

#include <algorithm>

#include "cuda/tile/async-copy.h"
#include "cuda/tile/mma.h"

namespace nd::cuda {
namespace {

/// The shape of a block for head widths up to kWidth.
template <int kWidth_, int kKeys_, int kWarps_, int kRowTiles_, int kGroups_ = 1>
struct Plan {
  static constexpr int kWidth = kWidth_;                  // multiple of 8
  static constexpr int kDepth = (kWidth + 15) / 16 * 16;  // of q kᵀ
  static constexpr int kKeys = kKeys_;                    // of a tile
  static constexpr int kWarps = kWarps_,
                       kGroups = kGroups_;      // warps that share rows and divide the columns of y
  static constexpr int kRowTiles = kRowTiles_;  // 16 queries each, per warp
  static constexpr int kQueries = kWarps / kGroups * kRowTiles * 16;
  static constexpr int kThreads = kWarps * 32;
  static constexpr int kPitch = kDepth + 8;  // elements; an odd number of 16-byte chunks: no bank conflicts
  static constexpr int kColumnTiles = kWidth / kGroups / 8;  // of a warp
  static constexpr uint32_t kBytes = (kQueries + 2 * kKeys) * kPitch * 2;
  static constexpr bool kBiased = false;
};
/// Kernels of their own, so that the others have the registers.
template <class P>
struct Biased : P {
  static constexpr bool kBiased = true;
};

/// Rows first to first + kRows − 1 of one head, zero beyond `rows` and beyond column d.
template <class P, int kRows, class T>
ND_DEVICE void loadRows(const AttentionParams<T>& p, Shared<T> to, Global<const T> from, int64_t stride,
                        int first, int rows) {
  constexpr int kChunks = P::kDepth / 8;
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kChunks; i += P::kThreads) {
    const int row = i / kChunks, column = i % kChunks * 8;
    const bool inside = first + row < rows && column < p.d;
    const Global<const T> source = from + (inside ? (first + row) * stride + column : 0);
    const Shared<T> target = to + (row * P::kPitch + column);
    if (p.wide) {
      asyncCopy16(target, source, inside);
    } else {
      for (int j = 0; j < 8; j++) target[j] = inside && column + j < p.d ? source[j] : fromFloat<T>(0);
    }
  }
}

/// Scores of a warp's rows with a tile of keys. Groups of 16 keys from `keys` on are left out.
template <class P, class T>
ND_DEVICE void scoreTile(float (&s)[P::kRowTiles][P::kKeys / 8][4], Shared<const T> q, Shared<const T> k,
                         int keys) {
  const int lane = laneId();
#pragma unroll
  for (int i = 0; i < P::kRowTiles; i++)
#pragma unroll
    for (int j = 0; j < P::kKeys / 8; j++)
#pragma unroll
      for (int e = 0; e < 4; e++) s[i][j][e] = 0;
#pragma unroll
  for (int step = 0; step < P::kDepth / 16; step++) {
    uint32_t a[P::kRowTiles][4];
#pragma unroll
    for (int i = 0; i < P::kRowTiles; i++)
      loadMatrix4(a[i], q + ((16 * i + lane % 16) * P::kPitch + 16 * step + lane / 16 * 8));
#pragma unroll
    for (int j = 0; j < P::kKeys / 8; j += 2) {
      if (8 * j >= keys) continue;
      uint32_t b[4];
      loadMatrix4(b, k + ((8 * j + lane / 16 * 8 + lane % 8) * P::kPitch + 16 * step + lane / 8 % 2 * 8));
      const uint32_t first[2] = {b[0], b[1]}, second[2] = {b[2], b[3]};
#pragma unroll
      for (int i = 0; i < P::kRowTiles; i++) {
        multiply16816<T>(s[i][j], a[i], first);
        multiply16816<T>(s[i][j + 1], a[i], second);
      }
    }
  }
}

/// o += weights · v for a warp's rows and columns.
template <class P, class T>
ND_DEVICE void valueTile(float (&o)[P::kRowTiles][P::kColumnTiles][4],
                         const float (&s)[P::kRowTiles][P::kKeys / 8][4], Shared<const T> v, int keys) {
  const int lane = laneId();
#pragma unroll
  for (int step = 0; step < P::kKeys / 16; step++) {
    if (16 * step >= keys) continue;
    uint32_t a[P::kRowTiles][4];
#pragma unroll
    for (int i = 0; i < P::kRowTiles; i++) weightOperand<T>(a[i], s[i][2 * step], s[i][2 * step + 1]);
    const Shared<const T> row = v + (16 * step + lane % 16) * P::kPitch;
#pragma unroll
    for (int j = 0; j + 1 < P::kColumnTiles; j += 2) {
      uint32_t b[4];
      loadMatrix4Transposed(b, row + (8 * j + lane / 16 * 8));
      const uint32_t first[2] = {b[0], b[1]}, second[2] = {b[2], b[3]};
#pragma unroll
      for (int i = 0; i < P::kRowTiles; i++) {
        multiply16816<T>(o[i][j], a[i], first);
        multiply16816<T>(o[i][j + 1], a[i], second);
      }
    }
    if constexpr (P::kColumnTiles % 2 != 0) {
      uint32_t b[2];
      loadMatrix2Transposed(b, row + 8 * (P::kColumnTiles - 1));
#pragma unroll
      for (int i = 0; i < P::kRowTiles; i++) multiply16816<T>(o[i][P::kColumnTiles - 1], a[i], b);
    }
  }
}

/// Grid: (tiles of queries, heads, batch).
template <class P, class T>
__global__ void __launch_bounds__(P::kThreads) attentionKernel(const AttentionParams<T> p) {
  const auto q = shared<T>(0, P::kQueries * P::kPitch);
  const auto k = shared<T>(P::kQueries * P::kPitch * 2, P::kKeys * P::kPitch);
  const auto v = shared<T>((P::kQueries + P::kKeys) * P::kPitch * 2, P::kKeys * P::kPitch);
  const int warp = static_cast<int>(threadIdx.x / 32), lane = laneId();
  const int q0 = static_cast<int>(blockIdx.x) * P::kQueries, head = static_cast<int>(blockIdx.y) * p.d;
  const auto batch = static_cast<int64_t>(blockIdx.z);
  const Global<const T> keys = p.k + (batch * p.lk * p.kStride + head),
                        values = p.v + (batch * p.lk * p.vStride + head);
  const int rows = warp / P::kGroups * P::kRowTiles * 16;            // the warp's first query
  const int columns = warp % P::kGroups * (P::kWidth / P::kGroups);  // and column of y
  const int seen = p.causal ? min(q0 + P::kQueries, p.lk) : p.lk;  // no query of the block sees a key beyond

  loadRows<P, P::kQueries>(p, q, p.q + (batch * p.lq * p.qStride + head), p.qStride, q0, p.lq);
  loadRows<P, P::kKeys>(p, k, keys, p.kStride, 0, p.lk);
  asyncCommit();

  float o[P::kRowTiles][P::kColumnTiles][4] = {};
  float maximum[P::kRowTiles][2], sum[P::kRowTiles][2];
#pragma unroll
  for (int i = 0; i < P::kRowTiles; i++) maximum[i][0] = maximum[i][1] = -INFINITY, sum[i][0] = sum[i][1] = 0;

  for (int key = 0; key < seen; key += P::kKeys) {
    asyncWait<0>();
    syncThreads();  // the keys are there, and nobody needs the last values any more
    loadRows<P, P::kKeys>(p, v, values, p.vStride, key, p.lk);
    asyncCommit();
    float s[P::kRowTiles][P::kKeys / 8][4];
    scoreTile<P, T>(s, q + rows * P::kPitch, k, seen - key);
    asyncWait<0>();
    syncThreads();  // the values are there, and nobody needs these keys any more
    if (key + P::kKeys < seen) loadRows<P, P::kKeys>(p, k, keys, p.kStride, key + P::kKeys, p.lk);
    asyncCommit();
    if constexpr (P::kBiased) {
      const Global<const float> bias =
          p.bias + (batch * p.biasBatch + static_cast<int64_t>(blockIdx.y) * p.lq * p.lk);
#pragma unroll
      for (int i = 0; i < P::kRowTiles; i++) addBias<P>(p, s[i], bias, q0 + rows + 16 * i + lane / 4, key);
    }
#pragma unroll
    for (int i = 0; i < P::kRowTiles; i++)
      softmaxTile<P>(s[i], o[i], maximum[i], sum[i], p.scale, q0 + rows + 16 * i + lane / 4, key, p.lk,
                     p.causal);
    valueTile<P, T>(o, s, v + columns, seen - key);
  }

#pragma unroll
  for (int i = 0; i < P::kRowTiles; i++)
    storeRows<P>(p, o[i], sum[i], q0 + rows + 16 * i + lane / 4, columns, head, batch);
}

template <class P, class T>
void run(const Launch& launch_, const AttentionParams<T>& p, int64_t heads, int64_t batch) {
  const dim3 grid((p.lq + P::kQueries - 1) / P::kQueries, static_cast<unsigned>(heads),
                  static_cast<unsigned>(batch));
  launch("attention", attentionKernel<P, T>, {grid, P::kThreads, P::kBytes, launch_.stream}, p);
}

/// What a block may have of shared memory: 99 KB on consumer GPUs, at least 163 KB on the large ones.
bool hasLargeShared(int capability) {
  return capability == 80 || capability == 87 || (capability >= 90 && capability < 120);
}

}  // namespace

template <class T>
static void attentionOf(const Launch& launch_, const AttentionArgs& a) {
  AttentionParams<T> p{};
  p.q = Global<const T>(static_cast<const T*>(a.q.data)),
  p.k = Global<const T>(static_cast<const T*>(a.k.data));
  p.v = Global<const T>(static_cast<const T*>(a.v.data)), p.y = Global<T>(static_cast<T*>(a.y.data));
  p.qStride = a.q.stride, p.kStride = a.k.stride, p.vStride = a.v.stride, p.yStride = a.y.stride;
  const int64_t batch = a.q.shape[0], heads = a.heads, d = a.q.shape[2] / heads;
  expect(d <= 512 && a.q.shape[1] < INT32_MAX && a.k.shape[1] < INT32_MAX,
         "attention: head width at most 512");
  p.lq = static_cast<int>(a.q.shape[1]), p.lk = static_cast<int>(a.k.shape[1]), p.d = static_cast<int>(d);
  p.scale = a.scale * 1.44269504f, p.causal = a.causal;
  const auto wide = [&](const Tensor& t) {
    return reinterpret_cast<uintptr_t>(t.data) % 16 == 0 && t.stride % 8 == 0 && d % 8 == 0;
  };
  p.wide = wide(a.q) && wide(a.k) && wide(a.v);
  p.pairs = reinterpret_cast<uintptr_t>(a.y.data) % 4 == 0 && a.y.stride % 2 == 0 && d % 2 == 0;
  if (a.bias) {
    p.bias = Global<const float>(a.bias->f32());
    p.biasBatch = a.bias->shape[0] == 1 ? 0 : heads * p.lq * p.lk;
  }
  if (p.lq == 0 || p.lk == 0 || batch == 0) return;
  if (launch_.capability == 90 && hopperAttentionFits(a)) return attentionHopper<T>(launch_, a, p);

  if (a.bias) {  // text encoders: small
    if (d <= 64) return run<Biased<Plan<64, 32, 4, 1>>>(launch_, p, heads, batch);
    if (d <= 160) return run<Biased<Plan<160, 32, 8, 1>>>(launch_, p, heads, batch);
    return run<Biased<Plan<512, 16, 8, 1, 2>>>(launch_, p, heads, batch);
  }
  // The narrowest that holds the width. 32 rows per warp, where the registers allow it, halve what is read of
  // k and v from shared memory, which 16 rows use as fast as it can be read.
  if (d <= 40) return run<Plan<40, 64, 4, 2>>(launch_, p, heads, batch);
  if (d <= 64) return run<Plan<64, 64, 4, 2>>(launch_, p, heads, batch);
  if (d <= 80) return run<Plan<80, 64, 8, 1>>(launch_, p, heads, batch);
  if (d <= 96) return run<Plan<96, 64, 8, 1>>(launch_, p, heads, batch);
  if (d <= 128) return run<Plan<128, 64, 8, 1>>(launch_, p, heads, batch);
  if (d <= 160) return run<Plan<160, 64, 8, 1>>(launch_, p, heads, batch);
  if (hasLargeShared(launch_.capability)) return run<Plan<512, 32, 8, 1, 2>>(launch_, p, heads, batch);
  run<Plan<512, 16, 8, 1, 2>>(launch_, p, heads, batch);
}

void attention(const Launch& launch_, DType type, const AttentionArgs& args) {
  withType(type, [&](auto zero) { attentionOf<decltype(zero)>(launch_, args); });
}

}  // namespace nd::cuda
