// Twice as large by nearest neighbour, or half as large by the means of 2 × 2 pixels.
#include "cpu/reference/reference.h"

namespace nd {

void ReferenceBackend::resample(Tensor x, Tensor y) {
  const int64_t height = x.shape[1], width = x.shape[2];
  const bool larger = y.shape[1] > height;
  for (int64_t b = 0; b < y.shape[0]; b++)
    for (int64_t i = 0; i < y.shape[1]; i++)
      for (int64_t j = 0; j < y.shape[2]; j++)
        for (int64_t c = 0; c < y.shape[3]; c++) {
          const auto at = [&](int64_t row, int64_t column) -> double {
            return reference::row(x, (b * height + row) * width + column)[c];
          };
          const double value = larger ? at(i / 2, j / 2)
                                      : (at(2 * i, 2 * j) + at(2 * i, 2 * j + 1) + at(2 * i + 1, 2 * j) +
                                         at(2 * i + 1, 2 * j + 1)) /
                                            4;
          reference::row(y, (b * y.shape[1] + i) * y.shape[2] + j)[c] = static_cast<float>(value);
        }
}

}  // namespace nd
