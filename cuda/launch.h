// What every launcher is given.
#pragma once

#include "cuda/tile/platform.h"

namespace nd::cuda {

constexpr size_t kWorkspaceBytes = size_t{64} << 20;

struct Launch {
  cudaStream_t stream = nullptr;
  int multiprocessors = 1;
  int capability = 80;        // 10 · major + minor
  void* workspace = nullptr;  // scratch of launches in this stream: partial sums
  size_t workspaceBytes = 0;
};

}  // namespace nd::cuda
