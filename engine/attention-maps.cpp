#include "engine/attention-maps.h"

#include <algorithm>
#include <cmath>

namespace nd {

// softmax(q kᵀ) v with one-hot values is the softmax itself: each pass over the attention kernel gives d
// columns of it, so that no backend needs another operation.
void AttentionRecorder::record(Context& context, const Tensor& q, const Tensor& k, int heads) {
  const int64_t pixels = q.shape[1], tokens = k.shape[1], width = q.shape[2], d = width / heads;
  expect(first_ + count_ <= q.shape[0], "attention maps: entries of the batch");
  expect(pixels == size_.first * size_.second, "attention maps: a query for every pixel");
  expect(tokens_ == 0 || tokens_ == tokens, "attention maps: one number of tokens");
  tokens_ = tokens;
  Sum& sum = sums_[size_];
  sum.values.resize(static_cast<size_t>(count_ * pixels * tokens));
  sum.weight += heads;

  const Tensor queries = slice(context, q, first_, count_), keys = slice(context, k, first_, count_);
  std::vector<float> oneHot, rows(static_cast<size_t>(count_ * pixels * width));
  for (int64_t start = 0; start < tokens; start += d) {
    Arena::Scope scope(context.arena);
    const int64_t columns = std::min(d, tokens - start);
    oneHot.assign(static_cast<size_t>(count_ * tokens * width), 0.0f);
    for (int64_t b = 0; b < count_; b++)
      for (int64_t c = 0; c < columns; c++)
        for (int64_t h = 0; h < heads; h++)
          oneHot[static_cast<size_t>((b * tokens + start + c) * width + h * d + c)] = 1;
    const Tensor y =
        attention(context, queries, keys, upload(context, oneHot, {count_, tokens, width}), heads);
    context.backend.download(y, rows.data());
    for (int64_t r = 0; r < count_ * pixels; r++) {
      const float* from = rows.data() + r * width;
      double* to = sum.values.data() + r * tokens + start;
      for (int64_t h = 0; h < heads; h++)
        for (int64_t c = 0; c < columns; c++) to[c] += from[h * d + c];
    }
  }
}

namespace {

/// Where a sample of the enlarged map lies between two of the small one, as torch's bilinear interpolation
/// without aligned corners has it.
struct Place {
  int64_t low, high;
  double share;  // of `high`
};
Place place(int64_t i, int64_t to, int64_t from) {
  const double at = std::max(
      0.0, (static_cast<double>(i) + 0.5) * static_cast<double>(from) / static_cast<double>(to) - 0.5);
  const auto low = std::min(static_cast<int64_t>(at), from - 1);
  return {low, std::min(low + 1, from - 1), at - static_cast<double>(low)};
}

}  // namespace

std::vector<float> AttentionRecorder::averaged(int64_t height, int64_t width) const {
  double weight = 0;
  std::vector<double> total(static_cast<size_t>(count_ * tokens_ * height * width));
  for (const auto& entry : sums_) {
    const int64_t h = entry.first.first, w = entry.first.second;
    const Sum& sum = entry.second;
    weight += sum.weight;
    for (int64_t y = 0; y < height; y++) {
      const Place v = place(y, height, h);
      for (int64_t x = 0; x < width; x++) {
        const Place u = place(x, width, w);
        for (int64_t b = 0; b < count_; b++) {
          const auto pixel = [&](int64_t row, int64_t column) {
            return sum.values.data() + ((b * h + row) * w + column) * tokens_;
          };
          const double *a = pixel(v.low, u.low), *c = pixel(v.low, u.high), *d = pixel(v.high, u.low),
                       *e = pixel(v.high, u.high);
          for (int64_t t = 0; t < tokens_; t++)
            total[static_cast<size_t>(((b * tokens_ + t) * height + y) * width + x)] +=
                (1 - v.share) * ((1 - u.share) * a[t] + u.share * c[t]) +
                v.share * ((1 - u.share) * d[t] + u.share * e[t]);
        }
      }
    }
  }
  std::vector<float> out(total.size());
  for (size_t i = 0; i < out.size(); i++) out[i] = static_cast<float>(total[i] / weight);
  return out;
}

}  // namespace nd
