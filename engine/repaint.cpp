#include "engine/repaint.h"

#include <algorithm>
#include <cmath>

#include "engine/error.h"

namespace nd {

namespace {

/// a / 255, rounded, for a < 2^16: as Pillow divides.
uint32_t div255(uint32_t a) {
  a += 128;
  return ((a >> 8) + a) >> 8;
}

/// One line of a box blur whose ends weigh less than one; the line's own ends go on forever.
struct BoxBlur {
  int64_t radius;
  uint64_t inner, edge;  // weights, 24 fractional bits

  explicit BoxBlur(float r)
      : radius(static_cast<int64_t>(r)),
        inner(static_cast<uint32_t>(static_cast<float>(1 << 24) / (r * 2 + 1))),
        edge(((1u << 24) - static_cast<uint64_t>(radius * 2 + 1) * inner) / 2) {}

  /// `line` and `out` have `count` values, `step` apart; out is not line.
  void operator()(const uint8_t* line, uint8_t* out, int64_t count, int64_t step) const {
    const auto at = [&](int64_t i) { return uint64_t{line[std::clamp<int64_t>(i, 0, count - 1) * step]}; };
    uint64_t sum = 0;
    for (int64_t i = -radius; i <= radius; i++) sum += at(i);
    for (int64_t i = 0; i < count; i++) {
      const uint64_t all = sum * inner + (at(i - radius - 1) + at(i + radius + 1)) * edge;
      out[i * step] = static_cast<uint8_t>((all + (1u << 23)) >> 24);
      sum += at(i + radius + 1) - at(i - radius);
    }
  }
};

/// The radius of the box whose threefold blur has a Gaussian's variance, with a fractional part.
float boxRadius(double sigma) {
  const float radius = static_cast<float>(sigma);
  const float variance = radius * radius / 3;
  const float length = static_cast<float>(std::sqrt(12.0 * variance + 1.0));
  const float whole = static_cast<float>(std::floor((length - 1.0) / 2.0));
  float part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance);
  part /= 6 * (variance - (whole + 1) * (whole + 1));
  return whole + part;
}

int luma(const uint8_t* p) { return (p[0] * 19595 + p[1] * 38470 + p[2] * 7471 + 0x8000) >> 16; }

/// Colours with alpha.
struct Layer {
  uint8_t colour[3], alpha;
};

/// From colours multiplied by alpha to plain ones.
Layer straight(Layer p) {
  if (p.alpha == 0 || p.alpha == 255) return p;
  for (uint8_t& c : p.colour) c = static_cast<uint8_t>(std::min(255 * int{c} / p.alpha, 255));
  return p;
}

/// `over` on `under`, both with straight colours.
Layer composite(Layer under, Layer over) {
  if (over.alpha == 0) return under;
  const uint32_t blend = uint32_t{under.alpha} * (255u - over.alpha);
  const uint32_t alpha = uint32_t{over.alpha} * 255 + blend;
  const uint32_t a = uint32_t{over.alpha} * 255 * 255 * 128 / alpha, b = 255 * 128 - a;
  Layer out{};
  for (int c = 0; c < 3; c++) {
    const uint32_t mixed = over.colour[c] * a + under.colour[c] * b + (0x80 << 7);
    out.colour[c] = static_cast<uint8_t>((((mixed >> 8) + mixed) >> 8) >> 7);
  }
  out.alpha = static_cast<uint8_t>(div255(alpha));
  return out;
}

/// A pixel of the picture as far as the mask is black, its colours multiplied by alpha.
Layer kept(const uint8_t* picture, const uint8_t* mask) {
  const auto alpha = static_cast<uint32_t>(255 - luma(mask));
  Layer out{{}, static_cast<uint8_t>(alpha)};
  for (int c = 0; c < 3; c++) out.colour[c] = static_cast<uint8_t>(div255(picture[c] * alpha));
  return out;
}

void prepareMask(const RepaintOptions& options, Picture& mask) {
  if (options.invert)
    for (uint8_t& v : mask.rgb) v = static_cast<uint8_t>(255 - v);
  gaussianBlur(mask.rgb, mask.width, mask.height, 3, options.blur);
}

/// Widens [first, last) by `more`, moved back into [0, size) where it is beyond.
void widen(int64_t& first, int64_t& last, int64_t more, int64_t size) {
  first -= more / 2;
  last += more - more / 2;
  if (last >= size) first -= last - size, last = size;
  if (first < 0) last -= first, first = 0;
  last = std::min(last, size);
}

}  // namespace

void gaussianBlur(std::vector<uint8_t>& data, int64_t width, int64_t height, int64_t channels, double sigma) {
  if (sigma == 0) return;
  const BoxBlur blur(boxRadius(sigma));
  std::vector<uint8_t> other(data.size());
  const int64_t pitch = width * channels;
  for (int pass = 0; pass < 3; pass++) {
    for (int64_t y = 0; y < height; y++)
      for (int64_t c = 0; c < channels; c++)
        blur(data.data() + y * pitch + c, other.data() + y * pitch + c, width, channels);
    data.swap(other);
  }
  for (int pass = 0; pass < 3; pass++) {
    for (int64_t i = 0; i < pitch; i++) blur(data.data() + i, other.data() + i, height, pitch);
    data.swap(other);
  }
}

Rectangle cropRegion(const Picture& mask, int64_t width, int64_t height, int64_t padding) {
  Rectangle r{mask.width, mask.height, 0, 0};
  for (int64_t y = 0; y < mask.height; y++)
    for (int64_t x = 0; x < mask.width; x++) {
      if (luma(mask.rgb.data() + (y * mask.width + x) * 3) == 0) continue;
      r = {std::min(r.left, x), std::min(r.top, y), std::max(r.right, x + 1), std::max(r.bottom, y + 1)};
    }
  if (r.right == 0)
    throw Error(
        ErrorCode::InvalidArgument,
        "Expected a mask with something white in it for paddingMaskCrop but received one that is black "
        "all over");
  r = {std::max<int64_t>(r.left - padding, 0), std::max<int64_t>(r.top - padding, 0),
       std::min(r.right + padding, mask.width), std::min(r.bottom + padding, mask.height)};
  const auto w = static_cast<double>(r.width()), h = static_cast<double>(r.height());
  const double asked = static_cast<double>(width) / static_cast<double>(height);
  if (w / h > asked)
    widen(r.top, r.bottom, static_cast<int64_t>(w / asked - h), mask.height);
  else
    widen(r.left, r.right, static_cast<int64_t>(h * asked - w), mask.width);
  return r;
}

Picture cropped(const Picture& x, const Rectangle& r) {
  Picture y{r.width(), r.height(), std::vector<uint8_t>(static_cast<size_t>(r.width() * r.height() * 3))};
  const int64_t left = std::max<int64_t>(r.left, 0), right = std::min(r.right, x.width);
  for (int64_t row = std::max<int64_t>(r.top, 0); row < std::min(r.bottom, x.height) && left < right; row++)
    std::copy_n(x.rgb.begin() + (row * x.width + left) * 3, (right - left) * 3,
                y.rgb.begin() + ((row - r.top) * y.width + left - r.left) * 3);
  return y;
}

std::optional<Rectangle> repaintRegion(const RepaintOptions& options, const Picture& picture, Picture mask,
                                       int64_t width, int64_t height) {
  if (!options.region) return std::nullopt;
  prepareMask(options, mask);
  return cropRegion(resizeLanczos(mask, picture.width, picture.height), width, height, *options.region);
}

Picture filledUnderMask(const Picture& picture, const Picture& mask) {
  const size_t count = picture.rgb.size() / 3;
  std::vector<uint8_t> visible(count * 4);
  for (size_t i = 0; i < count; i++) {
    const Layer p = kept(picture.rgb.data() + i * 3, mask.rgb.data() + i * 3);
    std::copy_n(p.colour, 3, visible.begin() + static_cast<ptrdiff_t>(i * 4));
    visible[i * 4 + 3] = p.alpha;
  }
  std::vector<Layer> mixed(count, Layer{});
  for (const auto& [sigma, times] : {std::pair{256, 1}, {64, 1}, {16, 2}, {4, 4}, {2, 2}, {0, 1}}) {
    std::vector<uint8_t> blurred = visible;
    gaussianBlur(blurred, picture.width, picture.height, 4, sigma);
    for (size_t i = 0; i < count; i++) {
      const uint8_t* b = blurred.data() + i * 4;
      const Layer over = straight({{b[0], b[1], b[2]}, b[3]});
      for (int k = 0; k < times; k++) mixed[i] = composite(mixed[i], over);
    }
  }
  Picture out{picture.width, picture.height, {}};
  out.rgb.reserve(picture.rgb.size());
  for (const Layer& p : mixed) out.rgb.insert(out.rgb.end(), p.colour, p.colour + 3);
  return out;
}

std::vector<Overlay> prepareRepaint(const RepaintOptions& options, std::vector<Picture>& pictures,
                                    std::vector<Picture>& masks, int64_t width, int64_t height) {
  for (Picture& mask : masks) prepareMask(options, mask);
  std::vector<Overlay> overlays;
  if (!options.region && !options.overlay) return overlays;
  std::vector<Picture> parts, partMasks;
  for (size_t i = 0; i < std::max(pictures.size(), masks.size()); i++) {
    Picture picture = pictures[i % pictures.size()];
    if (!options.region) picture = resizeLanczos(picture, width, height);
    Picture mask = resizeLanczos(masks[i % masks.size()], picture.width, picture.height);
    std::optional<Rectangle> region;
    if (options.region) {
      region = cropRegion(mask, width, height, *options.region);
      parts.push_back(cropped(picture, *region));
      partMasks.push_back(cropped(mask, *region));
    }
    if (options.overlay) overlays.push_back({std::move(picture), std::move(mask), region});
  }
  if (options.region) pictures.swap(parts), masks.swap(partMasks);
  return overlays;
}

Picture overlaid(const Overlay& o, const Picture& painted) {
  Picture out{o.picture.width, o.picture.height, std::vector<uint8_t>(o.picture.rgb.size())};
  if (o.region) {
    const Picture part = resizePicture(painted, o.region->width(), o.region->height(), ResizeMode::Crop);
    for (int64_t y = 0; y < part.height; y++)
      std::copy_n(part.rgb.begin() + y * part.width * 3, part.width * 3,
                  out.rgb.begin() + ((o.region->top + y) * out.width + o.region->left) * 3);
  } else {
    out.rgb = painted.rgb;
  }
  for (size_t i = 0; i < out.rgb.size(); i += 3) {
    uint8_t* p = out.rgb.data() + i;
    const Layer over = straight(kept(o.picture.rgb.data() + i, o.mask.rgb.data() + i));
    std::copy_n(composite({{p[0], p[1], p[2]}, 255}, over).colour, 3, p);
  }
  return out;
}

std::vector<uint8_t> overlaidAll(const std::vector<Overlay>& overlays, const std::vector<uint8_t>& painted,
                                 int64_t& width, int64_t& height) {
  const auto each = static_cast<ptrdiff_t>(width * height * 3);
  std::vector<uint8_t> out;
  size_t image = 0;
  for (auto at = painted.begin(); at != painted.end(); at += each) {
    const Picture p = overlaid(overlays[image++ % overlays.size()], {width, height, {at, at + each}});
    out.insert(out.end(), p.rgb.begin(), p.rgb.end());
  }
  width = overlays[0].picture.width, height = overlays[0].picture.height;
  return out;
}

}  // namespace nd
