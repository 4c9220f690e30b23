// The blocked loops of GEMM and implicit convolution around the micro-kernel (kernels/gemm.h).
//
//   task (mc rows × some panels): for K block: rows' pointers → for panel: W block → fp32 (L1) → for tile of
//   rows:
//     micro-kernel into the task's accumulators; after the last K block the epilogue writes y
//
// In bfloat16 (kernels/bf16.h, arch/amxbf16.cpp) the rows are rounded once per operation into a copy, the W
// block becomes pairs of bfloat16, and all else is the same: gemm-numbers.h.
//
// Accumulators are a buffer of the thread's own: y is written once, a residual may therefore be y itself, and
// tiles are always whole.
#include "cpu/gemm.h"

#include <algorithm>

#include "cpu/ceil-div.h"
#include "cpu/cpu-backend.h"
#include "cpu/gemm-numbers.h"

namespace nd {

void finishTile(const KernelTable& k, const PackedWeight& w, const GemmOutput& out, const float* acc,
                int64_t m, int64_t step, int rows, int64_t panel) {
  const bool geglu = w.kind == WeightKind::Geglu;
  const int features = geglu ? k.nr / 2 : k.nr;
  const int64_t n = panel * features;
  const float* channels[kMaxTileRows];
  if (out.channelAdd)
    for (int i = 0; i < rows; i++)
      channels[i] = out.channelAdd + (m + i * step) / out.rowsPerImage * out.channelStride + n;
  GemmEpilogue e;
  e.acc = acc;
  e.rows = rows;
  e.columns = static_cast<int>(std::min<int64_t>(features, w.n - n));
  e.bias = out.bias ? out.bias + n : nullptr;
  e.gateBias = geglu && out.bias ? out.bias + w.n + n : nullptr;
  e.channels = out.channelAdd ? channels : nullptr;
  e.residual = out.residual ? out.residual + m * out.residualStride + n : nullptr;
  e.residualStride = step * out.residualStride;
  e.y = out.y + m * out.stride + n;
  e.stride = step * out.stride;
  e.act = out.act;
  (geglu ? k.gegluEpilogue : k.gemmEpilogue)(e);
}

namespace {

/// A thread's buffers, in one allocation.
template <class Numbers>
struct TaskMemory {
  using T = typename Numbers::Element;

  float* accumulators;
  T *block, *zeros, *gathered;
  const T** rows;
  Corner* corners;

  TaskMemory(Scratch& scratch, const Numbers& numbers, int nr, const GemmBlocking& blocking,
             const KPlan& plan) {
    const int64_t beyond = numbers.together() - 1, k = blocking.kc + plan.mostRuns * beyond;
    const int64_t tiles = ceilDiv(blocking.mc, numbers.tileRows());
    const int64_t accumulatorFloats = lines<float>(tiles * numbers.tileRows() * nr * blocking.panels);
    const int64_t blockFloats = lines<T>(k * nr);
    const int64_t zeroFloats = lines<T>(plan.longestRun + beyond);
    const int64_t gatheredFloats = lines<T>(numbers.gathered(blocking.mc, k));
    const int64_t rowFloats = lines<const T*>(blocking.mc * plan.mostRuns);
    const int64_t cornerFloats = lines<Corner>(blocking.mc);
    accumulators = scratch.floats(accumulatorFloats + blockFloats + zeroFloats + gatheredFloats + rowFloats +
                                  cornerFloats);
    float* next = accumulators + accumulatorFloats;
    block = reinterpret_cast<T*>(next);
    zeros = reinterpret_cast<T*>(next += blockFloats);
    gathered = reinterpret_cast<T*>(next += zeroFloats);
    rows = reinterpret_cast<const T**>(next += gatheredFloats);
    corners = reinterpret_cast<Corner*>(next + rowFloats);
    std::fill(zeros, zeros + plan.longestRun + beyond, T{});
  }
};

/// A task of a thread with `numbers`.
template <class Numbers>
class Entered {
 public:
  explicit Entered(const Numbers& numbers) : numbers_(numbers) { numbers_.enter(); }
  ~Entered() { numbers_.leave(); }
  Entered(const Entered&) = delete;
  Entered& operator=(const Entered&) = delete;

 private:
  const Numbers& numbers_;
};

template <class Numbers>
void multiply(const KernelTable& k, const Numbers& numbers, ThreadPool& pool, std::vector<Scratch>& scratch,
              int64_t m, const PackedWeight& weight, const GemmInput& input, const GemmOutput& output) {
  using T = typename Numbers::Element;
  const int64_t mr = numbers.tileRows();
  const GemmBlocking blocking =
      chooseBlocking(mr, k.nr, pool.threads(), m, weight.panels, weight.k, sizeof(T));
  const KPlan plan(input, blocking.kc, numbers.together());
  const int64_t mTasks = ceilDiv(m, blocking.mc);
  const int64_t nTasks = ceilDiv(weight.panels, blocking.panels);

  // Neighbouring tasks share the weights: with few rows those are what has to come from memory.
  pool.parallelFor(mTasks * nTasks, [&](int64_t task, int thread) {
    const int64_t m0 = m * (task % mTasks) / mTasks, count = m * (task % mTasks + 1) / mTasks - m0;
    const int64_t p0 = weight.panels * (task / mTasks) / nTasks,
                  p1 = weight.panels * (task / mTasks + 1) / nTasks;
    // Sizes that differ by at most one: a tile of two rows would run at half speed.
    const int64_t tiles = ceilDiv(count, mr), least = count / tiles, taller = count % tiles;
    const TaskMemory<Numbers> memory(scratch[thread], numbers, k.nr, blocking, plan);
    const Entered<Numbers> entered(numbers);
    if (!input.rows) findCorners(input, m0, count, memory.corners);

    for (size_t b = 0; b < plan.blocks.size(); b++) {
      const KBlock& kb = plan.blocks[b];
      for (int r = 0; r < kb.runs; r++) {
        const Run& run = plan.runs[kb.first + r];
        findRows(input, numbers.pixels(run.source), run, m0, count, memory.corners,
                 static_cast<const T*>(memory.zeros), memory.rows + r * count);
      }
      const auto rowsOfBlock = numbers.operand(plan, kb, memory.rows, count, memory.gathered);

      const bool last = b + 1 == plan.blocks.size();
      for (int64_t p = p0; p < p1; p++) {
        const T* block = numbers.block(weight, p, plan, kb, memory.block);
        for (int64_t t = 0, i0 = 0, rows; t < tiles; t++, i0 += rows) {
          rows = least + (t < taller);
          // One tile's worth where it is finished at once, so that it stays in the L1 cache.
          float* acc = plan.blocks.size() > 1 ? memory.accumulators + ((p - p0) * tiles + t) * mr * k.nr
                                              : memory.accumulators;
          numbers.tile(rowsOfBlock, i0, rows, block, acc, b == 0);
          if (last) finishTile(k, weight, output, acc, m0 + i0, 1, static_cast<int>(rows), p);
        }
      }
    }
  });
}

}  // namespace

void gemm(const KernelTable& k, ThreadPool& pool, std::vector<Scratch>& scratch, int64_t m,
          const PackedWeight& weight, const GemmInput& input, const GemmOutput& output) {
  if (m > 0) multiply(k, Float32(k, input), pool, scratch, m, weight, input, output);
}

void gemmBf16(const KernelTable& k, const Bf16Kernels& bf16, ThreadPool& pool, std::vector<Scratch>& scratch,
              Scratch& shared, int64_t m, const PackedWeight& weight, const GemmInput& input,
              const GemmOutput& output) {
  if (m <= 0) return;
  const int64_t pixels = input.rows ? m : m / (input.outH * input.outW) * input.height * input.width;
  if (bf16.unit.rows > 0)
    multiply(k, Bfloat16Unit(k, bf16, pool, shared, input, pixels), pool, scratch, m, weight, input, output);
  else
    multiply(k, Bfloat16(k, bf16, pool, shared, input, pixels), pool, scratch, m, weight, input, output);
}

}  // namespace nd
