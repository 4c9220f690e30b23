// Attention and norms at SD1.5's shapes beside the matrix products of shapes.h.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "engine/backend.h"

namespace nd::bench {

/// One operation ready to run: `flops` for those that the arithmetic bounds, `bytes` (that must cross the
/// memory bus) for those that the bandwidth bounds; the other is 0.
struct Operation {
  std::string name;
  double flops, bytes;
  std::function<void()> run;
};

/// 512² with guidance (batch 2), and the VAE decoder's. `name` says which are wanted; memory is made when it
/// agrees.
std::vector<Operation> sd15Operations(Backend& backend, const std::function<bool(const char*)>& wanted);

}  // namespace nd::bench
