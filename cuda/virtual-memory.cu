#include "cuda/virtual-memory.h"

#ifndef ND_CUDA_SIM

#include <cuda.h>
#include <cuda_runtime.h>

#include <optional>

namespace nd::cuda {

namespace {

struct Driver {
  decltype(&cuDeviceGetAttribute) deviceGetAttribute;
  decltype(&cuMemGetAllocationGranularity) getGranularity;
  decltype(&cuMemAddressReserve) addressReserve;
  decltype(&cuMemAddressFree) addressFree;
  decltype(&cuMemCreate) create;
  decltype(&cuMemRelease) release;
  decltype(&cuMemMap) map;
  decltype(&cuMemUnmap) unmap;
  decltype(&cuMemSetAccess) setAccess;
};

template <class Function>
bool find(const char* name, Function& function) {
  void* pointer = nullptr;
  cudaDriverEntryPointQueryResult found{};
  constexpr unsigned kSince = 12000;  // these functions have not changed since
  if (cudaGetDriverEntryPointByVersion(name, &pointer, kSince, cudaEnableDefault, &found) != cudaSuccess) {
    cudaGetLastError();
    return false;
  }
  function = reinterpret_cast<Function>(pointer);
  return found == cudaDriverEntryPointSuccess && pointer;
}

const std::optional<Driver>& driver() {
  static const std::optional<Driver> found = [] {
    Driver d{};
    const bool all = find("cuDeviceGetAttribute", d.deviceGetAttribute) &&
                     find("cuMemGetAllocationGranularity", d.getGranularity) &&
                     find("cuMemAddressReserve", d.addressReserve) &&
                     find("cuMemAddressFree", d.addressFree) && find("cuMemCreate", d.create) &&
                     find("cuMemRelease", d.release) && find("cuMemMap", d.map) &&
                     find("cuMemUnmap", d.unmap) && find("cuMemSetAccess", d.setAccess);
    return all ? std::optional<Driver>(d) : std::nullopt;
  }();
  return found;
}

CUmemAllocationProp propertiesOf(int device) {
  CUmemAllocationProp p{};
  p.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  p.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  p.location.id = device;
  return p;
}

CUdeviceptr address(void* data) { return reinterpret_cast<CUdeviceptr>(data); }

}  // namespace

size_t virtualMemoryGranularity(int device) {
  int supported = 0;
  if (!driver() ||
      driver()->deviceGetAttribute(&supported, CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED,
                                   static_cast<CUdevice>(device)) != CUDA_SUCCESS ||
      !supported)
    return 0;
  const CUmemAllocationProp p = propertiesOf(device);
  size_t bytes = 0;
  return driver()->getGranularity(&bytes, &p, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED) == CUDA_SUCCESS ? bytes
                                                                                                    : 0;
}

void* reserveAddresses(size_t bytes) {
  CUdeviceptr data = 0;
  if (!driver() || driver()->addressReserve(&data, bytes, 0, 0, 0) != CUDA_SUCCESS) return nullptr;
  return reinterpret_cast<void*>(data);
}

void releaseAddresses(void* data, size_t bytes) { driver()->addressFree(address(data), bytes); }

bool backAddresses(int device, void* at, size_t bytes, uint64_t& handle) {
  const Driver& d = *driver();
  const CUmemAllocationProp p = propertiesOf(device);
  CUmemGenericAllocationHandle memory = 0;
  if (d.create(&memory, bytes, &p, 0) != CUDA_SUCCESS) return false;
  if (d.map(address(at), bytes, 0, memory, 0) != CUDA_SUCCESS) {
    d.release(memory);
    return false;
  }
  CUmemAccessDesc access{};
  access.location = p.location;
  access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  if (d.setAccess(address(at), bytes, &access, 1) != CUDA_SUCCESS) {
    d.unmap(address(at), bytes);
    d.release(memory);
    return false;
  }
  handle = memory;
  return true;
}

void releaseMemory(void* at, size_t bytes, uint64_t handle) {
  driver()->unmap(address(at), bytes);
  driver()->release(handle);
}

}  // namespace nd::cuda

#endif
