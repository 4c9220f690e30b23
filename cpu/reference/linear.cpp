// Linear: y[M, N] = act(x[M, K] W[N, K]ᵀ + b) + residual, and GEGLU (Shazeer 2020, "GLU Variants Improve
// Transformer"): W [2N, K] gives a value and a gate, y = value · gelu(gate).
#include "cpu/reference/reference.h"

namespace nd {

/// x · row n of the weight + bias[n].
static double project(const LinearArgs& a, const float* x, int64_t n) {
  const ReferenceWeight& w = reference::weight(a.weight);
  double sum = 0;
  for (int64_t k = 0; k < w.k; k++) sum += static_cast<double>(x[k]) * w.at(n, k);
  return sum + (a.bias ? reference::weight(a.bias).values[n] : 0);
}

void ReferenceBackend::linear(const LinearArgs& a) {
  const int64_t features = a.weight->n;
  expect(
      a.x.shape.last() == a.weight->k && a.y.shape.last() == features && a.x.shape.rows() == a.y.shape.rows(),
      "linear: x [M, K], y [M, N]");
  for (int64_t m = 0; m < a.y.shape.rows(); m++) {
    const float* x = reference::row(a.x, m);
    for (int64_t n = 0; n < features; n++) {
      double value = project(a, x, n);
      if (a.weight->kind == WeightKind::Geglu)
        value *= reference::activate(project(a, x, features + n), a.activation == Activation::GeluTanh
                                                                      ? Activation::GeluTanh
                                                                      : Activation::Gelu);
      else
        value = reference::activate(value, a.activation);
      if (a.residual) value += reference::row(*a.residual, m)[n];
      reference::row(a.y, m)[n] = static_cast<float>(value);
    }
  }
}

}  // namespace nd
