// Activations: SiLU x·sigmoid(x), GELU x·Φ(x) with the exact normal distribution function (Hendrycks & Gimpel
// 2016), QuickGELU x·sigmoid(1.702 x) (CLIP), ReLU max(x, 0), GELU's approximation by tanh.
#include <cmath>

#include "cpu/reference/reference.h"

namespace nd {

double reference::activate(double x, Activation activation) {
  switch (activation) {
    case Activation::None:
      break;
    case Activation::Silu:
      return x / (1 + std::exp(-x));
    case Activation::Gelu:
      return 0.5 * x * std::erfc(-x * 0.70710678118654752440);  // erfc: no cancellation at x << 0
    case Activation::QuickGelu:
      return x / (1 + std::exp(-1.702 * x));
    case Activation::Relu:
      return x < 0 ? 0 : x;
    case Activation::GeluTanh:
      return 0.5 * x * (1 + std::tanh(0.79788456080286535588 * (x + 0.044715 * x * x * x)));
  }
  return x;
}

void ReferenceBackend::activate(Tensor x, Activation activation, Tensor y) {
  for (int64_t r = 0; r < x.shape.rows(); r++)
    for (int64_t c = 0; c < x.shape.last(); c++)
      reference::row(y, r)[c] = static_cast<float>(reference::activate(reference::row(x, r)[c], activation));
}

}  // namespace nd
