#include "engine/variation.h"

#include <algorithm>
#include <cmath>

namespace nd {

namespace {

BatchNoise fresh(const std::vector<uint64_t>& seeds, NoiseKind kind) {
  std::vector<std::unique_ptr<NoiseSource>> sources;
  sources.reserve(seeds.size());
  for (const uint64_t seed : seeds) sources.push_back(makeNoiseSource(seed, kind));
  return BatchNoise(std::move(sources));
}

std::vector<float> drawn(BatchNoise& noise, int64_t batch, int64_t each) {
  std::vector<float> out(static_cast<size_t>(batch * each));
  noise.draw(out.data(), batch, each);
  return out;
}

/// Map `from` [h, w] into the middle of `to` [height, width]; what is larger is cut.
void placeInMiddle(const float* from, int64_t h, int64_t w, float* to, int64_t height, int64_t width) {
  // Rounded down, below zero too: as Python divides.
  const auto half = [](int64_t n) { return n >= 0 ? n / 2 : -((1 - n) / 2); };
  const int64_t dy = half(height - h), dx = half(width - w);
  const int64_t rows = dy >= 0 ? h : h + 2 * dy, columns = dx >= 0 ? w : w + 2 * dx;
  const int64_t top = std::max<int64_t>(dy, 0), left = std::max<int64_t>(dx, 0);
  const int64_t fromTop = std::max<int64_t>(-dy, 0), fromLeft = std::max<int64_t>(-dx, 0);
  for (int64_t y = 0; y < rows; y++)
    std::copy_n(from + (fromTop + y) * w + fromLeft, columns, to + (top + y) * width + left);
}

}  // namespace

void slerpColumns(double share, const float* low, const float* high, int64_t channels, int64_t height,
                  int64_t width, float* out) {
  std::vector<double> cosines(static_cast<size_t>(channels * width));
  double mean = 0;
  for (int64_t c = 0; c < channels; c++)
    for (int64_t x = 0; x < width; x++) {
      double lows = 0, highs = 0, both = 0;
      for (int64_t y = 0; y < height; y++) {
        const int64_t i = (c * height + y) * width + x;
        lows += double{low[i]} * low[i];
        highs += double{high[i]} * high[i];
        both += double{low[i]} * high[i];
      }
      const double cosine = std::clamp(both / std::sqrt(lows * highs), -1.0, 1.0);
      cosines[static_cast<size_t>(c * width + x)] = cosine;
      mean += cosine / static_cast<double>(channels * width);
    }
  const bool parallel = mean > 0.9995;
  for (int64_t c = 0; c < channels; c++)
    for (int64_t x = 0; x < width; x++) {
      const double angle = std::acos(cosines[static_cast<size_t>(c * width + x)]), sine = std::sin(angle);
      // AUTOMATIC1111 swaps the shares where it mixes linearly: both are the same noise there.
      const bool linear = parallel || sine < 1e-9;
      const double a = linear ? share : std::sin((1 - share) * angle) / sine;
      const double b = linear ? 1 - share : std::sin(share * angle) / sine;
      for (int64_t y = 0; y < height; y++) {
        const int64_t i = (c * height + y) * width + x;
        out[i] = static_cast<float>(a * low[i] + b * high[i]);
      }
    }
}

void drawVaried(BatchNoise& noise, const Variation& v, const Shape& shape, float* out) {
  const int64_t batch = shape[0], channels = shape[1], height = shape[2], width = shape[3];
  const int64_t each = channels * height * width;
  noise.draw(out, batch, each);
  if (v.none()) return;
  const bool resized = v.fromHeight > 0 && (v.fromHeight != height || v.fromWidth != width);
  const int64_t h = resized ? v.fromHeight : height, w = resized ? v.fromWidth : width;
  const int64_t small = channels * h * w;
  std::vector<float> base(out, out + batch * each);
  if (resized) {
    BatchNoise own = fresh(v.seeds, v.kind);
    base = drawn(own, batch, small);
  }
  if (!v.subseeds.empty() && v.strength != 0) {
    BatchNoise other = fresh(v.subseeds, v.kind);
    const std::vector<float> towards = drawn(other, batch, small);
    for (int64_t b = 0; b < batch; b++)
      slerpColumns(v.strength, base.data() + b * small, towards.data() + b * small, channels, h, w,
                   base.data() + b * small);
  }
  if (!resized) {
    std::copy(base.begin(), base.end(), out);
    return;
  }
  for (int64_t map = 0; map < batch * channels; map++)
    placeInMiddle(base.data() + map * h * w, h, w, out + map * height * width, height, width);
}

}  // namespace nd
