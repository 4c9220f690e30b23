// wgmma: a warp's quarter of the product is computed when the warp waits for it. Until then its accumulators
// are NaN, and the operands must not change.
#include <cstring>
#include <limits>

#include "cuda/sim/async-state.h"
#include "engine/error.h"

namespace nd::cuda::sim {

static uint32_t field(uint64_t descriptor, int bit) {
  return static_cast<uint32_t>(descriptor >> bit & 0x3fff) * 16;
}

/// Bytes of a swizzled row; 0: no swizzle.
static uint32_t swizzlePitch(uint64_t descriptor) {
  if (descriptor >> 49 & 7)
    report("wgmma descriptor: a base offset, for operands that do not start at a multiple of the swizzle");
  constexpr uint32_t kPitch[] = {0, 128, 64, 32};
  return kPitch[descriptor >> 62];
}

uint32_t operandOffset(uint64_t d, int row, int k) {
  const uint32_t start = field(d, 0), leading = field(d, 16), stride = field(d, 32), pitch = swizzlePitch(d);
  if (pitch == 0)  // 8 × 16-byte core matrices: `leading` apart along K, `stride` along the rows
    return start + row / 8 * stride + row % 8 * 16 + k / 8 * leading;
  const uint32_t address = start + row / 8 * stride + row % 8 * pitch + static_cast<uint32_t>(k) * 2;
  return address ^ ((address >> 7 & (pitch / 16 - 1)) << 4);
}

uint32_t transposedOffset(uint64_t d, int n, int k) {
  const uint32_t start = field(d, 0), leading = field(d, 16), stride = field(d, 32), pitch = swizzlePitch(d);
  if (pitch == 0) report("wgmma descriptor: an N-contiguous operand without swizzle");
  const int across = static_cast<int>(pitch / 2);  // elements of a row
  const uint32_t address = start + n / across * leading + k / 8 * stride + k % 8 * pitch + n % across * 2;
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

/// What shared memory holds: the warp's rows of A (unless in registers) [16, 16], then B [columns, 16] or
/// transposed [16, columns].
static std::vector<uint16_t> operands(const Issue& p) {
  const BlockState& s = state();
  std::vector<uint16_t> values;
  const auto read = [&](uint32_t at) {
    checkOperand(at);
    const size_t end = values.size();
    values.resize(end + 8);
    std::memcpy(&values[end], s.base + at, 16);
  };
  if (!p.words)
    for (int i = 0; i < 16; i++)
      for (int k = 0; k < 16; k += 8) read(operandOffset(p.a, s.current->id / 32 % 4 * 16 + i, k));
  if (p.transposed) {
    for (int k = 0; k < 16; k++)
      for (int n = 0; n < p.columns; n += 8) read(transposedOffset(p.b, n, k));
  } else {
    for (int n = 0; n < p.columns; n++)
      for (int k = 0; k < 16; k += 8) read(operandOffset(p.b, n, k));
  }
  return values;
}

/// Register i of a lane: row and column of the accumulators (PTX's fragment of wgmma.m64nNk16 D).
static size_t place(int lane, int i, int columns) {
  const int row = lane / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + lane % 4 * 2 + i % 2;
  return static_cast<size_t>(row) * columns + column;
}

/// A of all lanes' registers, laid out as mma's.
static std::vector<uint16_t> registersOf(void** lanes) {
  std::vector<uint16_t> a(16 * 16);
  for (int lane = 0; lane < 32; lane++)
    for (int i = 0; i < 4; i++) {
      const uint32_t word = static_cast<Issue*>(lanes[lane])->words[i];
      const int at = (lane / 4 + i % 2 * 8) * 16 + lane % 4 * 2 + i / 2 * 8;
      a[at] = static_cast<uint16_t>(word), a[at + 1] = static_cast<uint16_t>(word >> 16);
    }
  return a;
}

void wgmmaIssue(const Issue& issue, const Site& site) {
  Issue mine = issue;
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
    Product product{first.d, first, {}, operands(first)};
    if (first.words) product.registers = registersOf(lanes);
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
  const int columns = p.issue.columns;
  if (operands(p.issue) != p.operands)
    report("wgmma: its operands in shared memory changed before anybody waited for it");
  const uint16_t* a = p.issue.words ? p.registers.data() : p.operands.data();
  const uint16_t* b = p.operands.data() + (p.issue.words ? 0 : 16 * 16);
  std::vector<float> rows(static_cast<size_t>(16) * columns);  // of B, [16, columns]
  for (int n = 0; n < columns; n++)
    for (int k = 0; k < 16; k++)
      rows[k * columns + n] = p.issue.toFloat(b[p.issue.transposed ? k * columns + n : n * 16 + k]);
  Accumulators& acc = warp.accumulators[p.accumulators];
  for (int m = 0; m < 16; m++) {
    float* to = acc.values.data() + static_cast<size_t>(m) * columns;
    for (int k = 0; k < 16; k++) {
      const float value = p.issue.toFloat(a[m * 16 + k]);
      for (int n = 0; n < columns; n++) to[n] += value * rows[k * columns + n];
    }
  }
  if (--acc.underWay) return;
  for (int lane = 0; lane < 32; lane++)
    for (int r = 0; r < columns / 2; r++) acc.lanes[lane][r] = acc.values[place(lane, r, columns)];
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
