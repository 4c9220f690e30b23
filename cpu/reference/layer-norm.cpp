// Layer normalisation (Ba et al. 2016) over the last dimension: y = γ (x − μ) / sqrt(σ² + ε) + β, biased
// variance; without `centred` μ is 0 (root mean square norm, Zhang & Sennrich 2019).
#include <cmath>

#include "cpu/reference/reference.h"

namespace nd {

void ReferenceBackend::layerNorm(const LayerNormArgs& a) {
  const int64_t width = a.x.shape.last();
  const auto& gamma = reference::weight(a.gamma).values;
  for (int64_t r = 0; r < a.x.shape.rows(); r++) {
    const float* x = reference::row(a.x, r);
    float* y = reference::row(a.y, r);
    double sum = 0, squares = 0;
    for (int64_t c = 0; c < width; c++) sum += x[c];
    const double mean = a.centred ? sum / static_cast<double>(width) : 0;
    for (int64_t c = 0; c < width; c++) squares += (x[c] - mean) * (x[c] - mean);
    const double scale = 1 / std::sqrt(squares / static_cast<double>(width) + a.epsilon);
    for (int64_t c = 0; c < width; c++)
      y[c] = static_cast<float>((x[c] - mean) * scale * gamma[c] +
                                (a.beta ? reference::weight(a.beta).values[c] : 0));
  }
}

}  // namespace nd
