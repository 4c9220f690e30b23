// A stack of backend memory: allocate upwards, release back to a mark. Models run over one arena, so that
// every step of the loop touches the same addresses (a CUDA graph relies on it) and nothing is freed one by
// one. Where the backend can reserve addresses it is one range, which never fragments; else a list of blocks.
#pragma once

#include <cstddef>
#include <vector>

#include "engine/tensor.h"

namespace nd {

class Backend;

class Arena {
 public:
  explicit Arena(Backend& backend) : backend_(backend) {}
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  struct Mark {
    size_t block, offset;
  };
  Mark mark() const { return {current_, offset_}; }
  void release(Mark mark) { current_ = mark.block, offset_ = mark.offset; }

  /// 64-byte aligned, uninitialised. Throws Error(OutOfMemory) with the sizes.
  void* allocate(size_t bytes);
  /// A contiguous activation tensor.
  Tensor tensor(const Shape& shape);

  /// Gives all blocks back to the backend; only with nothing allocated.
  void trim();
  /// Most bytes in use so far; with blocks, most bytes of all blocks.
  size_t peakBytes() const { return peak_; }

  /// Releases what was allocated during its lifetime.
  class Scope {
   public:
    explicit Scope(Arena& arena) : arena_(arena), mark_(arena.mark()) {}
    ~Scope() { arena_.release(mark_); }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Arena& arena_;
    Mark mark_;
  };

 private:
  struct Block {
    void* data;
    size_t size;
  };
  void free();

  Backend& backend_;
  bool reserved_ = false;  // blocks_ is one range of addresses
  std::vector<Block> blocks_;
  size_t current_ = 0, offset_ = 0;
  size_t held_ = 0, peak_ = 0;  // bytes of all blocks, now and at most
  size_t committed_ = 0;        // of a reserved range: bytes that the backend has been told of
};

}  // namespace nd
