// Pictures resized as PIL's Image.resize with LANCZOS and BICUBIC does it, to the bit.
#pragma once

#include <cstdint>
#include <vector>

namespace nd {

/// 8-bit RGB, rows from the top.
struct Picture {
  int64_t width = 0, height = 0;
  std::vector<uint8_t> rgb;  // [height, width, 3]
};

/// Lanczos with three lobes (Duchon 1979), widened when shrinking so that nothing is skipped. Columns first,
/// then rows, with 8 bits in between and weights of 22 fractional bits, as PIL has it. The same size is a
/// copy.
Picture resizeLanczos(const Picture& x, int64_t width, int64_t height);

/// The same with the cubic of Keys 1981, a = −1/2.
Picture resizeBicubic(const Picture& x, int64_t width, int64_t height);

/// How a picture of other proportions becomes width × height: diffusers' resize_mode.
enum class ResizeMode : uint8_t {
  Stretch,  // 'default': its proportions change
  Crop,     // 'crop': covers, and is cut evenly on both sides
  Fill      // 'fill': fits in, and its edge goes on into what is left on both sides
};
Picture resizePicture(const Picture& x, int64_t width, int64_t height, ResizeMode mode);

}  // namespace nd
