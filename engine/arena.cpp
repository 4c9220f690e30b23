#include "engine/arena.h"

#include <algorithm>

#include "engine/backend.h"

namespace nd {

namespace {
constexpr size_t kAlign = 64;
constexpr size_t kSmallestBlock = size_t{16} << 20;  // few blocks, yet a small model stays small
}  // namespace

Arena::~Arena() {
  for (const Block& b : blocks_) backend_.deallocate(b.data, b.size);
}

void* Arena::allocate(size_t bytes) {
  bytes = (std::max<size_t>(bytes, 1) + kAlign - 1) / kAlign * kAlign;
  while (current_ < blocks_.size() && offset_ + bytes > blocks_[current_].size) {
    current_++;
    offset_ = 0;
  }
  if (current_ == blocks_.size()) {
    const size_t size = std::max(bytes, kSmallestBlock);
    blocks_.push_back({backend_.allocate(size), size});
    held_ += size;
    peak_ = std::max(peak_, held_);
    offset_ = 0;
  }
  void* data = static_cast<char*>(blocks_[current_].data) + offset_;
  offset_ += bytes;
  return data;
}

Tensor Arena::tensor(const Shape& shape) {
  return {allocate(static_cast<size_t>(shape.count()) * backend_.activationBytes()), shape, shape.last()};
}

void Arena::trim() {
  expect(current_ == 0 && offset_ == 0, "an arena is trimmed with nothing allocated");
  for (const Block& b : blocks_) backend_.deallocate(b.data, b.size);
  blocks_.clear();
  held_ = 0;
}

}  // namespace nd
