// Shows that a test of a CUDA kernel notices a missing barrier: switches off every synchronising call that
// the kernel makes, one at a time, and expects the simulator to complain or the result to differ under some
// order of the threads.
#pragma once

#ifdef ND_CUDA_SIM

#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "cuda/sim/block.h"
#include "test/native/backends.h"
#include "test/native/check.h"

namespace nd::test {

/// Back to the defaults at the end of the scope.
struct SimulatorOptions {
  ~SimulatorOptions() { cuda::sim::options() = {}; }
};

/// `run` gives the same bits whatever the order of the threads, and no synchronising call that it reaches can
/// be left out.
inline void expectDeletionsNoticed(const std::string& what, const std::function<std::vector<float>()>& run) {
  using namespace cuda::sim;
  const SimulatorOptions restore;
  std::vector<Site> sites;
  options().record = &sites;
  const std::vector<float> expected = run();
  options().record = nullptr;
  const auto differs = [&](Order order) {
    options().order = order;
    try {
      const std::vector<float> values = run();
      return std::memcmp(values.data(), expected.data(), expected.size() * sizeof(float)) != 0;
    } catch (const Error&) {
      return true;
    }
  };
  const Order orders[] = {Order::Forward, Order::Reverse, Order::Shuffled};
  for (Order order : orders)
    if (differs(order)) fail(what + ": the result depends on the order of the threads");
  if (sites.empty()) fail(what + ": no synchronising call was reached");
  for (const Site& site : sites) {
    options().disabled = site;
    bool noticed = false;
    for (Order order : orders) noticed = noticed || differs(order);
    if (!noticed)
      fail(format("%s: nobody misses %s at %s:%u", what.c_str(), site.what, site.file, site.line));
  }
  ndtest::note(format("%s: each of %zu calls is missed", what.c_str(), sites.size()));
}

}  // namespace nd::test

#endif
