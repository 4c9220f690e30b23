// Weights by what they were made of, for all pipelines of this process: the second pipeline of a file uses
// those of the first. They live as long as somebody uses them.
#pragma once

#include <memory>
#include <mutex>
#include <string>

#include "engine/backend.h"

namespace nd {

/// One weight that pipelines may share. While one is alive, others of the same key wait in their constructor:
/// who comes second finds what the first has made. Thread-safe.
class SharedWeight {
 public:
  /// `key`: everything that the laid-out weight depends on; empty: it is not shared.
  explicit SharedWeight(const std::string& key);
  WeightPtr find() const;
  /// Shares the weight itself: who counts it for a pipeline (Backend::adopt) holds on to it no longer.
  void put(const WeightPtr& weight) const;

 private:
  struct Slot;
  static std::shared_ptr<Slot> slotOf(const std::string& key);
  std::shared_ptr<Slot> slot_;
  std::unique_lock<std::mutex> lock_;
};

}  // namespace nd
