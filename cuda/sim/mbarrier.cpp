// mbarriers and tensor copies. A copy poisons its target at once and arrives as late as it may: when somebody
// waits for the phase of its mbarrier that it belongs to.
#include <algorithm>
#include <cstring>
#include <map>

#include "cuda/sim/async-state.h"
#include "cuda/sim/runtime.h"
#include "engine/error.h"

namespace nd::cuda::sim {

AsyncState& asyncState() {
  static AsyncState only;
  return only;
}

void resetAsync() {
  AsyncState& a = asyncState();
  a.mbarriers.clear();
  a.warps.assign((state().threads + 31) / 32, {});
  a.fenced.assign(state().threads, 0);
}

static Mbarrier& mbarrierAt(uint32_t at) {
  accessShared(sharedBase() + at, 8, Access::Read);  // ordered after its init
  const auto found = asyncState().mbarriers.find(at);
  if (found == asyncState().mbarriers.end())
    report(format("no mbarrier was initialised at shared byte %u", at));
  return found->second;
}

void mbarrierInit(uint32_t at, uint32_t count) {
  accessShared(sharedBase() + at, 8, Access::Write);
  BlockState& s = state();
  Mbarrier& m = asyncState().mbarriers[at];
  m = {};
  m.count = m.missing = count;
  m.joined.assign(s.actors, 0), m.released.assign(s.actors, 0);
  m.owner = s.current->id;
}

void mbarrierInitFence() {
  for (auto& [at, m] : asyncState().mbarriers)
    if (m.owner == state().current->id) m.fenced = true;
}

void mbarrierArrive(uint32_t at, uint32_t expectedBytes) {
  Mbarrier& m = mbarrierAt(at);
  BlockState& s = state();
  s.progress++;
  if (m.missing == 0) report(format("one arrival too many in a phase of the mbarrier at shared byte %u", at));
  m.missing--;
  m.expected += expectedBytes;
  uint32_t* clock = s.clock(s.current->id);
  for (int u = 0; u < s.actors; u++) m.joined[u] = std::max(m.joined[u], clock[u]);
  clock[s.current->id]++;
}

/// Ends the phase if everybody has arrived and all bytes are on their way: now they are there.
static void tryComplete(Mbarrier& m, uint32_t at) {
  if (m.missing) return;
  uint64_t bytes = 0;
  for (const Transfer& t : m.transfers) bytes += t.data.size();
  if (bytes > m.expected)
    report(format("%llu bytes arrive at the mbarrier at shared byte %u, which expects %llu",
                  static_cast<unsigned long long>(bytes), at, static_cast<unsigned long long>(m.expected)));
  if (bytes < m.expected) return;
  BlockState& s = state();
  const int engine = s.actors - 1;
  const uint32_t now = ++s.engineClock;
  for (const Transfer& t : m.transfers) {
    std::memcpy(s.base + t.to, t.data.data(), t.data.size());
    for (uint32_t i = t.to / 2; i < (t.to + t.data.size()) / 2; i++) {
      Granule& g = s.shadow.at(i);
      g.pending = false;
      g.writer = static_cast<int16_t>(engine), g.writeClock = now;
    }
  }
  if (!m.transfers.empty()) m.joined[engine] = now;
  m.transfers.clear();
  m.expected = 0, m.missing = m.count;
  m.released = m.joined;
  m.phase++;
  s.progress++;
}

void mbarrierWait(uint32_t at, int parity) {
  BlockState& s = state();
  Mbarrier& m = mbarrierAt(at);
  for (;;) {
    tryComplete(m, at);
    if ((m.phase & 1) != static_cast<uint32_t>(parity)) break;
    s.current->fiber.yield();
  }
  s.progress++;
  uint32_t* clock = s.clock(s.current->id);
  for (int u = 0; u < s.actors; u++)
    if (u != s.current->id) clock[u] = std::max(clock[u], m.released[u]);
}

void proxyFence() {
  BlockState& s = state();
  const int me = s.current->id;
  asyncState().fenced[me] = ++s.clock(me)[me];
}

void checkTensorMap(const TensorMapFields& f) {
  const auto need = [](bool good, const char* what) {
    if (!good) report(std::string("tensor map: ") + what);
  };
  need(reinterpret_cast<uintptr_t>(f.data) % 16 == 0, "the address is a multiple of 16 bytes");
  for (int i = 0; i < 4; i++) {
    need(f.dim[i] >= 1 && f.dim[i] <= uint64_t{1} << 32, "dimensions of 1 to 2^32");
    need(f.box[i] >= 1 && f.box[i] <= 256, "boxes of 1 to 256 elements");
    if (i < 3)
      need(f.stride[i] % 16 == 0 && f.stride[i] < uint64_t{1} << 40, "strides are multiples of 16 bytes");
  }
  need(f.box[0] * f.elementBytes % 16 == 0, "the box's rows are multiples of 16 bytes");
  need(f.swizzleBytes == 0 || f.box[0] * f.elementBytes <= f.swizzleBytes, "the box's rows fit the swizzle");
}

/// Swizzling exchanges 16-byte chunks: bits 4… of the address are xored with bits 7… .
static uint32_t swizzled(uint32_t address, uint32_t bytes) {
  const uint32_t mask = bytes == 128 ? 7 : bytes == 64 ? 3 : bytes == 32 ? 1 : 0;
  return address ^ ((address >> 7 & mask) << 4);
}

void tensorLoad(uint32_t to, const TensorMapFields& f, uint32_t mbarrier,
                const std::array<int, 4>& coordinate) {
  BlockState& s = state();
  Mbarrier& m = mbarrierAt(mbarrier);
  if (!m.fenced) report("a tensor copy uses an mbarrier whose init was not fenced");
  if (to % 128 != 0) report(format("a tensor copy to shared byte %u, which is not a multiple of 128", to));
  const uint32_t rowBytes = f.box[0] * f.elementBytes, bytes = rowBytes * f.box[1] * f.box[2] * f.box[3];
  Transfer t{to, std::vector<uint8_t>(bytes)};
  const Range range = findAllocation(f.data);
  uint32_t line = 0;
  for (uint32_t i3 = 0; i3 < f.box[3]; i3++)
    for (uint32_t i2 = 0; i2 < f.box[2]; i2++)
      for (uint32_t i1 = 0; i1 < f.box[1]; i1++, line++) {
        const int64_t c[4] = {coordinate[0], coordinate[1] + static_cast<int64_t>(i1),
                              coordinate[2] + static_cast<int64_t>(i2),
                              coordinate[3] + static_cast<int64_t>(i3)};
        bool inside = true;
        for (int i = 1; i < 4; i++) inside = inside && c[i] >= 0 && c[i] < static_cast<int64_t>(f.dim[i]);
        for (uint32_t chunk = 0; chunk < rowBytes / 16; chunk++) {
          uint8_t* target =
              t.data.data() + (swizzled(to + line * rowBytes + 16 * chunk, f.swizzleBytes) - to);
          for (uint32_t e = 0; e < 16 / f.elementBytes; e++) {
            const int64_t column = c[0] + chunk * (16 / f.elementBytes) + e;
            uint8_t* element = target + e * f.elementBytes;
            if (!inside || column < 0 || column >= static_cast<int64_t>(f.dim[0])) {
              std::memset(element, 0, f.elementBytes);
              continue;
            }
            const char* from = static_cast<const char*>(f.data) + column * f.elementBytes +
                               c[1] * f.stride[0] + c[2] * f.stride[1] + c[3] * f.stride[2];
            if (from < range.first || from + f.elementBytes > range.end)
              report("a tensor map reaches beyond its allocation");
            std::memcpy(element, from, f.elementBytes);
          }
        }
      }
  for (uint32_t at = 0; at < bytes; at += 16) accessShared(s.base + to + at, 16, Access::Write);
  std::memset(s.base + to, 0xff, bytes);
  for (uint32_t i = to / 2; i < (to + bytes) / 2; i++) s.shadow.at(i).pending = true;
  m.transfers.push_back(std::move(t));
  s.progress++;
}

}  // namespace nd::cuda::sim
