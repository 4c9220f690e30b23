// What is known of every 2-byte granule of a block's shared memory.
#pragma once

#include <cstdint>
#include <vector>

#include "cuda/sim/block.h"

namespace nd::cuda::sim {

struct Accessor {
  uint16_t thread;
  bool atomic;
  uint32_t clock;
};

struct Granule {
  uint32_t stamp = 0;  // of the block that it was last used by: a new block starts from nothing
  uint32_t writeClock = 0;
  int16_t writer = -1;
  bool pending = false;  // the target of a copy that nobody has waited for
  uint8_t count = 0;     // readers (and atomic accesses) since the last write: here, then in `more`
  Accessor first[4];
  int32_t more = -1;
};

class Shadow {
 public:
  void start(uint32_t bytes) {
    if (granules_.size() < bytes / 2 + 1) granules_.resize(bytes / 2 + 1);
    stamp_++;
    more_.clear();
  }
  Granule& at(uint32_t granule) {
    Granule& g = granules_[granule];
    if (g.stamp != stamp_) {
      g = {};
      g.stamp = stamp_;
    }
    return g;
  }
  /// The first access by somebody that is not ordered before a thread with these clocks and conflicts with
  /// its `access`.
  const Accessor* unordered(const Granule& g, int thread, const uint32_t* clock, Access access) const {
    const auto bad = [&](const Accessor& a) {
      if (access == Access::Read && !a.atomic) return false;
      if (access == Access::Atomic && a.atomic) return false;
      return a.thread != thread && a.clock > clock[a.thread];
    };
    for (int i = 0; i < g.count; i++)
      if (bad(g.first[i])) return &g.first[i];
    if (g.more >= 0)
      for (const Accessor& a : more_[g.more])
        if (bad(a)) return &a;
    return nullptr;
  }
  void add(Granule& g, const Accessor& a) {
    for (int i = 0; i < g.count; i++)
      if (g.first[i].thread == a.thread && g.first[i].atomic == a.atomic) {
        g.first[i].clock = a.clock;
        return;
      }
    if (g.count < 4) {
      g.first[g.count++] = a;
      return;
    }
    if (g.more < 0) {
      g.more = static_cast<int32_t>(more_.size());
      more_.emplace_back();
    }
    auto& list = more_[g.more];
    if (!list.empty() && list.back().thread == a.thread && list.back().atomic == a.atomic)
      list.back().clock = a.clock;
    else
      list.push_back(a);
  }
  void forget(Granule& g) {
    g.count = 0;
    if (g.more >= 0) more_[g.more].clear();
  }

 private:
  std::vector<Granule> granules_;
  std::vector<std::vector<Accessor>> more_;
  uint32_t stamp_ = 0;
};

}  // namespace nd::cuda::sim
