#include "engine/models/free-u.h"

#include <cmath>
#include <numbers>

namespace nd {

void scaleLowFrequencies(float* map, int64_t height, int64_t width, int64_t channels, double scale) {
  const auto c = static_cast<size_t>(channels);
  const int64_t count = height * width;
  std::vector<double> change(static_cast<size_t>(count) * c), real(c), imaginary(c);
  // An axis of one pixel has frequency 0 alone.
  for (int64_t fy = height > 1 ? -1 : 0; fy <= 0; fy++)
    for (int64_t fx = width > 1 ? -1 : 0; fx <= 0; fx++) {
      const auto angle = [&](int64_t pixel) {
        const double y = static_cast<double>(fy * (pixel / width)) / static_cast<double>(height);
        const double x = static_cast<double>(fx * (pixel % width)) / static_cast<double>(width);
        return 2 * std::numbers::pi * (y + x);
      };
      std::fill(real.begin(), real.end(), 0.0);
      std::fill(imaginary.begin(), imaginary.end(), 0.0);
      for (int64_t p = 0; p < count; p++) {
        const double cosine = std::cos(angle(p)), sine = std::sin(angle(p));
        for (size_t i = 0; i < c; i++) {
          const double value = map[static_cast<size_t>(p) * c + i];
          real[i] += value * cosine;
          imaginary[i] -= value * sine;
        }
      }
      for (int64_t p = 0; p < count; p++) {
        const double cosine = std::cos(angle(p)), sine = std::sin(angle(p));
        for (size_t i = 0; i < c; i++)
          change[static_cast<size_t>(p) * c + i] += real[i] * cosine - imaginary[i] * sine;
      }
    }
  const double weight = (scale - 1) / static_cast<double>(count);
  for (size_t i = 0; i < change.size(); i++) map[i] = static_cast<float>(map[i] + weight * change[i]);
}

// Both by way of the host: maps of the deepest levels are small, and no backend has to know of it.

Tensor scaleBackbone(Context& context, const Tensor& x, double scale) {
  std::vector<float> host(static_cast<size_t>(x.shape.count()));
  context.backend.download(x, host.data());
  const auto channels = static_cast<size_t>(x.shape.last());
  for (size_t i = 0; i < host.size(); i++)
    if (i % channels < channels / 2) host[i] = static_cast<float>(host[i] * scale);
  return upload(context, host, x.shape);
}

Tensor scaleLowFrequencies(Context& context, const Tensor& x, double scale) {
  std::vector<float> host(static_cast<size_t>(x.shape.count()));
  context.backend.download(x, host.data());
  const int64_t each = x.shape.count() / x.shape[0];
  for (int64_t b = 0; b < x.shape[0]; b++)
    scaleLowFrequencies(host.data() + b * each, x.shape[1], x.shape[2], x.shape[3], scale);
  return upload(context, host, x.shape);
}

}  // namespace nd
