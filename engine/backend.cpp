#include "engine/backend.h"

#include <cstring>

namespace nd {

void* Backend::reserve(size_t& bytes) {
  bytes = 0;
  return nullptr;
}
void Backend::unreserve(void*, size_t) {}

void Backend::uploadPlan(const float* host, Tensor y) {
  std::memcpy(y.data, host, static_cast<size_t>(y.shape.count()) * sizeof(float));
}

void Backend::downloadPlan(Tensor x, float* host) {
  std::memcpy(host, x.data, static_cast<size_t>(x.shape.count()) * sizeof(float));
}

}  // namespace nd
