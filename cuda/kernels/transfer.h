// Between the backend's 16-bit NHWC activations and float32 rows or NCHW images: what host transfers and the
// step loop need. Bound: memory; small next to the models.
#pragma once

#include "cuda/launch.h"

namespace nd::cuda {

/// float32 [rows, C] contiguous ↔ rows of `type`.
void narrowRows(const Launch&, DType type, const float* x, const Tensor& y);
void widenRows(const Launch&, DType type, const Tensor& x, float* y);

/// y NHWC [copies · B, H, W, C] = scale · x NCHW float32 [B, C, H, W], repeated.
void fromPlanes(const Launch&, DType type, const float* x, double scale, int64_t images, int copies,
                const Tensor& y);
/// y NCHW float32 = x NHWC [B, H, W, C].
void toPlanes(const Launch&, DType type, const Tensor& x, float* y);

/// x in −1..1 → round(clamp(x/2 + 0.5) · 255), ties to even, NaN 0; y contiguous like x.
void toPixels(const Launch&, DType type, const Tensor& x, uint8_t* y);

}  // namespace nd::cuda
