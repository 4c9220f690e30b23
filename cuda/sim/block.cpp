#include "cuda/sim/block.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <random>

#include "cuda/sim/block-state.h"
#include "cuda/sim/hopper.h"
#include "engine/error.h"

namespace nd::cuda::sim {

Index threadIndex, blockIndex, blockSize, gridSize;

bool Site::operator==(const Site& o) const {
  return line == o.line && column == o.column && std::strcmp(file, o.file) == 0;
}

Options& options() {
  static Options all;
  return all;
}

BlockState& state() {
  static BlockState only;
  return only;
}

bool skipped(const Site& site) {
  Options& o = options();
  if (o.record && std::find(o.record->begin(), o.record->end(), site) == o.record->end())
    o.record->push_back(site);
  return o.disabled && *o.disabled == site;
}

void report(const std::string& what) {
  const BlockState& s = state();
  if (!s.current) throw Error(ErrorCode::Internal, "cuda-sim: " + what);
  const Index& t = s.current->index;
  throw Error(ErrorCode::Internal,
              format("cuda-sim: kernel %s, block (%u, %u, %u), thread (%u, %u, %u): %s", s.kernel,
                     blockIndex.x, blockIndex.y, blockIndex.z, t.x, t.y, t.z, what.c_str()));
}

void BlockState::join(const std::vector<int>& list) {
  static std::vector<uint32_t> joined;
  joined.assign(clock(list[0]), clock(list[0]) + actors);
  // Nobody knows a later time of a thread than the thread itself, so a barrier of all needs no maximum of
  // those.
  const bool all = static_cast<int>(list.size()) == threads;
  for (int t : list) {
    const uint32_t* own = clock(t);
    if (all) joined[t] = own[t];
    for (int u = all ? threads : 0; u < actors; u++) joined[u] = std::max(joined[u], own[u]);
  }
  for (int t : list) {
    std::copy(joined.begin(), joined.end(), clock(t));
    clock(t)[t]++;
  }
}

void BlockState::wait(const Meeting& meeting, uint32_t generation) {
  while (meeting.generation == generation) current->fiber.yield();
}

/// Adds the running thread; true for the last of `count`, who must then finish() the meeting.
static bool arrive(Meeting& meeting, int count, const Site& site, void* argument) {
  BlockState& s = state();
  s.progress++;
  if (meeting.threads.empty()) {
    meeting.site = site;
  } else if (!(meeting.site == site)) {
    report(format("%s at %s:%u, while others of its group wait in %s at %s:%u", site.what, site.file,
                  site.line, meeting.site.what, meeting.site.file, meeting.site.line));
  }
  meeting.threads.push_back(s.current->id);
  meeting.arguments.push_back(argument);
  return static_cast<int>(meeting.threads.size()) == count;
}
static void finish(Meeting& meeting) {
  meeting.threads.clear();
  meeting.arguments.clear();
  meeting.generation++;
}

int laneIndex() { return state().current->id & 31; }
static int warpWidth(int warp) { return std::min(32, state().threads - 32 * warp); }

void warpCollective(const Site& site, void* argument, void (*execute)(void** arguments, int count)) {
  BlockState& s = state();
  const int warp = s.current->id / 32;
  Meeting& meeting = s.warps[warp];
  const uint32_t generation = meeting.generation;
  if (!arrive(meeting, warpWidth(warp), site, argument)) return s.wait(meeting, generation);
  void* ordered[32] = {};
  for (size_t i = 0; i < meeting.threads.size(); i++) ordered[meeting.threads[i] & 31] = meeting.arguments[i];
  execute(ordered, static_cast<int>(meeting.threads.size()));
  finish(meeting);
}

static void meet(Meeting& meeting, int count, const Site& site) {
  BlockState& s = state();
  const uint32_t generation = meeting.generation;
  if (!arrive(meeting, count, site, nullptr)) return s.wait(meeting, generation);
  s.join(meeting.threads);
  finish(meeting);
}

void barrier(int id, int count, const Site& site) {
  if (skipped(site)) return;
  BlockState& s = state();
  if (id < 0 || id > 15) report(format("named barrier %d: there are 16", id));
  if (count % 32 != 0) report(format("a named barrier of %d threads: whole warps only", count));
  meet(s.barriers[id], count ? count : s.threads, site);
}

void warpBarrier(const Site& site) {
  if (skipped(site)) return;
  BlockState& s = state();
  const int warp = s.current->id / 32;
  meet(s.warpBarriers[warp], warpWidth(warp), site);
}

static void threadMain(void* argument) {
  auto* thread = static_cast<Thread*>(argument);
  BlockState& s = state();
  try {
    s.body(s.call);
  } catch (const std::exception& error) {
    s.failed = true;
    s.error = error.what();
  }
  thread->done = true;
  s.alive--;
  s.progress++;
}

static std::string whoWaits() {
  BlockState& s = state();
  const auto describe = [](const Meeting& m, const char* group) {
    return m.threads.empty() ? std::string()
                             : format(" %zu threads wait in %s at %s:%u (%s);", m.threads.size(), m.site.what,
                                      m.site.file, m.site.line, group);
  };
  std::string text;
  for (const Meeting& m : s.barriers) text += describe(m, "barrier");
  for (const Meeting& m : s.warpBarriers) text += describe(m, "warp barrier");
  for (const Meeting& m : s.warps) text += describe(m, "warp");
  return text;
}

static void runBlock(std::mt19937_64& random) {
  BlockState& s = state();
  s.alive = s.threads;
  const int warps = (s.threads + 31) / 32;
  s.actors = s.threads + warps + 1;
  s.clocks.assign(static_cast<size_t>(s.threads) * s.actors, 0);
  s.warpClocks.assign(warps, 1);
  s.engineClock = 0;
  resetAsync();
  s.warps.assign(warps, {});
  s.warpBarriers.assign(warps, {});
  s.barriers.assign(16, {});
  s.shadow.start(s.bytes);
  std::memset(s.base, 0xff, s.bytes);  // NaN in every float type
  std::vector<Thread*> order;
  for (int t = 0; t < s.threads; t++) {
    Thread& thread = *s.pool[t];
    thread.id = t;
    const unsigned id = static_cast<unsigned>(t);
    thread.index = {id % blockSize.x, id / blockSize.x % blockSize.y, id / blockSize.x / blockSize.y};
    thread.done = false;
    thread.groups.clear(), thread.open.clear();
    thread.fiber.prepare(threadMain, &thread);
    s.clock(t)[t] = 1;
    order.push_back(&thread);
  }
  if (options().order == Order::Reverse) std::reverse(order.begin(), order.end());
  while (s.alive) {
    if (options().order == Order::Shuffled) std::shuffle(order.begin(), order.end(), random);
    const uint64_t before = s.progress;
    for (Thread* thread : order) {
      if (thread->done) continue;
      s.current = thread;
      threadIndex = thread->index;
      thread->fiber.resume();
      s.current = nullptr;
      if (s.failed) throw Error(ErrorCode::Internal, s.error);
    }
    if (s.progress == before)
      report(format("kernel %s, block (%u, %u, %u): deadlock, %d of %d threads have ended;%s", s.kernel,
                    blockIndex.x, blockIndex.y, blockIndex.z, s.threads - s.alive, s.threads,
                    whoWaits().c_str()));
  }
}

void runBlocks(const char* name, Index grid, Index block, uint32_t sharedBytes, Body body,
               const void* kernel) {
  static std::mutex one;
  const std::lock_guard lock(one);
  BlockState& s = state();
  s.kernel = name, s.call = kernel, s.body = body;
  s.threads = static_cast<int>(block.x * block.y * block.z);
  s.failed = false, s.error.clear(), s.current = nullptr;
  if (s.threads < 1 || s.threads > 1024) report(format("kernel %s: a block of %d threads", name, s.threads));
  if (sharedBytes > 227 << 10) report(format("kernel %s: %u bytes of shared memory", name, sharedBytes));
  if (!grid.x || !grid.y || !grid.z || grid.y > 65535 || grid.z > 65535)
    report(format("kernel %s: grid (%u, %u, %u)", name, grid.x, grid.y, grid.z));
  while (static_cast<int>(s.pool.size()) < s.threads) s.pool.push_back(std::make_unique<Thread>());
  s.bytes = sharedBytes;
  s.shared.resize(sharedBytes + 2048);
  s.base = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(s.shared.data()) + 1023) / 1024 * 1024);
  gridSize = grid, blockSize = block;
  std::mt19937_64 random(options().seed);
  for (unsigned z = 0; z < grid.z; z++)
    for (unsigned y = 0; y < grid.y; y++)
      for (unsigned x = 0; x < grid.x; x++) {
        blockIndex = {x, y, z};
        runBlock(random);
      }
}

}  // namespace nd::cuda::sim
