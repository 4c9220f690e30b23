// Pixel UNets' change of size: rows of y in parallel; bound by memory.
#include <algorithm>

#include "cpu/cpu-backend.h"

namespace nd {

void CpuBackend::resample(Tensor x, Tensor y) {
  const int64_t height = x.shape[1], width = x.shape[2], channels = x.shape[3];
  const int64_t outHeight = y.shape[1], outWidth = y.shape[2];
  const bool larger = outHeight > height;
  pool_.parallelFor(y.shape[0] * outHeight, [&](int64_t task, int) {
    const int64_t b = task / outHeight, i = task % outHeight;
    float* to = y.f32() + task * outWidth * y.stride;
    if (larger) {
      const float* from = x.f32() + (b * height + i / 2) * width * x.stride;
      for (int64_t j = 0; j < outWidth; j++)
        std::copy_n(from + j / 2 * x.stride, channels, to + j * y.stride);
      return;
    }
    const float* top = x.f32() + (b * height + 2 * i) * width * x.stride;
    const float* bottom = top + width * x.stride;
    for (int64_t j = 0; j < outWidth; j++) {
      const int64_t left = 2 * j * x.stride, right = left + x.stride;
      for (int64_t c = 0; c < channels; c++)
        to[j * y.stride + c] =
            ((top[left + c] + top[right + c]) + (bottom[left + c] + bottom[right + c])) * 0.25f;
    }
  });
}

}  // namespace nd
