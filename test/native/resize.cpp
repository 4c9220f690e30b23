// Resizing against Pillow's own output, byte for byte.
#include "engine/resize.h"

#include <cmath>
#include <cstring>
#include <utility>

#include "engine/clip-pixels.h"
#include "engine/safetensors.h"
#include "test/native/check.h"

namespace {

nd::Picture picture(const nd::SafetensorsFile& file, const std::string& name) {
  const nd::HostTensor t = file.tensor(name);
  nd::Picture p{t.shape[1], t.shape[0], std::vector<uint8_t>(static_cast<size_t>(t.shape.count()))};
  std::memcpy(p.rgb.data(), t.data, p.rgb.size());
  return p;
}

}  // namespace

ND_TEST("resize: Lanczos as Pillow, enlarging, shrinking, one side only") {
  const auto file = nd::SafetensorsFile::open(ndtest::reference("pil-lanczos.safetensors"));
  for (const char* name : {"0", "1", "2", "3", "4"}) {
    const nd::Picture in = picture(*file, std::string(name) + ".in"),
                      expected = picture(*file, std::string(name) + ".out");
    const nd::Picture out = nd::resizeLanczos(in, expected.width, expected.height);
    CHECK(out.width == expected.width && out.height == expected.height);
    CHECK(out.rgb == expected.rgb);
  }
}

ND_TEST("resize: bicubic as Pillow") {
  const auto file = nd::SafetensorsFile::open(ndtest::reference("pil-bicubic.safetensors"));
  for (const char* name : {"0", "1", "2", "3", "4"}) {
    const nd::Picture in = picture(*file, std::string(name) + ".in"),
                      expected = picture(*file, std::string(name) + ".out");
    CHECK(nd::resizeBicubic(in, expected.width, expected.height).rgb == expected.rgb);
  }
}

ND_TEST("clip pixels: shortest edge, centre crop, black around small pictures, normalised") {
  const auto file = nd::SafetensorsFile::open(ndtest::reference("pil-bicubic.safetensors"));
  for (const auto& [name, edge] : {std::pair{"clip0", 24}, {"clip1", 24}, {"clip2", 24}, {"clip3", 17}}) {
    nd::ClipPreprocessing settings;
    settings.shortestEdge = edge;
    settings.cropHeight = settings.cropWidth = 24;
    const nd::ClipPixels out = nd::clipPixels(picture(*file, std::string(name) + ".in"), settings);
    const nd::HostTensor expected = file->tensor(std::string(name) + ".pixels");
    CHECK(out.width == 24 && out.height == 24);
    CHECK(out.values.size() == static_cast<size_t>(expected.shape.count()));
    const auto* values = static_cast<const float*>(expected.data);
    for (size_t i = 0; i < out.values.size(); i++) CHECK(std::fabs(out.values[i] - values[i]) < 1e-6f);
  }
}

ND_TEST("resize: the same size is a copy, one colour stays") {
  const nd::Picture in{3, 2,
                       std::vector<uint8_t>{1, 2, 3, 255, 0, 9, 7, 7, 7, 0, 0, 0, 5, 4, 3, 250, 251, 252}};
  CHECK(nd::resizeLanczos(in, 3, 2).rgb == in.rgb);
  const nd::Picture flat{7, 5, std::vector<uint8_t>(7 * 5 * 3, 93)};
  for (const uint8_t v : nd::resizeLanczos(flat, 24, 3).rgb) CHECK(v == 93);
}
