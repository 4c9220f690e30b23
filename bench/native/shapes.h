// The matrix products of SD1.5 at 512² with guidance (batch 2) and of its VAE decoder.
#pragma once

#include <cstdint>
#include <vector>

namespace nd::bench {

struct Problem {
  const char* name;
  bool conv;
  // Linear: [m, k] → [m, n]. Convolution: [batch, size, size, k (+ skip)] → the same size, n channels.
  int64_t m, n, k;
  bool geglu = false;
  int batch = 1, size = 0, kernel = 3, skip = 0;

  double flops() const {
    const double rows = conv ? static_cast<double>(batch) * size * size : static_cast<double>(m);
    const double depth = conv ? static_cast<double>(k + skip) * kernel * kernel : static_cast<double>(k);
    return 2 * rows * static_cast<double>(n) * depth * (geglu ? 2 : 1);
  }
};

inline std::vector<Problem> sd15Problems() {
  const auto linear = [](const char* name, int64_t m, int64_t n, int64_t k, bool geglu = false) {
    return Problem{name, false, m, n, k, geglu};
  };
  const auto conv = [](const char* name, int batch, int size, int64_t k, int64_t n, int skip = 0) {
    return Problem{name, true, 0, n, k, false, batch, size, 3, skip};
  };
  return {
      linear("to_q 64x64", 8192, 320, 320),          linear("fused qkv 64x64", 8192, 960, 320),
      linear("geglu 64x64", 8192, 1280, 320, true),  linear("ff out 64x64", 8192, 320, 1280),
      linear("to_q 32x32", 2048, 640, 640),          linear("geglu 32x32", 2048, 2560, 640, true),
      linear("ff out 32x32", 2048, 640, 2560),       linear("to_q 16x16", 512, 1280, 1280),
      linear("geglu 16x16", 512, 5120, 1280, true),  linear("ff out 16x16", 512, 1280, 5120),
      linear("to_q 8x8", 128, 1280, 1280),           linear("context k 77", 154, 1280, 768),
      linear("time embedding", 2, 1280, 1280),       conv("conv_in 64x64 4>320", 2, 64, 4, 320),
      conv("conv 64x64 320>320", 2, 64, 320, 320),   conv("conv 64x64 640+320>320", 2, 64, 640, 320, 320),
      conv("conv 32x32 640>640", 2, 32, 640, 640),   conv("conv 16x16 1280>1280", 2, 16, 1280, 1280),
      conv("conv 8x8 1280>1280", 2, 8, 1280, 1280),  conv("conv_out 64x64 320>4", 2, 64, 320, 4),
      conv("vae 64x64 512>512", 1, 64, 512, 512),    conv("vae 256x256 256>256", 1, 256, 256, 256),
      conv("vae 512x512 128>128", 1, 512, 128, 128), conv("vae conv_out 512x512 128>3", 1, 512, 128, 3),
  };
}

}  // namespace nd::bench
