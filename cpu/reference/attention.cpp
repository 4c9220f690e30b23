// Scaled dot-product attention (Vaswani et al. 2017) per image and head:
// y[Lq, d] = softmax(scale · q[Lq, d] k[Lk, d]ᵀ + bias) v[Lk, d]; causal: query i sees keys 0..i.
#include <algorithm>
#include <cmath>

#include "cpu/reference/reference.h"

namespace nd {

void ReferenceBackend::attention(const AttentionArgs& a) {
  const int64_t batch = a.q.shape[0], lq = a.q.shape[1], lk = a.k.shape[1], d = a.q.shape.last() / a.heads;
  std::vector<double> weights(lk);
  for (int64_t b = 0; b < batch; b++)
    for (int64_t head = 0; head < a.heads; head++)
      for (int64_t i = 0; i < lq; i++) {
        const float* q = reference::row(a.q, b * lq + i) + head * d;
        const int64_t keys = a.causal ? std::min(i + 1, lk) : lk;
        for (int64_t j = 0; j < keys; j++) {
          const float* k = reference::row(a.k, b * lk + j) + head * d;
          double sum = 0;
          for (int64_t c = 0; c < d; c++) sum += static_cast<double>(q[c]) * k[c];
          weights[j] = a.scale * sum;
          if (a.bias)
            weights[j] +=
                a.bias->f32()[(((a.bias->shape[0] == 1 ? 0 : b) * a.heads + head) * lq + i) * lk + j];
        }
        const double largest = *std::max_element(weights.begin(), weights.begin() + keys);
        double total = 0;
        for (int64_t j = 0; j < keys; j++) total += weights[j] = std::exp(weights[j] - largest);
        for (int64_t c = 0; c < d; c++) {
          double sum = 0;
          for (int64_t j = 0; j < keys; j++)
            sum += weights[j] * reference::row(a.v, b * lk + j)[head * d + c];
          reference::row(a.y, b * lq + i)[head * d + c] = static_cast<float>(sum / total);
        }
      }
}

}  // namespace nd
