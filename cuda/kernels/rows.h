// Whole rows moved or added: y = a + scale · b, y[i] = x[rows[i]], y[:, column..] = x. Bound: memory.
#pragma once

#include "cuda/launch.h"

namespace nd::cuda {

/// Same shapes; rows may be strided. y may be a or b.
void add(const Launch&, DType type, const Tensor& a, const Tensor& b, float scale, const Tensor& y);
/// `rows` lies on the device, one per row of y.
void gatherRows(const Launch&, DType type, const Tensor& x, const int32_t* rows, const Tensor& y);
void copyColumns(const Launch&, DType type, const Tensor& x, const Tensor& y, int64_t column);

}  // namespace nd::cuda
