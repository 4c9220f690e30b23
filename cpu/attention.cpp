// Driver of attention: packs each head's keys and values once, then hands out blocks of queries. Packing is a
// copy of 2 · Lk · d floats per head against 4 · Lq · Lk · d FLOP: with the 77 keys of a prompt 0.4 to
// 1.6 MB a layer, less than a thousandth of a step, so that packed keys are not kept from step to step.
#include <algorithm>

#include "cpu/ceil-div.h"
#include "cpu/cpu-backend.h"

namespace nd {
namespace {

constexpr double kLog2E = 1.44269504088896340736;
// Packed keys and values of as many heads as fit are alive at once (one at least).
constexpr int64_t kPackedFloats = 2 << 20;
// Keys and values of a block, and the state of a task's queries: a share of the L2 cache each.
constexpr int64_t kBlockFloats = 12288, kStateFloats = 16384;
constexpr int64_t kFewFloats = 131072;

/// `keys` rows of k as they are, of v transposed to [d][blockKeys].
void packBlock(const float* k, int64_t kStride, const float* v, int64_t vStride, int64_t keys, int64_t d,
               int64_t blockKeys, float* packedK, float* packedV) {
  for (int64_t j = 0; j < keys; j++) std::copy_n(k + j * kStride, d, packedK + j * d);
  for (int64_t j = 0; j < keys; j++)
    for (int64_t c = 0; c < d; c++) packedV[c * blockKeys + j] = v[j * vStride + c];
}

}  // namespace

void CpuBackend::attention(const AttentionArgs& a) {
  const int64_t lq = a.q.shape[1], lk = a.k.shape[1], d = a.q.shape.last() / a.heads,
                heads = a.q.shape[0] * a.heads;

  // A multiple of the tile height: no short tiles. Fewer keys for wide heads: a block stays in the cache.
  const int64_t wanted = std::clamp<int64_t>(kBlockFloats / d, 64, 256);
  const int64_t blockKeys = std::min(ceilDiv(wanted, k_.mr), ceilDiv(lk, k_.mr)) * k_.mr;
  const int64_t blocks = ceilDiv(lk, blockKeys), headFloats = 2 * blocks * blockKeys * d;
  const int64_t together = std::clamp<int64_t>(kPackedFloats / headFloats, 1, heads);

  // Panels of queries per task: as many as share a block of keys in the cache, unless threads would be left
  // idle.
  const int64_t panels = ceilDiv(lq, k_.nr), panelFloats = 2 * (d + 1) * k_.nr;
  const int64_t fair = ceilDiv(panels * std::min(together, heads), 4 * pool_.threads());
  const int64_t taskPanels = std::min({panels, fair, std::max<int64_t>(1, kStateFloats / panelFloats)});
  const int64_t taskQueries = taskPanels * k_.nr, tasks = ceilDiv(lq, taskQueries);
  const int64_t rowFloats =
      (blockKeys + d) * static_cast<int64_t>(sizeof(float*)) / static_cast<int64_t>(sizeof(float));
  const int64_t scratchFloats = taskPanels * panelFloats + k_.nr + blockKeys * k_.nr + rowFloats;

  const auto rowOf = [&](const Tensor& t, int64_t head, int64_t i) {
    return t.f32() + (head / a.heads * t.shape[1] + i) * t.stride + head % a.heads * d;
  };
  const bool fewKeys = together * headFloats <= kFewFloats;
  float* const packed = shared_.floats(together * headFloats);

  for (int64_t begin = 0; begin < heads; begin += together) {
    const int64_t count = std::min(together, heads - begin);
    pool_.parallelFor(count * blocks, [&](int64_t task, int) {
      const int64_t head = task / blocks, key = task % blocks * blockKeys;
      float* const packedK = packed + head * headFloats;
      packBlock(rowOf(a.k, begin + head, key), a.k.stride, rowOf(a.v, begin + head, key), a.v.stride,
                std::min(blockKeys, lk - key), d, blockKeys, packedK + key * d,
                packedK + (blocks * blockKeys + key) * d);
    });
    pool_.parallelFor(count * tasks, [&](int64_t task, int thread) {
      // Few keys: all heads of a query block one after the other, they share cache lines of q and y. Many
      // keys: all query blocks of a head, they share its keys and values.
      const int64_t head = fewKeys ? task % count : task / tasks;
      const int64_t query = (fewKeys ? task / count : task % tasks) * taskQueries;
      const float* const packedK = packed + head * headFloats;
      AttentionTask t;
      t.q = rowOf(a.q, begin + head, query), t.qStride = a.q.stride;
      t.queries = static_cast<int>(std::min(taskQueries, lq - query));
      t.firstQuery = query;
      t.k = packedK, t.v = packedK + blocks * blockKeys * d;
      t.keys = lk, t.blockKeys = static_cast<int>(blockKeys);
      t.headDim = static_cast<int>(d);
      t.scale = static_cast<float>(a.scale * kLog2E);
      t.causal = a.causal;
      const int64_t image = (begin + head) / a.heads, of = (begin + head) % a.heads;
      t.bias = a.bias
                   ? a.bias->f32() + (((a.bias->shape[0] == 1 ? 0 : image) * a.heads + of) * lq + query) * lk
                   : nullptr;
      t.biasStride = lk;
      t.y = rowOf(a.y, begin + head, query), t.yStride = a.y.stride;
      t.scratch = scratch_[thread].floats(scratchFloats);
      k_.attentionQueries(t);
    });
  }
}

}  // namespace nd
