// Host <-> backend, and latents <-> the model's images. All bound by memory.
//   NCHW [B, C, H, W] <-> NHWC [B, H, W, C], one task per image and band of pixels
#include <algorithm>
#include <cstring>

#include "cpu/ceil-div.h"
#include "cpu/cpu-backend.h"

namespace nd {

namespace {
constexpr int64_t kBand = 4096;  // pixels per task: enough work to be worth handing out

float* row(const Tensor& t, int64_t i) { return t.f32() + i * t.stride; }

/// Calls body(image, first pixel, last pixel) over all images.
template <class Body>
void forBands(ThreadPool& pool, int64_t images, int64_t pixels, Body&& body) {
  const int64_t bands = ceilDiv(pixels, kBand);
  pool.parallelFor(images * bands, [&](int64_t task, int) {
    const int64_t first = task % bands * kBand;
    body(task / bands, first, std::min(first + kBand, pixels));
  });
}

void toImages(ThreadPool& pool, const Tensor& nhwc, float* nchw) {
  const int64_t images = nhwc.shape[0], channels = nhwc.shape.last(), pixels = nhwc.shape.rows() / images;
  forBands(pool, images, pixels, [&](int64_t b, int64_t first, int64_t last) {
    for (int64_t c = 0; c < channels; c++) {
      float* to = nchw + (b * channels + c) * pixels;
      for (int64_t p = first; p < last; p++) to[p] = row(nhwc, b * pixels + p)[c];
    }
  });
}
}  // namespace

void CpuBackend::upload(const float* host, Tensor y) {
  const int64_t columns = y.shape.last();
  for (int64_t r = 0, rows = y.shape.rows(); r < rows; r++)
    std::memcpy(row(y, r), host + r * columns, columns * sizeof(float));
}

void CpuBackend::download(Tensor x, float* host) {
  const int64_t columns = x.shape.last();
  for (int64_t r = 0, rows = x.shape.rows(); r < rows; r++)
    std::memcpy(host + r * columns, row(x, r), columns * sizeof(float));
}

void CpuBackend::uploadImage(const float* nchw, Tensor nhwc) {
  const int64_t images = nhwc.shape[0], channels = nhwc.shape.last(), pixels = nhwc.shape.rows() / images;
  forBands(pool_, images, pixels, [&](int64_t b, int64_t first, int64_t last) {
    for (int64_t c = 0; c < channels; c++) {
      const float* from = nchw + (b * channels + c) * pixels;
      for (int64_t p = first; p < last; p++) row(nhwc, b * pixels + p)[c] = from[p];
    }
  });
}

void CpuBackend::downloadImage(Tensor nhwc, float* nchw) { toImages(pool_, nhwc, nchw); }

void CpuBackend::downloadPixels(Tensor x, uint8_t* host) {
  const int64_t columns = x.shape.last();
  forBands(pool_, 1, x.shape.rows(), [&](int64_t, int64_t first, int64_t last) {
    for (int64_t r = first; r < last; r++) {
      const float* from = row(x, r);
      for (int64_t c = 0; c < columns; c++) {
        // In float, as diffusers computes it: decides on which side of a tie a value falls. NaN becomes 0.
        const float half = from[c] * 0.5f + 0.5f;
        const float unit = half > 0 ? std::min(half, 1.0f) : 0.0f;
        // Adding 1.5 · 2^23 leaves the nearest integer (ties to even) in the low bits.
        host[r * columns + c] = static_cast<uint8_t>(unit * 255.0f + 0x1.8p23f - 0x1.8p23f);
      }
    }
  });
}

void CpuBackend::modelInput(Tensor x, double scale, int copies, Tensor y) {
  const int64_t images = x.shape[0], channels = x.shape[1], pixels = x.shape[2] * x.shape[3];
  forBands(pool_, copies * images, pixels, [&](int64_t image, int64_t first, int64_t last) {
    for (int64_t c = 0; c < channels; c++) {
      const float* from = x.f32() + (image % images * channels + c) * pixels;
      for (int64_t p = first; p < last; p++)
        row(y, image * pixels + p)[c] = static_cast<float>(scale * from[p]);
    }
  });
}

void CpuBackend::modelOutput(Tensor x, Tensor nchw) { toImages(pool_, x, nchw.f32()); }

}  // namespace nd
