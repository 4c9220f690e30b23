// Checked accesses to shared memory, and the copies into it that run beside the threads (cp.async).
#include <algorithm>
#include <cstring>

#include "cuda/sim/block-state.h"
#include "engine/error.h"

namespace nd::cuda::sim {

char* sharedBase() { return state().base; }
uint32_t sharedBytes() { return state().bytes; }

uint32_t sharedOffset(const void* at) {
  const BlockState& s = state();
  const auto offset = static_cast<const char*>(at) - s.base;
  if (offset < 0 || offset > static_cast<int64_t>(s.bytes))
    report(format("address %lld of %u bytes of shared memory", static_cast<long long>(offset), s.bytes));
  return static_cast<uint32_t>(offset);
}

static void checkRange(uint32_t offset, uint32_t bytes) {
  const BlockState& s = state();
  if (offset + bytes > s.bytes)
    report(format("shared bytes %u to %u, but the block has %u", offset, offset + bytes, s.bytes));
  if (offset % std::min(bytes, 16u) != 0)
    report(format("shared byte %u is not aligned for an access of %u bytes", offset, bytes));
}

static std::string actorName(int actor) {
  const BlockState& s = state();
  if (actor < s.threads) return format("thread %d", actor);
  return actor == s.actors - 1 ? "the copy engine" : format("wgmma of warp %d", actor - s.threads);
}

static void mark(uint32_t offset, uint32_t bytes, Access access) {
  BlockState& s = state();
  const int me = s.current->id;
  const uint32_t* clock = s.clock(me);
  const auto now = clock[me];
  for (uint32_t i = offset / 2; i < (offset + bytes + 1) / 2; i++) {
    Granule& g = s.shadow.at(i);
    if (g.pending)
      report(
          format("%s shared byte %u, into which an asynchronous copy is under way: nobody has waited for it",
                 access == Access::Read ? "reads" : "writes", 2 * i));
    if (g.writer >= 0 && g.writer != me && g.writeClock > clock[g.writer])
      report(format("%s shared byte %u, which %s wrote without a barrier in between",
                    access == Access::Read ? "reads" : "writes", 2 * i, actorName(g.writer).c_str()));
    if (const Accessor* other = s.shadow.unordered(g, me, clock, access))
      report(format("%s shared byte %u, which %s %s without a barrier in between",
                    access == Access::Read ? "reads" : "writes", 2 * i, actorName(other->thread).c_str(),
                    other->atomic ? "changed" : "read"));
    if (access == Access::Read) {
      s.shadow.add(g, {static_cast<uint16_t>(me), false, now});
      continue;
    }
    if (access == Access::Atomic) {
      s.shadow.add(g, {static_cast<uint16_t>(me), true, now});
    } else {
      s.shadow.forget(g);
      g.writer = static_cast<int16_t>(me), g.writeClock = now;
    }
  }
}

void accessShared(const void* at, uint32_t bytes, Access access) {
  const uint32_t offset = sharedOffset(at);
  checkRange(offset, bytes);
  mark(offset, bytes, access);
}

void copyAsync(void* sharedTo, const void* from, uint32_t size, uint32_t bytes) {
  BlockState& s = state();
  s.progress++;
  Copy copy{sharedOffset(sharedTo), size, {}};
  checkRange(copy.to, size);
  mark(copy.to, size, Access::Write);
  std::memcpy(copy.data, from, bytes);
  std::memset(s.base + copy.to, 0xff, size);
  for (uint32_t i = copy.to / 2; i < (copy.to + size) / 2; i++) s.shadow.at(i).pending = true;
  s.current->open.push_back(copy);
}

void copyCommit() {
  Thread& thread = *state().current;
  thread.groups.push_back(std::move(thread.open));
  thread.open.clear();
}

void copyWait(int pending) {
  BlockState& s = state();
  auto& groups = s.current->groups;
  const int me = s.current->id;
  while (static_cast<int>(groups.size()) > pending) {
    for (const Copy& copy : groups.front()) {
      std::memcpy(s.base + copy.to, copy.data, copy.size);
      for (uint32_t i = copy.to / 2; i < (copy.to + copy.size) / 2; i++) {
        Granule& g = s.shadow.at(i);
        g.pending = false;
        g.writer = static_cast<int16_t>(me), g.writeClock = s.clock(me)[me];
      }
    }
    groups.erase(groups.begin());
  }
}

}  // namespace nd::cuda::sim
