#include "engine/arena.h"

#include <algorithm>

#include "engine/backend.h"

namespace nd {

namespace {
constexpr size_t kAlign = 64;
constexpr size_t kSmallestBlock = size_t{16} << 20;  // few blocks, yet a small model stays small
}  // namespace

Arena::~Arena() { free(); }

void* Arena::allocate(size_t bytes) {
  bytes = (std::max<size_t>(bytes, 1) + kAlign - 1) / kAlign * kAlign;
  if (blocks_.empty()) {
    size_t size = 0;
    if (void* range = backend_.reserve(size)) {
      blocks_.push_back({range, size});
      reserved_ = true;
    }
  }
  while (current_ < blocks_.size() && offset_ + bytes > blocks_[current_].size) {
    if (reserved_)
      throw Error(ErrorCode::OutOfMemory, format("Expected %zu MB for activations but this machine has %zu "
                                                 "MB of memory: use a smaller picture or "
                                                 "fewer images at once",
                                                 (offset_ + bytes) >> 20, blocks_[0].size >> 20));
    current_++;
    offset_ = 0;
  }
  if (current_ == blocks_.size()) {
    const size_t size = std::max(bytes, kSmallestBlock);
    blocks_.push_back({backend_.allocate(size), size});
    held_ += size;
    offset_ = 0;
  }
  if (reserved_ && offset_ + bytes > committed_) {
    backend_.commit(blocks_[0].data, offset_ + bytes);
    committed_ = offset_ + bytes;
  }
  void* data = static_cast<char*>(blocks_[current_].data) + offset_;
  offset_ += bytes;
  peak_ = std::max(peak_, reserved_ ? offset_ : held_);
  return data;
}

Tensor Arena::tensor(const Shape& shape) {
  return {allocate(static_cast<size_t>(shape.count()) * backend_.activationBytes()), shape, shape.last()};
}

void Arena::free() {
  for (const Block& b : blocks_) {
    if (reserved_)
      backend_.unreserve(b.data, b.size);
    else
      backend_.deallocate(b.data, b.size);
  }
  blocks_.clear();
  reserved_ = false;
  held_ = peak_ = committed_ = 0;
}

void Arena::trim() {
  expect(current_ == 0 && offset_ == 0, "an arena is trimmed with nothing allocated");
  free();
}

}  // namespace nd
