// The blocked loops of GEMM and implicit convolution around the micro-kernel (kernels/gemm.h).
//
//   task (mc rows × some panels): for K block: rows' pointers → for panel: W block → fp32 (L1) → for tile of
//   rows:
//     micro-kernel into the task's accumulators; after the last K block the epilogue writes y
//
// In bfloat16 (kernels/bf16.h) the rows are rounded once per operation into a copy, the W block becomes pairs
// of bfloat16, and all else is the same.
//
// Accumulators are a buffer of the thread's own: y is written once, a residual may therefore be y itself, and
// tiles are always whole.
#include "cpu/gemm.h"

#include <algorithm>

#include "cpu/cpu-backend.h"

namespace nd {

namespace {

struct Run {
  int ky, kx, source;
  int64_t channel;
  int32_t length;
};
struct KBlock {
  int first, runs;  // of the run list
  int64_t k, length;
};

/// K in order, as runs of at most kc, gathered into blocks of at most kc. Long runs are cut evenly, so that
/// the last block is no stump, and between elements that a dot product takes `together`.
struct KPlan {
  std::vector<Run> runs;
  std::vector<int32_t> lengths;  // of the runs
  std::vector<KBlock> blocks;
  int mostRuns = 0;
  int32_t longestRun = 0;

  KPlan(const GemmInput& in, int64_t kc, int64_t together) {
    const int64_t most = (kc + together - 1) / together;
    for (int ky = 0; ky < in.kernelH; ky++)
      for (int kx = 0; kx < in.kernelW; kx++)
        for (int s = 0; s < 2; s++) {
          const int64_t channels = in.source[s].channels;
          const int64_t groups = (channels + together - 1) / together, pieces = (groups + most - 1) / most;
          for (int64_t i = 0; i < pieces; i++) {
            const int64_t c0 = groups * i / pieces * together;
            const int64_t c1 = std::min(channels, groups * (i + 1) / pieces * together);
            runs.push_back({ky, kx, s, c0, static_cast<int32_t>(c1 - c0)});
          }
        }
    int64_t k = 0;
    for (size_t i = 0; i < runs.size(); i++) {
      if (blocks.empty() || blocks.back().length + runs[i].length > kc)
        blocks.push_back({static_cast<int>(i), 0, k, 0});
      blocks.back().runs++;
      blocks.back().length += runs[i].length;
      k += runs[i].length;
      lengths.push_back(runs[i].length);
      mostRuns = std::max(mostRuns, blocks.back().runs);
      longestRun = std::max(longestRun, runs[i].length);
    }
  }
};

/// Top left corner of output pixel m's kernel.
struct Corner {
  int32_t y, x;
  int64_t image;  // its first pixel
};

void findCorners(const GemmInput& in, int64_t m0, int64_t count, Corner* corners) {
  const int64_t perImage = in.outH * in.outW;
  int64_t image = m0 / perImage, oy = m0 % perImage / in.outW, ox = m0 % in.outW;
  for (int64_t i = 0; i < count; i++) {
    corners[i] = {static_cast<int32_t>(oy * in.stride - in.padTop),
                  static_cast<int32_t>(ox * in.stride - in.padLeft), image * in.height * in.width};
    if (++ox == in.outW) {
      ox = 0;
      if (++oy == in.outH) oy = 0, image++;
    }
  }
}

/// A coordinate beyond [0, size) from the other side.
uint64_t wrapped(uint64_t coordinate, uint64_t size) {
  const int64_t rest = static_cast<int64_t>(coordinate) % static_cast<int64_t>(size);
  return rest < 0 ? rest + size : rest;
}

/// A source's pixels as the micro-kernel reads them.
template <class T>
struct Pixels {
  const T* data = nullptr;
  int64_t stride = 0;
};

/// Where `run` begins in each of the rows; outside the image it reads zeros, or the other side.
template <class T>
void findRows(const GemmInput& in, const Pixels<T>& pixels, const Run& run, int64_t m0, int64_t count,
              const Corner* corners, const T* zeros, const T** rows) {
  const T* data = pixels.data + run.channel;
  if (in.rows) {
    for (int64_t i = 0; i < count; i++) rows[i] = data + (m0 + i) * pixels.stride;
    return;
  }
  const uint64_t height = in.mapY.size(), width = in.mapX.size();
  for (int64_t i = 0; i < count; i++) {
    // A negative coordinate is a huge unsigned one.
    uint64_t y = static_cast<int64_t>(corners[i].y) + run.ky, x = static_cast<int64_t>(corners[i].x) + run.kx;
    if (in.wrapY) y = wrapped(y, height);
    if (in.wrapX) x = wrapped(x, width);
    const bool inside = y < height && x < width;
    rows[i] = inside ? data + (corners[i].image + in.mapY[y] * in.width + in.mapX[x]) * pixels.stride : zeros;
  }
}

/// Floats of whole cache lines that hold `count` elements of T.
template <class T>
int64_t lines(int64_t count) {
  return (count * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 16;
}

/// A thread's buffers, in one allocation.
template <class T>
struct TaskMemory {
  float* accumulators;
  T *block, *zeros;
  const T** rows;
  Corner* corners;

  TaskMemory(Scratch& scratch, const KernelTable& k, const GemmBlocking& blocking, const KPlan& plan,
             int64_t together) {
    const int64_t accumulatorFloats = lines<float>(blocking.mc * k.nr * blocking.panels);
    const int64_t blockFloats = lines<T>((blocking.kc + plan.mostRuns * (together - 1)) * k.nr);
    const int64_t zeroFloats = lines<T>(plan.longestRun + together - 1);
    const int64_t rowFloats = lines<const T*>(blocking.mc * plan.mostRuns);
    const int64_t cornerFloats = lines<Corner>(blocking.mc);
    accumulators = scratch.floats(accumulatorFloats + blockFloats + zeroFloats + rowFloats + cornerFloats);
    float* next = accumulators + accumulatorFloats;
    block = reinterpret_cast<T*>(next);
    zeros = reinterpret_cast<T*>(next += blockFloats);
    rows = reinterpret_cast<const T**>(next += zeroFloats);
    corners = reinterpret_cast<Corner*>(next + rowFloats);
    std::fill(zeros, zeros + plan.longestRun + together - 1, T{});
  }
};

/// Tile i of `tiles` over `count` rows: sizes that differ by at most one, as a tile of two rows would run at
/// half speed.
int64_t tileStart(int64_t count, int64_t tiles, int64_t i) { return count * i / tiles; }

constexpr int64_t kLine = 64;  // bytes of a cache line

/// A stretch of a weight that will be needed next. Every tile asks for its share: the hardware does not see
/// where the next panel's block begins.
class Lines {
 public:
  Lines(const PackedWeight& weight, int64_t index, int64_t count)
      : from_(weight.element(index)), lines_(count * weight.elementBytes() / kLine) {}
  void prefetch(int64_t share, int64_t shares) const {
    for (int64_t i = lines_ * share / shares; i < lines_ * (share + 1) / shares; i++)
      __builtin_prefetch(from_ + i * kLine);
  }

 private:
  const uint8_t* from_;
  int64_t lines_;
};

void prefetchTile(const float* acc, int64_t floats) {
  for (int64_t i = 0; i < floats; i += kLine / static_cast<int64_t>(sizeof(float)))
    __builtin_prefetch(acc + i, 1);
}

/// What finishTile() will read and write: while the tile is computed it comes from memory.
void prefetchOutput(const KernelTable& k, const PackedWeight& w, const GemmOutput& out, int64_t m, int rows,
                    int64_t panel) {
  const int64_t n = panel * (w.kind == WeightKind::Geglu ? k.nr / 2 : k.nr);
  for (int64_t i = m; i < m + rows; i++) {
    __builtin_prefetch(out.y + i * out.stride + n, 1);
    if (out.residual && out.residual != out.y) __builtin_prefetch(out.residual + i * out.residualStride + n);
  }
}

/// Products of float32.
class Float32 {
 public:
  using Element = float;
  static constexpr int kTogether = 1;  // elements of K that a dot product takes

  Float32(const KernelTable& k, const GemmInput& in) : k_(k) {
    for (int s = 0; s < 2; s++) pixels_[s] = {in.source[s].data, in.source[s].stride};
  }
  const Pixels<float>& pixels(int source) const { return pixels_[source]; }

  /// One block of one panel: where it is stored so, else in `to`.
  const float* block(const PackedWeight& w, int64_t panel, const KPlan&, const KBlock& block,
                     float* to) const {
    const int64_t element = (panel * w.k + block.k) * k_.nr;
    if (w.format == WeightFormat::F32) return reinterpret_cast<const float*>(w.element(element));
    widen(k_, w, element, block.length * k_.nr, to);
    return to;
  }

  void tile(int rows, const GemmTile& t) const { k_.gemmTile[rows - 1](t); }

 private:
  const KernelTable& k_;
  Pixels<float> pixels_[2];
};

/// Products of bfloat16.
class Bfloat16 {
 public:
  using Element = uint16_t;
  static constexpr int kTogether = 2;

  /// Rounds the sources' `pixels` pixels into `copy`, with rows that hold whole pairs.
  Bfloat16(const KernelTable& k, const Bf16Kernels& bf16, ThreadPool& pool, Scratch& copy,
           const GemmInput& in, int64_t pixels)
      : k_(k), bf16_(bf16) {
    int64_t floats[2];
    for (int s = 0; s < 2; s++) {
      pixels_[s].stride = (in.source[s].channels + 1) / 2 * 2;
      floats[s] = lines<uint16_t>(pixels * pixels_[s].stride);
    }
    float* const memory = copy.floats(floats[0] + floats[1]);
    for (int s = 0; s < 2; s++) {
      const GemmInput::Source& source = in.source[s];
      if (source.channels == 0) continue;
      auto* const to = reinterpret_cast<uint16_t*>(memory + (s ? floats[0] : 0));
      const int64_t stride = pixels_[s].stride, tasks = std::min<int64_t>(pixels, 4 * pool.threads());
      pool.parallelFor(tasks, [&](int64_t task, int) {
        for (int64_t i = pixels * task / tasks, end = pixels * (task + 1) / tasks; i < end; i++)
          bf16_.roundRow(source.data + i * source.stride, to + i * stride, source.channels);
      });
      pixels_[s].data = to;
    }
  }
  const Pixels<uint16_t>& pixels(int source) const { return pixels_[source]; }

  /// One block of one panel as pairs, run by run: a pair never spans two runs.
  const uint16_t* block(const PackedWeight& w, int64_t panel, const KPlan& plan, const KBlock& block,
                        uint16_t* to) const {
    int64_t k = panel * w.k + block.k;
    uint16_t* next = to;
    for (int r = 0; r < block.runs; r++) {
      const int64_t length = plan.lengths[block.first + r];
      bf16_.pairRows(w.element(k * k_.nr), w.format, length, next);
      k += length;
      next += (length + 1) / 2 * 2 * k_.nr;
    }
    return to;
  }

  void tile(int rows, const Bf16Tile& t) const { bf16_.gemmTile[rows - 1](t); }

 private:
  const KernelTable& k_;
  const Bf16Kernels& bf16_;
  Pixels<uint16_t> pixels_[2];
};

void finishTile(const KernelTable& k, const PackedWeight& w, const GemmOutput& out, const float* acc,
                int64_t m, int rows, int64_t panel) {
  const bool geglu = w.kind == WeightKind::Geglu;
  const int features = geglu ? k.nr / 2 : k.nr;
  const int64_t n = panel * features;
  const float* channels[kMaxMr];
  if (out.channelAdd)
    for (int i = 0; i < rows; i++)
      channels[i] = out.channelAdd + (m + i) / out.rowsPerImage * out.channelStride + n;
  GemmEpilogue e;
  e.acc = acc;
  e.rows = rows;
  e.columns = static_cast<int>(std::min<int64_t>(features, w.n - n));
  e.bias = out.bias ? out.bias + n : nullptr;
  e.gateBias = geglu && out.bias ? out.bias + w.n + n : nullptr;
  e.channels = out.channelAdd ? channels : nullptr;
  e.residual = out.residual ? out.residual + m * out.residualStride + n : nullptr;
  e.residualStride = out.residualStride;
  e.y = out.y + m * out.stride + n;
  e.stride = out.stride;
  e.act = out.act;
  (geglu ? k.gegluEpilogue : k.gemmEpilogue)(e);
}

template <class Numbers>
void multiply(const KernelTable& k, const Numbers& numbers, ThreadPool& pool, std::vector<Scratch>& scratch,
              int64_t m, const PackedWeight& weight, const GemmInput& input, const GemmOutput& output) {
  using T = typename Numbers::Element;
  const GemmBlocking blocking = chooseBlocking(k, pool.threads(), m, weight.panels, weight.k, sizeof(T));
  const KPlan plan(input, blocking.kc, Numbers::kTogether);
  const int64_t mTasks = (m + blocking.mc - 1) / blocking.mc;
  const int64_t nTasks = (weight.panels + blocking.panels - 1) / blocking.panels;

  // Neighbouring tasks share the weights: with few rows those are what has to come from memory.
  pool.parallelFor(mTasks * nTasks, [&](int64_t task, int thread) {
    const int64_t m0 = m * (task % mTasks) / mTasks, count = m * (task % mTasks + 1) / mTasks - m0;
    const int64_t p0 = weight.panels * (task / mTasks) / nTasks,
                  p1 = weight.panels * (task / mTasks + 1) / nTasks;
    const int64_t tiles = (count + k.mr - 1) / k.mr;
    const TaskMemory<T> memory(scratch[thread], k, blocking, plan, Numbers::kTogether);
    if (!input.rows) findCorners(input, m0, count, memory.corners);

    for (size_t b = 0; b < plan.blocks.size(); b++) {
      const KBlock& kb = plan.blocks[b];
      for (int r = 0; r < kb.runs; r++) {
        const Run& run = plan.runs[kb.first + r];
        findRows(input, numbers.pixels(run.source), run, m0, count, memory.corners,
                 static_cast<const T*>(memory.zeros), memory.rows + r * count);
      }

      const bool last = b + 1 == plan.blocks.size();
      for (int64_t p = p0; p < p1; p++) {
        const T* block = numbers.block(weight, p, plan, kb, memory.block);
        const int64_t nextPanel = p + 1 < p1 ? p + 1 : p0;
        const KBlock& nextBlock = p + 1 < p1 || last ? kb : plan.blocks[b + 1];
        const Lines next(weight, (nextPanel * weight.k + nextBlock.k) * k.nr, nextBlock.length * k.nr);

        for (int64_t t = 0; t < tiles; t++) {
          const int64_t i0 = tileStart(count, tiles, t);
          const int rows = static_cast<int>(tileStart(count, tiles, t + 1) - i0);
          // One tile's worth where it is finished at once, so that it stays in the L1 cache.
          float* acc = plan.blocks.size() > 1 ? memory.accumulators + ((p - p0) * count + i0) * k.nr
                                              : memory.accumulators;
          next.prefetch(t, tiles);
          if (last) prefetchOutput(k, weight, output, m0 + i0, rows, p);
          if (b > 0) prefetchTile(acc, rows * k.nr);
          numbers.tile(
              rows, {memory.rows + i0, count, plan.lengths.data() + kb.first, kb.runs, block, acc, b == 0});
          if (last) finishTile(k, weight, output, acc, m0 + i0, rows, p);
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
  const Bfloat16 numbers(k, bf16, pool, shared, input, pixels);
  multiply(k, numbers, pool, scratch, m, weight, input, output);
}

}  // namespace nd
