// The driver's virtual memory management, reached through the runtime so that nothing links to the driver's
// library. cuda/sim/virtual-memory.cpp stands in for it in the simulator.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nd::cuda {

/// Bytes that memory is mapped in; 0 where the driver or the device has no such thing.
size_t virtualMemoryGranularity(int device);
/// Null where there are no addresses.
void* reserveAddresses(size_t bytes);
void releaseAddresses(void* data, size_t bytes);
/// Memory behind reserved addresses, readable and writable; false where there is none left.
bool backAddresses(int device, void* at, size_t bytes, uint64_t& handle);
void releaseMemory(void* at, size_t bytes, uint64_t handle);

}  // namespace nd::cuda
