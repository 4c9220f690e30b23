#include "cuda/devices.h"

#include "cuda/launch.h"

namespace nd {

namespace cuda {

std::string driverReason(int driverVersion, int runtimeVersion) {
  const auto text = [](int version) { return format("%d.%d", version / 1000, version % 1000 / 10); };
  if (driverVersion == 0) return "no NVIDIA driver is installed";
  // Drivers of one major version run every runtime of it.
  if (driverVersion / 1000 < runtimeVersion / 1000)
    return format(
        "the NVIDIA driver is too old: it knows CUDA %s, and CUDA %d.0 is needed (driver 580 or newer)",
        text(driverVersion).c_str(), runtimeVersion / 1000);
  return {};
}

}  // namespace cuda

CudaInfo cudaInfo() {
  CudaInfo info;
  int driver = 0, runtime = 0, count = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess) driver = 0;
  if (cudaRuntimeGetVersion(&runtime) != cudaSuccess) runtime = 0;
  info.reason = cuda::driverReason(driver, runtime);
  if (!info.reason.empty()) {
    cudaGetLastError();
    return info;
  }
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess || count == 0) {
    cudaGetLastError();
    info.reason = error == cudaSuccess || error == cudaErrorNoDevice
                      ? std::string("no NVIDIA GPU was found")
                      : format("the NVIDIA driver does not answer: %s", cudaGetErrorString(error));
    return info;
  }
  for (int i = 0; i < count; i++) {
    cudaDeviceProp properties;
    CudaInfo::Device device{i, {}, 0, 0, {}};
    if (cudaGetDeviceProperties(&properties, i) != cudaSuccess) {
      cudaGetLastError();
      device.unusable = "its properties cannot be read";
    } else {
      device.name = properties.name;
      device.capability = properties.major * 10 + properties.minor;
      device.memory = properties.totalGlobalMem;
      if (device.capability < cuda::kOldestCapability)
        device.unusable = format("%s has compute capability %d.%d, and 8.0 (Ampere) or newer is needed",
                                 properties.name, properties.major, properties.minor);
    }
    if (!device.unusable.empty() && info.reason.empty()) info.reason = device.unusable;
    info.devices.push_back(std::move(device));
  }
  for (const CudaInfo::Device& device : info.devices)
    if (device.unusable.empty()) info.reason.clear();
  return info;
}

}  // namespace nd
