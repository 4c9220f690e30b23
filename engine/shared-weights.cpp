#include "engine/shared-weights.h"

#include <algorithm>
#include <unordered_map>

namespace nd {

struct SharedWeight::Slot {
  std::mutex mutex;
  std::weak_ptr<const Weight> weight;
};

/// Slots of weights that nobody uses any more are dropped whenever the table has doubled.
std::shared_ptr<SharedWeight::Slot> SharedWeight::slotOf(const std::string& key) {
  static std::mutex mutex;
  static std::unordered_map<std::string, std::shared_ptr<Slot>> slots;
  static size_t sweepAt = 1024;
  const std::lock_guard lock(mutex);
  if (slots.size() >= sweepAt) {
    // A slot that is in somebody's hands has a second owner, and only this function hands slots out.
    std::erase_if(slots, [](const auto& entry) {
      if (entry.second.use_count() > 1) return false;
      const std::lock_guard last(entry.second->mutex);
      return entry.second->weight.expired();
    });
    sweepAt = std::max<size_t>(1024, 2 * slots.size());
  }
  std::shared_ptr<Slot>& slot = slots[key];
  if (!slot) slot = std::make_shared<Slot>();
  return slot;
}

SharedWeight::SharedWeight(const std::string& key) {
  if (key.empty()) return;
  slot_ = slotOf(key);
  lock_ = std::unique_lock(slot_->mutex);
}

WeightPtr SharedWeight::find() const { return slot_ ? slot_->weight.lock() : nullptr; }

void SharedWeight::put(const WeightPtr& weight) const {
  if (slot_) slot_->weight = weight->weak_from_this();
}

}  // namespace nd
