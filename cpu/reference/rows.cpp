// Operations that only move or add rows: y = a + scale · b, y[i] = x[rows[i]], y[:, column..] = x.
#include "cpu/reference/reference.h"

namespace nd {

void ReferenceBackend::add(Tensor a, Tensor b, float scale, Tensor y) {
  for (int64_t r = 0; r < y.shape.rows(); r++)
    for (int64_t c = 0; c < y.shape.last(); c++)
      reference::row(y, r)[c] = reference::row(a, r)[c] + scale * reference::row(b, r)[c];
}

void ReferenceBackend::gatherRows(Tensor x, const int32_t* rows, Tensor y) {
  for (int64_t r = 0; r < y.shape.rows(); r++) {
    expect(rows[r] >= 0 && rows[r] < x.shape.rows(), "gatherRows: rows within x");
    for (int64_t c = 0; c < y.shape.last(); c++) reference::row(y, r)[c] = reference::row(x, rows[r])[c];
  }
}

void ReferenceBackend::copyColumns(Tensor x, Tensor y, int64_t column) {
  for (int64_t r = 0; r < x.shape.rows(); r++)
    for (int64_t c = 0; c < x.shape.last(); c++) reference::row(y, r)[column + c] = reference::row(x, r)[c];
}

}  // namespace nd
