// One simulated thread block: a fiber per thread, barriers, shared memory and the bookkeeping that finds
// errors.
//
// Ordering is checked with vector clocks. Thread t counts its own releases in clock[t][t]; a barrier gives
// every participant the maximum of all clocks. An access to a shared 2-byte granule is ordered after an
// earlier one by thread u at u's time c where clock[t][u] >= c. A write that is not ordered after the last
// write and all reads since, or a read that is not ordered after the last write, is an error: a barrier is
// missing, whether or not this run shows it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <source_location>
#include <string>
#include <vector>

#include "cuda/sim/fiber.h"

namespace nd::cuda::sim {

struct Index {
  unsigned x = 0, y = 0, z = 0;
};

/// Where a synchronising wrapper is called: what a mutation test switches off.
struct Site {
  const char* file = "";
  unsigned line = 0, column = 0;
  const char* what = "";
  bool operator==(const Site& o) const;
};
inline Site siteOf(const std::source_location& at, const char* what) {
  return {at.file_name(), static_cast<unsigned>(at.line()), static_cast<unsigned>(at.column()), what};
}

enum class Order { Forward, Reverse, Shuffled };

/// Applies to every launch; tests change it.
struct Options {
  Order order = Order::Forward;  // of the threads in each round
  uint64_t seed = 1;
  std::optional<Site> disabled;         // this wrapper does nothing
  std::vector<Site>* record = nullptr;  // collects the synchronising call sites that run
};
Options& options();

/// Notes the call site; true where a mutation has switched it off.
bool skipped(const Site&);

/// Throws into the running kernel: nd::Error(Internal) with the kernel, block and thread.
[[noreturn]] void report(const std::string& what);

// What kernels see as threadIdx and so on.
extern Index threadIndex, blockIndex, blockSize, gridSize;

// Shared memory of the running block, by byte offset.
char* sharedBase();
uint32_t sharedBytes();
uint32_t sharedOffset(const void*);
enum class Access : uint8_t { Read, Write, Atomic };
/// Bounds, ordering, copies that are still under way.
void accessShared(const void* at, uint32_t bytes, Access);

/// All threads of a group arrive; the last one runs `execute` over what they brought (in lane order), then
/// all go on. It orders no memory. `site` must be the same for all.
void warpCollective(const Site& site, void* argument, void (*execute)(void** arguments, int count));
int laneIndex();

/// Arrive at barrier `id` and wait for `count` threads (0: the whole block); orders memory.
void barrier(int id, int count, const Site&);
/// The same among the lanes of a warp.
void warpBarrier(const Site&);

// cp.async: `bytes` of source are copied, the rest up to `size` becomes zero, when the issuing thread waits.
void copyAsync(void* sharedTo, const void* from, uint32_t size, uint32_t bytes);
void copyCommit();
/// Until at most `pending` committed groups of this thread are under way.
void copyWait(int pending);

/// The kernel as one call per thread.
using Body = void (*)(const void* kernel);
void runBlocks(const char* name, Index grid, Index block, uint32_t sharedBytes, Body body,
               const void* kernel);

}  // namespace nd::cuda::sim
