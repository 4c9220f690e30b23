// Group normalisation (Wu & He 2018): per image and group of channels over all pixels,
// y = act(γ_c (x − μ) / sqrt(σ² + ε) + β_c), biased variance, over [x | skip] along channels.
#include <cmath>

#include "cpu/reference/reference.h"

namespace nd {

void ReferenceBackend::groupNorm(const GroupNormArgs& a) {
  const int64_t c1 = a.x.shape.last(), channels = c1 + (a.skip ? a.skip->shape.last() : 0);
  const int64_t batch = a.x.shape[0], pixels = a.x.shape.rows() / batch, size = channels / a.groups;
  expect(channels % a.groups == 0, "groupNorm: channels divisible by groups");
  const auto& gamma = reference::weight(a.gamma).values;
  const auto& beta = reference::weight(a.beta).values;

  for (int64_t b = 0; b < batch; b++)
    for (int64_t g = 0; g < a.groups; g++) {
      auto at = [&](int64_t pixel, int64_t c) -> double {
        const int64_t i = b * pixels + pixel;
        return c < c1 ? reference::row(a.x, i)[c] : reference::row(*a.skip, i)[c - c1];
      };
      const double count = static_cast<double>(pixels * size);
      double sum = 0, squares = 0;
      for (int64_t p = 0; p < pixels; p++)
        for (int64_t c = g * size; c < (g + 1) * size; c++) sum += at(p, c);
      const double mean = sum / count;
      for (int64_t p = 0; p < pixels; p++)
        for (int64_t c = g * size; c < (g + 1) * size; c++) squares += (at(p, c) - mean) * (at(p, c) - mean);
      const double scale = 1 / std::sqrt(squares / count + a.epsilon);
      for (int64_t p = 0; p < pixels; p++)
        for (int64_t c = g * size; c < (g + 1) * size; c++) {
          double value = (at(p, c) - mean) * scale * gamma[c] + beta[c];
          if (a.modulation) {
            const float* row = a.modulation->f32() + b * a.modulation->stride;
            value = value * (1.0 + row[c]) + row[channels + c];
          }
          reference::row(a.y, b * pixels + p)[c] =
              static_cast<float>(reference::activate(value, a.activation));
        }
    }
}

}  // namespace nd
