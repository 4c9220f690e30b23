// Memory of the reference backend: the heap, counted.
#include <new>

#include "cpu/reference/reference.h"

namespace nd {

static constexpr std::align_val_t kAlignment{64};

void* ReferenceBackend::allocate(size_t bytes) {
  void* data = ::operator new(bytes, kAlignment, std::nothrow);
  if (!data) throw Error(ErrorCode::OutOfMemory, format("cannot allocate %zu bytes of memory", bytes));
  activationBytes_ += bytes;
  return data;
}

void ReferenceBackend::deallocate(void* data, size_t bytes) {
  ::operator delete(data, kAlignment);
  activationBytes_ -= bytes;
}

MemoryUse ReferenceBackend::memory() const { return {weightBytes_->load(), activationBytes_}; }

std::unique_ptr<Backend> makeReferenceBackend() { return std::make_unique<ReferenceBackend>(); }

}  // namespace nd
