// The running block, for the units of the simulator.
#pragma once

#include <string>
#include <vector>

#include "cuda/sim/block.h"
#include "cuda/sim/shadow.h"

namespace nd::cuda::sim {

struct Copy {
  uint32_t to, size;
  uint8_t data[16];
};

struct Thread {
  Fiber fiber;
  Index index;
  int id = 0;
  bool done = false;
  std::vector<std::vector<Copy>> groups;  // committed, oldest first
  std::vector<Copy> open;
};

/// Threads that wait for each other.
struct Meeting {
  Site site;
  std::vector<int> threads;
  std::vector<void*> arguments;
  uint32_t generation = 0;
};

struct BlockState {
  const char* kernel = "";
  const void* call = nullptr;
  Body body = nullptr;
  int threads = 0, alive = 0;
  std::vector<std::unique_ptr<Thread>> pool;
  Thread* current = nullptr;
  // Who acts: the threads, then the warps as readers of operands of wgmma, then the tensor copy engine.
  int actors = 0;
  std::vector<uint32_t> clocks;  // [threads][actors]: what each thread knows
  std::vector<uint32_t> warpClocks;
  uint32_t engineClock = 0;
  std::vector<Meeting> warps, warpBarriers, barriers;
  std::vector<char> shared;
  char* base = nullptr;
  uint32_t bytes = 0;
  Shadow shadow;
  uint64_t progress = 0;  // counts everything but polling
  std::string error;
  bool failed = false;

  uint32_t* clock(int thread) { return clocks.data() + static_cast<size_t>(thread) * actors; }
  uint32_t& warpClock(int warp) { return warpClocks[warp]; }
  /// Everybody in the list learns what the others know, and starts a new time of its own.
  void join(const std::vector<int>& list);
  /// Yields until generation changes.
  void wait(const Meeting& meeting, uint32_t generation);
};
BlockState& state();

}  // namespace nd::cuda::sim
