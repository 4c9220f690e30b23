// Other libraries on the same problems, where CMake found them (bench only, never linked into the addon).
#pragma once

#include <functional>

#include "bench/native/shapes.h"

namespace nd::bench {

/// One call runs the problem once in fp32 on `threads` threads; empty where there is no such library, or it
/// has no such operation. Weights are laid out beforehand as the library likes them; bias and activation are
/// left out.
std::function<void()> openblasRunner(const Problem& problem, int threads);
std::function<void()> onednnRunner(const Problem& problem, int threads);

}  // namespace nd::bench
