// wgmma: a warp's quarter of the product is computed when the warp waits for it. Until then its accumulators
// are NaN, and the operands must not change.
#include <cstring>
#include <limits>

#include "cuda/sim/async-state.h"
#include "engine/error.h"

namespace nd::cuda::sim {

uint32_t operandOffset(uint64_t d, int row, int k) {
  const auto field = [&](int bit) { return static_cast<uint32_t>(d >> bit & 0x3fff) * 16; };
  const uint32_t start = field(0), leading = field(16), stride = field(32);
  const auto mode = static_cast<int>(d >> 62);
  if (d >> 49 & 7)
    report("wgmma descriptor: a base offset is for operands that do not start at a multiple of the swizzle");
  if (mode == 0)  // 8 × 16-byte core matrices: `leading` apart along K, `stride` along the rows
    return start + row / 8 * stride + row % 8 * 16 + k / 8 * leading + k % 8 * 2;
  const uint32_t pitch = mode == 1 ? 128 : mode == 2 ? 64 : 32;
  const uint32_t address = start + row / 8 * stride + row % 8 * pitch + static_cast<uint32_t>(k) * 2;
  return address ^ ((address >> 7 & (pitch / 16 - 1)) << 4);
}

static WarpAsync& ownWarp() { return asyncState().warps[state().current->id / 32]; }

void wgmmaFence() {
  warpCollective({"", 0, 0, "wgmma.fence"}, nullptr, [](void**, int) { ownWarp().fenced = true; });
}

/// One 16-byte read of an operand by the asynchronous proxy, on behalf of the warp.
static void checkOperand(uint32_t offset) {
  BlockState& s = state();
  if (offset + 16 > s.bytes) report(format("wgmma reads shared byte %u of %u", offset, s.bytes));
  const int me = s.current->id, warp = s.threads + me / 32;
  const uint32_t* clock = s.clock(me);
  Granule& g = s.shadow.at(offset / 2);
  if (g.pending)
    report(format("wgmma reads shared byte %u, into which a copy is under way: nobody has waited for it",
                  offset));
  if (g.writer >= 0 && g.writer != me && g.writeClock > clock[g.writer])
    report(format("wgmma reads shared byte %u, which was written without a barrier in between", offset));
  if (g.writer >= 0 && g.writer < s.threads && g.writeClock >= asyncState().fenced[g.writer])
    report(format("wgmma reads shared byte %u, which thread %d wrote without fence.proxy.async", offset,
                  g.writer));
  s.shadow.add(g, {static_cast<uint16_t>(warp), false, s.warpClock(me / 32)});
}

/// Rows of A of this warp, then of B: 16 elements each.
static std::vector<uint16_t> operands(const Product& p, bool check) {
  const BlockState& s = state();
  const int first = s.current->id / 32 % 4 * 16;
  std::vector<uint16_t> values(static_cast<size_t>(16 + p.columns) * 16);
  for (int i = 0; i < 16 + p.columns; i++)
    for (int k = 0; k < 16; k += 8) {
      const uint32_t at = i < 16 ? operandOffset(p.a, first + i, k) : operandOffset(p.b, i - 16, k);
      if (check) checkOperand(at);
      std::memcpy(&values[i * 16 + k], s.base + at, 16);
    }
  return values;
}

namespace {
struct Issue {
  float* d;
  uint64_t a, b;
  int columns;
  float (*toFloat)(uint16_t);
};
}  // namespace

/// Register i of a lane: row and column of the accumulators (PTX's fragment of wgmma.m64nNk16 D).
static size_t place(int lane, int i, int columns) {
  const int row = lane / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + lane % 4 * 2 + i % 2;
  return static_cast<size_t>(row) * columns + column;
}

void wgmmaIssue(float* d, int columns, uint64_t a, uint64_t b, float (*toFloat)(uint16_t), const Site& site) {
  Issue mine{d, a, b, columns, toFloat};
  warpCollective(site, &mine, [](void** lanes, int count) {
    if (count != 32) report("wgmma by a warp of less than 32 lanes");
    WarpAsync& warp = ownWarp();
    const auto lane = [&](int i) -> const Issue& { return *static_cast<Issue*>(lanes[i]); };
    const Issue& first = lane(0);
    for (int i = 1; i < 32; i++)
      if (lane(i).a != first.a || lane(i).b != first.b) report("wgmma: the lanes' descriptors differ");
    Accumulators& acc = warp.accumulators[first.d];
    if (acc.underWay == 0) {
      if (!warp.fenced) report("wgmma on registers that were free to change, without wgmma.fence");
      acc.columns = first.columns;
      acc.values.resize(static_cast<size_t>(16) * first.columns);
      acc.lanes.clear();
      for (int i = 0; i < 32; i++) {
        acc.lanes.push_back(lane(i).d);
        for (int r = 0; r < first.columns / 2; r++) {
          acc.values[place(i, r, first.columns)] = lane(i).d[r];
          lane(i).d[r] = std::numeric_limits<float>::quiet_NaN();
        }
      }
    }
    acc.underWay++;
    Product product{first.d, first.a, first.b, first.columns, first.toFloat, {}};
    product.operands = operands(product, true);
    warp.open.push_back(std::move(product));
  });
}

void wgmmaCommit() {
  warpCollective({"", 0, 0, "wgmma.commit_group"}, nullptr, [](void**, int) {
    WarpAsync& warp = ownWarp();
    warp.groups.push_back(std::move(warp.open));
    warp.open.clear();
  });
}

static void complete(WarpAsync& warp, const Product& p) {
  if (operands(p, true) != p.operands)
    report("wgmma: its operands in shared memory changed before anybody waited for it");
  Accumulators& acc = warp.accumulators[p.accumulators];
  std::vector<float> a(16 * 16), b(static_cast<size_t>(16) * p.columns);
  for (int i = 0; i < 16 * 16; i++) a[i] = p.toFloat(p.operands[i]);
  for (int n = 0; n < p.columns; n++)
    for (int k = 0; k < 16; k++) b[k * p.columns + n] = p.toFloat(p.operands[(16 + n) * 16 + k]);
  for (int m = 0; m < 16; m++) {
    float* to = acc.values.data() + static_cast<size_t>(m) * p.columns;
    for (int k = 0; k < 16; k++)
      for (int n = 0; n < p.columns; n++) to[n] += a[m * 16 + k] * b[k * p.columns + n];
  }
  if (--acc.underWay) return;
  for (int lane = 0; lane < 32; lane++)
    for (int r = 0; r < p.columns / 2; r++) acc.lanes[lane][r] = acc.values[place(lane, r, p.columns)];
  warp.accumulators.erase(p.accumulators);
  warp.fenced = false;  // the registers are the program's again
}

void wgmmaWait(int pending) {
  struct Wait {
    int pending;
  } mine{pending};
  warpCollective({"", 0, 0, "wgmma.wait_group"}, &mine, [](void** lanes, int) {
    BlockState& s = state();
    WarpAsync& warp = ownWarp();
    const int pending = static_cast<Wait*>(lanes[0])->pending, index = s.current->id / 32;
    while (static_cast<int>(warp.groups.size()) > pending) {
      const std::vector<Product> group = std::move(warp.groups.front());
      warp.groups.erase(warp.groups.begin());
      for (const Product& p : group) complete(warp, p);
    }
    // Every lane knows that the operands have been read.
    const uint32_t now = s.warpClock(index)++;
    for (int t = 32 * index; t < 32 * index + 32; t++) s.clock(t)[s.threads + index] = now;
  });
}

}  // namespace nd::cuda::sim
