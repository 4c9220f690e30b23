// Host <-> backend: float32 on both sides; images are NCHW on the host and NHWC on the backend.
#include <algorithm>
#include <cmath>

#include "cpu/reference/reference.h"

namespace nd {

void ReferenceBackend::upload(const float* host, Tensor y) {
  for (int64_t r = 0; r < y.shape.rows(); r++)
    for (int64_t c = 0; c < y.shape.last(); c++) reference::row(y, r)[c] = *host++;
}

void ReferenceBackend::download(Tensor x, float* host) {
  for (int64_t r = 0; r < x.shape.rows(); r++)
    for (int64_t c = 0; c < x.shape.last(); c++) *host++ = reference::row(x, r)[c];
}

void ReferenceBackend::uploadImage(const float* nchw, Tensor nhwc) {
  const int64_t batch = nhwc.shape[0], channels = nhwc.shape.last(), pixels = nhwc.shape.rows() / batch;
  for (int64_t b = 0; b < batch; b++)
    for (int64_t c = 0; c < channels; c++)
      for (int64_t p = 0; p < pixels; p++) reference::row(nhwc, b * pixels + p)[c] = *nchw++;
}

void ReferenceBackend::downloadImage(Tensor nhwc, float* nchw) {
  const int64_t batch = nhwc.shape[0], channels = nhwc.shape.last(), pixels = nhwc.shape.rows() / batch;
  for (int64_t b = 0; b < batch; b++)
    for (int64_t c = 0; c < channels; c++)
      for (int64_t p = 0; p < pixels; p++) *nchw++ = reference::row(nhwc, b * pixels + p)[c];
}

void ReferenceBackend::downloadPixels(Tensor x, uint8_t* host) {
  for (int64_t r = 0; r < x.shape.rows(); r++)
    for (int64_t c = 0; c < x.shape.last(); c++) {
      // Single precision on purpose: which side of a tie a value falls on is then as in diffusers. NaN paints
      // 0.
      const float value = reference::row(x, r)[c] * 0.5f + 0.5f;
      const float unit = value > 0 ? std::min(value, 1.0f) : 0.0f;
      *host++ = static_cast<uint8_t>(std::nearbyint(unit * 255.0f));
    }
}

}  // namespace nd
