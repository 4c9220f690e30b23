// Addresses of the host, of which the committed part is registered as one allocation of the simulated device.
#include "cuda/virtual-memory.h"

#include <sys/mman.h>

#include <cstring>

#include "cuda/sim/runtime.h"

namespace nd::cuda {

size_t virtualMemoryGranularity(int) { return size_t{64} << 10; }  // small, so that ranges grow in many parts

void* reserveAddresses(size_t bytes) {
  void* data = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return data == MAP_FAILED ? nullptr : data;
}
void releaseAddresses(void* data, size_t bytes) { munmap(data, bytes); }

bool backAddresses(int, void* at, size_t bytes, uint64_t& handle) {
  handle = 1;
  if (!sim::addMemory(at, bytes) || mprotect(at, bytes, PROT_READ | PROT_WRITE) != 0) return false;
  std::memset(at, 0xff, bytes);  // NaN, as from cudaMalloc
  return true;
}

void releaseMemory(void* at, size_t bytes, uint64_t) {
  sim::removeMemory(at, bytes);
  mprotect(at, bytes, PROT_NONE);
}

}  // namespace nd::cuda
