// Feathers, resize modes, overlays and fills against Pillow's own output, byte for byte; crop regions and
// variations from their definitions.
#include "engine/repaint.h"

#include <cmath>
#include <cstring>

#include "engine/safetensors.h"
#include "engine/variation.h"
#include "test/native/check.h"

namespace {

nd::Picture picture(const std::string& name) {
  static const auto file = nd::SafetensorsFile::open(ndtest::reference("pil-repaint.safetensors"));
  const nd::HostTensor t = file->tensor(name);
  nd::Picture p{t.shape[1], t.shape[0], std::vector<uint8_t>(static_cast<size_t>(t.shape.count()))};
  std::memcpy(p.rgb.data(), t.data, p.rgb.size());
  return p;
}

/// White in the rectangle.
nd::Picture mask(int64_t width, int64_t height, const nd::Rectangle& r) {
  nd::Picture p{width, height, std::vector<uint8_t>(static_cast<size_t>(width * height * 3), 0)};
  for (int64_t y = r.top; y < r.bottom; y++)
    for (int64_t x = r.left * 3; x < r.right * 3; x++) p.rgb[static_cast<size_t>(y * width * 3 + x)] = 255;
  return p;
}

bool same(const nd::Rectangle& a, const nd::Rectangle& b) {
  return a.left == b.left && a.top == b.top && a.right == b.right && a.bottom == b.bottom;
}

}  // namespace

ND_TEST("repaint: Gaussian blur as Pillow") {
  const double sigmas[] = {0.5, 1, 4, 33, 2.25};
  for (int i = 0; i < 5; i++) {
    nd::Picture p = picture(nd::format("blur.%d.in", i));
    nd::gaussianBlur(p.rgb, p.width, p.height, 3, sigmas[i]);
    CHECK(p.rgb == picture(nd::format("blur.%d.out", i)).rgb);
  }
  nd::Picture p = picture("blur.0.in");
  nd::gaussianBlur(p.rgb, p.width, p.height, 3, 0);
  CHECK(p.rgb == picture("blur.0.in").rgb);
}

ND_TEST("repaint: resize modes as diffusers") {
  for (const auto& [name, mode] : {std::pair{"fill", nd::ResizeMode::Fill}, {"crop", nd::ResizeMode::Crop}})
    for (int i = 0; i < 5; i++) {
      const nd::Picture expected = picture(nd::format("%s.%d.out", name, i));
      const nd::Picture out =
          nd::resizePicture(picture(nd::format("%s.%d.in", name, i)), expected.width, expected.height, mode);
      CHECK(out.width == expected.width && out.height == expected.height);
      CHECK(out.rgb == expected.rgb);
    }
}

ND_TEST("repaint: overlay as Pillow composites, whole and into a region") {
  const nd::Overlay whole{picture("overlay.0.picture"), picture("overlay.0.mask"), std::nullopt};
  CHECK(nd::overlaid(whole, picture("overlay.0.painted")).rgb == picture("overlay.0.out").rgb);
  const nd::Overlay part{picture("overlay.1.picture"), picture("overlay.1.mask"),
                         nd::Rectangle{9, 8, 31, 30}};
  CHECK(nd::overlaid(part, picture("overlay.1.painted")).rgb == picture("overlay.1.out").rgb);
}

ND_TEST("repaint: what is under a mask is filled from around it") {
  const nd::Picture out = nd::filledUnderMask(picture("under.picture"), picture("under.mask"));
  CHECK(out.rgb == picture("under.out").rgb);
}

ND_TEST("repaint: the region around a mask") {
  // A square of 10, padded by 4 to 18: widened to the proportions of what is painted.
  CHECK(same(nd::cropRegion(mask(100, 80, {40, 30, 50, 40}), 64, 64, 4), {36, 26, 54, 44}));
  CHECK(same(nd::cropRegion(mask(100, 80, {40, 30, 50, 40}), 64, 32, 4), {27, 26, 63, 44}));
  CHECK(same(nd::cropRegion(mask(100, 80, {40, 30, 50, 40}), 32, 64, 4), {36, 17, 54, 53}));
  // At an edge it is moved inside, and where it cannot have the proportions it is cut.
  CHECK(same(nd::cropRegion(mask(100, 80, {90, 30, 100, 40}), 64, 32, 0), {80, 30, 100, 40}));
  CHECK(same(nd::cropRegion(mask(100, 20, {10, 5, 90, 15}), 64, 64, 0), {10, 0, 90, 20}));
  // Anything but black counts.
  nd::Picture faint = mask(20, 20, {0, 0, 0, 0});
  faint.rgb[(3 * 20 + 7) * 3 + 1] = 1;
  CHECK(same(nd::cropRegion(faint, 8, 8, 0), {7, 3, 8, 4}));
  CHECK_ERROR(nd::cropRegion(mask(20, 20, {0, 0, 0, 0}), 8, 8, 3), nd::ErrorCode::InvalidArgument, "white");
}

ND_TEST("variation: columns turn towards the other noise") {
  const std::vector<float> low = {3, 1, 0, 1, 0, 0}, high = {0, 1, 4, 1, 0, 2};  // [1, 3, 2]
  std::vector<float> out(6);
  nd::slerpColumns(0.5, low.data(), high.data(), 1, 3, 2, out.data());
  // The first column: (3, 0, 0) and (0, 4, 0) are at a right angle, sin 45° of each.
  const double half = std::sqrt(0.5);
  CHECK(std::abs(out[0] - 3 * half) < 1e-6 && std::abs(out[2] - 4 * half) < 1e-6 && std::abs(out[4]) < 1e-6);
  nd::slerpColumns(0, low.data(), high.data(), 1, 3, 2, out.data());
  for (size_t i = 0; i < 6; i++) CHECK(std::abs(out[i] - low[i]) < 1e-6);
  nd::slerpColumns(1, low.data(), high.data(), 1, 3, 2, out.data());
  for (size_t i = 0; i < 6; i++) CHECK(std::abs(out[i] - high[i]) < 1e-6);
  nd::slerpColumns(0.3, low.data(), low.data(), 1, 3, 2, out.data());
  for (size_t i = 0; i < 6; i++) CHECK(std::abs(out[i] - low[i]) < 1e-6);
}
