// How a matrix product is cut into tasks and blocks.
#include <algorithm>

#include "cpu/ceil-div.h"
#include "cpu/gemm.h"

namespace nd {

namespace {
// A task's rows of one K block are read once per panel: they stay in L2 (512 KB on the smallest CPU that
// matters), and so should its accumulators.
constexpr int64_t kRowBytes = 256 << 10, kAccumulatorBytes = 256 << 10;

// Estimated cycles per k: one row of a tile, widening one row of a panel, fetching one element of A from
// beyond L2. Only their ratios matter.
constexpr double kTileRow = 1, kWiden = 3, kFetch = 0.3;
}  // namespace

/// The cut that a small model of the cost finds fastest: time = rounds of tasks over the threads × cycles of
/// a task, where a task pays for its multiplications, for widening its weights and for fetching its rows. Few
/// rows are cut along N, few panels along M.
GemmBlocking chooseBlocking(int64_t mr, int64_t nr, int threads, int64_t m, int64_t panels, int64_t k,
                            int64_t elementBytes) {
  const int64_t kc = std::min<int64_t>(k, kBlockBytes / (nr * elementBytes));
  const int64_t mcMost = std::max<int64_t>(mr, kRowBytes / (kc * elementBytes) / mr * mr);
  GemmBlocking best{};
  double bestCost = 0;
  const int64_t mTasksLeast = ceilDiv(m, mcMost);
  const int64_t mTasksMost = std::min(ceilDiv(m, mr), 2 * mTasksLeast + 4 * threads);
  for (int64_t mTasks = mTasksLeast; mTasks <= mTasksMost; mTasks++) {
    const int64_t mc = ceilDiv(m, mTasks);
    const int64_t most =
        std::max<int64_t>(1, kAccumulatorBytes / (mc * nr * static_cast<int64_t>(sizeof(float))));
    const int64_t nTasksLeast = ceilDiv(panels, most),
                  nTasksMost = std::min(panels, nTasksLeast + 4 * threads);
    for (int64_t nTasks = nTasksLeast; nTasks <= nTasksMost; nTasks++) {
      const int64_t perTask = ceilDiv(panels, nTasks);
      const int64_t rounds = ceilDiv(mTasks * nTasks, threads);
      const double tileRows = static_cast<double>(ceilDiv(mc, mr) * mr);
      const double cost = static_cast<double>(rounds) *
                          (perTask * (tileRows * kTileRow + kWiden) + static_cast<double>(mc) * kFetch);
      if (best.mc == 0 || cost < bestCost) best = {mc, perTask, kc}, bestCost = cost;
    }
  }
  return best;
}

}  // namespace nd
