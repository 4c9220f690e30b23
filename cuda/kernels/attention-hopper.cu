// The attention of attention.cu for Hopper: a producer warpgroup whose one thread fetches queries once and
// tiles of keys and values two ahead with tensor copies, and two consumer warpgroups of 64 queries each.
// While one computes exponentials the other's products run. The scores come from wgmma with both operands in
// shared memory; the weights stay in registers as the operand A of the product with the values, which are
// read N-contiguous.
//
// A head's columns are fetched in boxes of 64, whose columns beyond d arrive as zeros; products run over d
// rounded up to 16 (q kᵀ) and to 8 (with v): 40 costs 48 and 40.
//
// Bounds: 4·B·heads·Lq·Lk·d FLOP at 989 TFLOP/s (FlashAttention-3 reaches 476 at d = 64, L = 4096), or
// B·heads·Lq·Lk exponentials at 3.9 T/s: SD1.5 at 512², L = 4096, d = 40, B·heads = 16: 43 GFLOP in 44 µs,
// 268 M exponentials in 69 µs. Not yet measured.
#include "cuda/kernels/attention-hopper.h"

#include "cuda/kernels/tensor-map.h"
#include "cuda/tile/hopper.h"

namespace nd::cuda {
namespace {

constexpr int kQueries = 128, kThreads = 384, kConsumerWarps = 8, kStages = 2;
constexpr int kBoxColumns = 64;

template <class T>
struct HopperParams {
  TensorMap q, k, v;
  AttentionParams<T> common;
};

/// For head widths up to kWidth. Accumulators: kKeys / 2 and kWidth / 2 registers.
template <int kWidth_, int kKeys_>
struct HopperPlan {
  static constexpr int kWidth = kWidth_, kKeys = kKeys_;
  static constexpr int kDepth = (kWidth + 15) / 16 * 16, kColumnTiles = kWidth / 8;
  static constexpr int kBoxes = (kDepth + kBoxColumns - 1) / kBoxColumns;
  static constexpr int kQueryBox = kQueries * kBoxColumns, kKeyBox = kKeys * kBoxColumns;  // elements
  static constexpr uint32_t kQueryBytes = kBoxes * kQueryBox * 2, kKeyBytes = kBoxes * kKeyBox * 2;
  static constexpr uint32_t kBarriers = kQueryBytes + 2 * kStages * kKeyBytes;
  static constexpr uint32_t kBytes = kBarriers + (1 + 4 * kStages) * 8;
};

/// The block's shared memory.
template <class P, class T>
struct Buffers {
  Shared<T> q = shared<T>(0, P::kBoxes* P::kQueryBox);
  Shared<T> k = shared<T>(P::kQueryBytes, kStages* P::kBoxes* P::kKeyBox);
  Shared<T> v = shared<T>(P::kQueryBytes + kStages * P::kKeyBytes, kStages* P::kBoxes* P::kKeyBox);
  Shared<uint64_t> queries = shared<uint64_t>(P::kBarriers, 1);
  Shared<uint64_t> fullK = shared<uint64_t>(P::kBarriers + 8, kStages);
  Shared<uint64_t> fullV = shared<uint64_t>(P::kBarriers + 8 + 8 * kStages, kStages);
  Shared<uint64_t> emptyK = shared<uint64_t>(P::kBarriers + 8 + 16 * kStages, kStages);
  Shared<uint64_t> emptyV = shared<uint64_t>(P::kBarriers + 8 + 24 * kStages, kStages);
};

template <class P, class T>
ND_DEVICE void produce(const HopperParams<T>& p, const Buffers<P, T>& m, int q0, int head, int batch,
                       int seen) {
  mbarrierExpect(m.queries, P::kQueryBytes);
  for (int box = 0; box < P::kBoxes; box++)
    tensorLoad(m.q + box * P::kQueryBox, p.q, m.queries, box * kBoxColumns, head, q0, batch);
  int stage = 0, parity = 1;  // an mbarrier's phase before the first counts as ended
  for (int key = 0; key < seen; key += P::kKeys) {
    mbarrierWait(m.emptyK + stage, parity);
    mbarrierExpect(m.fullK + stage, P::kKeyBytes);
    for (int box = 0; box < P::kBoxes; box++)
      tensorLoad(m.k + (stage * P::kBoxes + box) * P::kKeyBox, p.k, m.fullK + stage, box * kBoxColumns, head,
                 key, batch);
    mbarrierWait(m.emptyV + stage, parity);
    mbarrierExpect(m.fullV + stage, P::kKeyBytes);
    for (int box = 0; box < P::kBoxes; box++)
      tensorLoad(m.v + (stage * P::kBoxes + box) * P::kKeyBox, p.v, m.fullV + stage, box * kBoxColumns, head,
                 key, batch);
    if (++stage == kStages) stage = 0, parity ^= 1;
  }
}

template <class P, class T>
ND_DEVICE void consume(const AttentionParams<T>& p, const Buffers<P, T>& m, int q0, int head, int batch,
                       int seen) {
  const int warp = static_cast<int>(threadIdx.x / 32) - 4, lane = laneId();
  const int query = q0 + warp * 16 + lane / 4;
  const Shared<T> q = m.q + warp / 4 * 64 * kBoxColumns;
  float o[P::kColumnTiles][4], maximum[2] = {-INFINITY, -INFINITY}, sum[2] = {};
#pragma unroll
  for (int i = 0; i < 4 * P::kColumnTiles; i++) o[i / 4][i % 4] = 0;

  mbarrierWait(m.queries, 0);
  int stage = 0, parity = 0;
  for (int key = 0; key < seen; key += P::kKeys) {
    float s[P::kKeys / 8][4];
#pragma unroll
    for (int i = 0; i < P::kKeys / 2; i++) s[i / 4][i % 4] = 0;
    const Shared<T> k = m.k + stage * P::kBoxes * P::kKeyBox, v = m.v + stage * P::kBoxes * P::kKeyBox;
    mbarrierWait(m.fullK + stage, parity);
    wgmmaFence(s);
#pragma unroll
    for (int c = 0; c < P::kDepth; c += 16)
      wgmma<T, P::kKeys>(s, operandDescriptor(q + c / kBoxColumns * P::kQueryBox, c % kBoxColumns),
                         operandDescriptor(k + c / kBoxColumns * P::kKeyBox, c % kBoxColumns));
    wgmmaCommit();
    wgmmaWait<0>(s);
    if (lane == 0) mbarrierArrive(m.emptyK + stage);

    softmaxTile<P>(s, o, maximum, sum, p.scale, query, key, p.lk, p.causal);
    uint32_t weights[P::kKeys / 16][4];
#pragma unroll
    for (int i = 0; i < P::kKeys / 16; i++) weightOperand<T>(weights[i], s[2 * i], s[2 * i + 1]);

    mbarrierWait(m.fullV + stage, parity);
    wgmmaFence(o);
#pragma unroll
    for (int i = 0; i < P::kKeys / 16; i++)
      wgmmaTransposed<T, P::kWidth>(o, weights[i], transposedDescriptor(v, 16 * i, P::kKeyBox * 2));
    wgmmaCommit();
    wgmmaWait<0>(o);
    if (lane == 0) mbarrierArrive(m.emptyV + stage);
    if (++stage == kStages) stage = 0, parity ^= 1;
  }
  storeRows<P>(p, o, sum, query, 0, head * p.d, batch);
}

/// Grid: (tiles of queries, heads, batch).
template <class P, class T>
__global__ void __launch_bounds__(kThreads, 1)
    attentionHopperKernel(const __grid_constant__ HopperParams<T> p) {
#if defined(ND_CUDA_SIM) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  const Buffers<P, T> m;
  if (threadIdx.x == 0) {
    mbarrierInit(m.queries, 1);
    for (int i = 0; i < kStages; i++) {
      mbarrierInit(m.fullK + i, 1), mbarrierInit(m.fullV + i, 1);
      mbarrierInit(m.emptyK + i, kConsumerWarps), mbarrierInit(m.emptyV + i, kConsumerWarps);
    }
    mbarrierInitFence();
  }
  syncThreads();
  const int q0 = static_cast<int>(blockIdx.x) * kQueries, head = static_cast<int>(blockIdx.y);
  const int batch = static_cast<int>(blockIdx.z);
  const int seen = p.common.causal ? min(q0 + kQueries, p.common.lk) : p.common.lk;
  // 40 + 2 · 232 registers are no more than the 3 · 168 that the block starts with.
  if (threadIdx.x < 128) {
    lowerRegisters<40>();
    if (threadIdx.x == 0) produce<P>(p, m, q0, head, batch, seen);
  } else {
    raiseRegisters<232>();
    consume<P>(p.common, m, q0, head, batch, seen);
  }
#endif
}

bool wide(const Tensor& t) { return reinterpret_cast<uintptr_t>(t.data) % 16 == 0 && t.stride % 8 == 0; }

}  // namespace

bool hopperAttentionFits(const AttentionArgs& a) {
  const int64_t d = a.q.shape[2] / a.heads;
  // The text's 77 keys would fill 60% of a tile.
  return !a.bias && d % 8 == 0 && d <= 160 && a.k.shape[1] >= 96 && a.q.shape[1] >= 64 && wide(a.q) &&
         wide(a.k) && wide(a.v);
}

template <class T>
void attentionHopper(const Launch& launch_, const AttentionArgs& a, const AttentionParams<T>& params) {
  const auto run = [&](auto plan) {
    using P = decltype(plan);
    HopperParams<T> p{};
    p.common = params;
    const auto map = [&](const Tensor& t, int rows) {
      const auto row = static_cast<uint64_t>(t.stride) * 2, tokens = static_cast<uint64_t>(t.shape[1]);
      return tensorMap<T>(t.data, {uint64_t(params.d), uint64_t(a.heads), tokens, uint64_t(t.shape[0])},
                          {uint64_t(params.d) * 2, row, row * tokens}, {kBoxColumns, 1, uint32_t(rows), 1});
    };
    p.q = map(a.q, kQueries), p.k = map(a.k, P::kKeys), p.v = map(a.v, P::kKeys);
    const dim3 grid((params.lq + kQueries - 1) / kQueries, static_cast<unsigned>(a.heads),
                    static_cast<unsigned>(a.q.shape[0]));
    launch("attentionHopper", attentionHopperKernel<P, T>, {grid, kThreads, P::kBytes, launch_.stream}, p);
  };
  if (params.d <= 40) return run(HopperPlan<40, 128>());
  if (params.d <= 64) return run(HopperPlan<64, 128>());
  if (params.d <= 80) return run(HopperPlan<80, 128>());
  if (params.d <= 128) return run(HopperPlan<128, 128>());
  run(HopperPlan<160, 64>());  // two stages of 128 keys would not fit
}
template void attentionHopper(const Launch&, const AttentionArgs&, const AttentionParams<Half>&);
template void attentionHopper(const Launch&, const AttentionArgs&, const AttentionParams<Bfloat>&);

}  // namespace nd::cuda
