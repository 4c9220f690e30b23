// Which pixels read which word: cross-attention probabilities, averaged over heads, layers and evaluations
// (Tang et al. 2022, "What the DAAM", section 3). Nothing is recorded, and nothing costs, unless a Context
// carries a recorder.
#pragma once

#include <map>
#include <vector>

#include "engine/ops.h"

namespace nd {

class AttentionRecorder {
 public:
  /// Of every batch, entries [first, first + count) are recorded.
  AttentionRecorder(int64_t first, int64_t count) : first_(first), count_(count) {}

  /// The queries that follow are those of a map of this size.
  void begin(int64_t height, int64_t width) { size_ = {height, width}; }
  /// q [B, height·width, heads·d], k [B, tokens, heads·d].
  void record(Context&, const Tensor& q, const Tensor& k, int heads);

  int64_t tokens() const { return tokens_; }
  /// Mean probabilities [count, tokens, height, width], smaller maps enlarged bilinearly: at every pixel the
  /// tokens' sum is 1.
  std::vector<float> averaged(int64_t height, int64_t width) const;

 private:
  struct Sum {
    std::vector<double> values;  // [count, height·width, tokens], summed over heads, layers and evaluations
    double weight = 0;           // how many summands
  };
  int64_t first_, count_, tokens_ = 0;
  std::pair<int64_t, int64_t> size_;
  std::map<std::pair<int64_t, int64_t>, Sum> sums_;
};

}  // namespace nd
