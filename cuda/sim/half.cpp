#include "cuda/sim/half.h"

#include <vector>

namespace nd::cuda::sim {

const float* halfTable() {
  static const std::vector<float> all = [] {
    std::vector<float> values(65536);
    for (int i = 0; i < 65536; i++) values[i] = halfToFloat(static_cast<uint16_t>(i));
    return values;
  }();
  return all.data();
}

}  // namespace nd::cuda::sim
