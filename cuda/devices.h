// Which GPUs there are and whether this build can use them.
#pragma once

#include "engine/backend.h"

namespace nd::cuda {

/// The oldest compute capability that the kernels are compiled for, 10 · major + minor.
constexpr int kOldestCapability = 80;

/// What to say of a driver: empty where it can be used.
std::string driverReason(int driverVersion, int runtimeVersion);

}  // namespace nd::cuda
