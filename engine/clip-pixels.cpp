#include "engine/clip-pixels.h"

#include <algorithm>
#include <cstddef>

namespace nd {

namespace {

Picture resized(const Picture& x, const ClipPreprocessing& p) {
  int64_t width = p.resizeWidth, height = p.resizeHeight;
  if (p.shortestEdge > 0) {
    const bool landscape = x.width > x.height;
    const int64_t shorter = std::min(x.width, x.height), longer = std::max(x.width, x.height);
    // The product first and then one division of doubles: so the last row is not lost, or kept, by chance.
    const auto other =
        static_cast<int64_t>(static_cast<double>(p.shortestEdge * longer) / static_cast<double>(shorter));
    width = landscape ? other : p.shortestEdge;
    height = landscape ? p.shortestEdge : other;
  }
  return p.lanczos ? resizeLanczos(x, width, height) : resizeBicubic(x, width, height);
}

/// transformers center_crop: the corner is rounded down, also where the picture is smaller and lies on black.
Picture cropped(const Picture& x, int64_t width, int64_t height) {
  Picture y{width, height, std::vector<uint8_t>(static_cast<size_t>(width * height * 3))};
  const int64_t top = (x.height - height) >> 1, left = (x.width - width) >> 1;
  const int64_t begin = std::max<int64_t>(0, -left), end = std::min(width, x.width - left);
  for (int64_t row = std::max<int64_t>(0, -top); row < std::min(height, x.height - top); row++)
    std::copy_n(x.rgb.begin() + static_cast<ptrdiff_t>(((row + top) * x.width + left + begin) * 3),
                (end - begin) * 3, y.rgb.begin() + static_cast<ptrdiff_t>((row * width + begin) * 3));
  return y;
}

}  // namespace

ClipPixels clipPixels(const Picture& picture, const ClipPreprocessing& p) {
  Picture x = p.resize ? resized(picture, p) : picture;
  if (p.centerCrop) x = cropped(x, p.cropWidth, p.cropHeight);
  const auto pixels = static_cast<size_t>(x.width * x.height);
  ClipPixels out{x.width, x.height, std::vector<float>(pixels * 3)};
  for (size_t i = 0; i < pixels; i++)
    for (size_t c = 0; c < 3; c++) {
      auto v = static_cast<float>(x.rgb[i * 3 + c]);
      if (p.rescale) v = static_cast<float>(v * p.rescaleFactor);
      if (p.normalize) v = (v - p.mean[c]) / p.deviation[c];
      out.values[c * pixels + i] = v;
    }
  return out;
}

}  // namespace nd
