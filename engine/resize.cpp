#include "engine/resize.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace nd {

namespace {

constexpr int kFraction = 22;  // 32 bits less 8 of the pixel and 2 for the sum's overshoot

double sinc(double x) {
  if (x == 0) return 1;
  x *= std::numbers::pi;
  return std::sin(x) / x;
}

double lanczos(double x) { return x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0; }

double cubic(double x) {
  constexpr double a = -0.5;
  x = std::fabs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

struct Filter {
  double (*weight)(double x);
  double radius;
};

/// Output pixel i = Σ weight[k] · input[first + k].
struct Taps {
  int64_t first;
  std::vector<int32_t> weights;
};

std::vector<Taps> taps(const Filter& filter, int64_t in, int64_t out) {
  const double scale = static_cast<double>(in) / static_cast<double>(out);
  const double widening = std::max(scale, 1.0), support = filter.radius * widening, narrowing = 1 / widening;
  std::vector<Taps> all;
  std::vector<double> weights;
  for (int64_t i = 0; i < out; i++) {
    const double center = (static_cast<double>(i) + 0.5) * scale;
    const int64_t first = std::max<int64_t>(static_cast<int64_t>(std::floor(center - support + 0.5)), 0);
    const int64_t last = std::min<int64_t>(static_cast<int64_t>(std::floor(center + support + 0.5)), in);
    double sum = 0;
    weights.clear();
    for (int64_t k = first; k < last; k++) {
      weights.push_back(filter.weight((static_cast<double>(k) - center + 0.5) * narrowing));
      sum += weights.back();
    }
    Taps t{first, {}};
    for (const double w : weights) {
      const double fixed = w / sum * (1 << kFraction);
      t.weights.push_back(static_cast<int32_t>(fixed < 0 ? fixed - 0.5 : fixed + 0.5));
    }
    all.push_back(std::move(t));
  }
  return all;
}

uint8_t rounded(int64_t sum) {
  return static_cast<uint8_t>(std::clamp<int64_t>((sum + (1 << (kFraction - 1))) >> kFraction, 0, 255));
}

Picture resizeColumns(const Filter& filter, const Picture& x, int64_t width) {
  Picture y{width, x.height, std::vector<uint8_t>(static_cast<size_t>(width * x.height * 3))};
  const std::vector<Taps> columns = taps(filter, x.width, width);
  for (int64_t row = 0; row < x.height; row++)
    for (int64_t i = 0; i < width; i++) {
      const Taps& t = columns[static_cast<size_t>(i)];
      const uint8_t* from = x.rgb.data() + (row * x.width + t.first) * 3;
      int64_t sum[3] = {0, 0, 0};
      for (size_t k = 0; k < t.weights.size(); k++)
        for (size_t c = 0; c < 3; c++) sum[c] += int64_t{from[k * 3 + c]} * t.weights[k];
      for (size_t c = 0; c < 3; c++) y.rgb[static_cast<size_t>(row * width + i) * 3 + c] = rounded(sum[c]);
    }
  return y;
}

Picture resizeRows(const Filter& filter, const Picture& x, int64_t height) {
  Picture y{x.width, height, std::vector<uint8_t>(static_cast<size_t>(x.width * height * 3))};
  const std::vector<Taps> rows = taps(filter, x.height, height);
  const auto pitch = static_cast<size_t>(x.width * 3);
  std::vector<int64_t> sums(pitch);
  for (int64_t i = 0; i < height; i++) {
    const Taps& t = rows[static_cast<size_t>(i)];
    std::fill(sums.begin(), sums.end(), 0);
    for (size_t k = 0; k < t.weights.size(); k++) {
      const uint8_t* from = x.rgb.data() + (static_cast<size_t>(t.first) + k) * pitch;
      for (size_t j = 0; j < pitch; j++) sums[j] += int64_t{from[j]} * t.weights[k];
    }
    for (size_t j = 0; j < pitch; j++) y.rgb[static_cast<size_t>(i) * pitch + j] = rounded(sums[j]);
  }
  return y;
}

Picture resize(const Filter& filter, const Picture& x, int64_t width, int64_t height) {
  Picture y = x.width == width ? x : resizeColumns(filter, x, width);
  return y.height == height ? y : resizeRows(filter, y, height);
}

/// `from` into `to` with its corner at (left, top); what is outside is cut.
void paste(const Picture& from, Picture& to, int64_t left, int64_t top) {
  const int64_t x0 = std::max<int64_t>(-left, 0), x1 = std::min(from.width, to.width - left);
  for (int64_t y = std::max<int64_t>(-top, 0); y < std::min(from.height, to.height - top); y++)
    if (x1 > x0)
      std::copy_n(from.rgb.begin() + (y * from.width + x0) * 3, (x1 - x0) * 3,
                  to.rgb.begin() + ((top + y) * to.width + left + x0) * 3);
}

/// What Pillow's bicubic filter makes of an edge of no width: 9/8 of the last pixel less 1/8 of the one
/// before.
uint8_t edgePixel(uint8_t last, uint8_t before) {
  return static_cast<uint8_t>(std::clamp((9 * last - before + 4) >> 3, 0, 255));
}

/// The line of pixels beyond an edge of x: its first or last row, or column.
Picture edgeOf(const Picture& x, bool row, bool first) {
  const int64_t lines = row ? x.height : x.width;
  const int64_t last = first ? 0 : lines - 1,
                before = first ? std::min<int64_t>(1, lines - 1) : std::max<int64_t>(lines - 2, 0);
  Picture out{row ? x.width : 1, row ? 1 : x.height, {}};
  for (int64_t i = 0; i < (row ? x.width : x.height); i++)
    for (int64_t c = 0; c < 3; c++) {
      const auto at = [&](int64_t line) {
        return x.rgb[static_cast<size_t>((row ? line * x.width + i : i * x.width + line) * 3 + c)];
      };
      out.rgb.push_back(edgePixel(at(last), at(before)));
    }
  return out;
}

}  // namespace

Picture resizePicture(const Picture& x, int64_t width, int64_t height, ResizeMode mode) {
  if (mode == ResizeMode::Stretch) return resizeLanczos(x, width, height);
  const double asked = static_cast<double>(width) / static_cast<double>(height);
  const double own = static_cast<double>(x.width) / static_cast<double>(x.height);
  const bool fill = mode == ResizeMode::Fill;
  const bool fullWidth = fill ? asked < own : asked > own, fullHeight = fill ? asked >= own : asked <= own;
  const Picture small =
      resizeLanczos(x, fullWidth ? width : std::max<int64_t>(x.width * height / x.height, 1),
                    fullHeight ? height : std::max<int64_t>(x.height * width / x.width, 1));
  Picture y{width, height, std::vector<uint8_t>(static_cast<size_t>(width * height * 3))};
  const int64_t left = width / 2 - small.width / 2, top = height / 2 - small.height / 2;
  paste(small, y, left, top);
  if (!fill || asked == own) return y;
  const bool rows = asked < own;
  const int64_t margin = rows ? top : left, size = rows ? small.height : small.width;
  if (margin <= 0) return y;
  const Picture before = edgeOf(small, rows, true), after = edgeOf(small, rows, false);
  for (int64_t i = 0; i < margin; i++) {
    paste(before, y, rows ? 0 : i, rows ? i : 0);
    paste(after, y, rows ? 0 : margin + size + i, rows ? margin + size + i : 0);
  }
  return y;
}

Picture resizeLanczos(const Picture& x, int64_t width, int64_t height) {
  return resize({lanczos, 3}, x, width, height);
}

Picture resizeBicubic(const Picture& x, int64_t width, int64_t height) {
  return resize({cubic, 2}, x, width, height);
}

}  // namespace nd
