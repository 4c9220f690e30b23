// What is under way in the running block, for the units of the simulator.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "cuda/sim/block-state.h"
#include "cuda/sim/hopper.h"

namespace nd::cuda::sim {

struct Transfer {
  uint32_t to;
  std::vector<uint8_t> data;
};

struct Mbarrier {
  uint32_t count = 0, missing = 0, phase = 0;
  uint64_t expected = 0;
  bool fenced = false;
  int owner = 0;
  std::vector<Transfer> transfers;
  std::vector<uint32_t> joined, released;  // clocks: of this phase's arrivals, of the last complete phase
};

/// Accumulators that unfinished products write: their registers are NaN meanwhile.
struct Accumulators {
  std::vector<float*> lanes;
  int columns = 0, underWay = 0;
  std::vector<float> values;  // [16, columns]
};

struct Product {
  float* accumulators;              // of lane 0: the key
  Issue issue;                      // of lane 0
  std::vector<uint16_t> registers;  // A [16, 16] where it comes in registers
  std::vector<uint16_t>
      operands;  // in shared memory at the time of issue: nobody may change them before the end
};

struct WarpAsync {
  std::map<float*, Accumulators> accumulators;
  std::vector<Product> open;
  std::vector<std::vector<Product>> groups;
  bool fenced = false;
};

struct AsyncState {
  std::map<uint32_t, Mbarrier> mbarriers;
  std::vector<WarpAsync> warps;
  std::vector<uint32_t> fenced;  // per thread: its clock at its last proxy fence
};
AsyncState& asyncState();

}  // namespace nd::cuda::sim
