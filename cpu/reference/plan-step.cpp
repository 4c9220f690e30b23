#include "cpu/reference/plan-step.h"

#include <algorithm>
#include <cmath>

namespace nd {
namespace {

constexpr int kX = static_cast<int>(Basis::x), kM = static_cast<int>(Basis::m),
              kH = static_cast<int>(Basis::h), kN = static_cast<int>(Basis::n),
              kN0 = static_cast<int>(Basis::n0), kOrig = static_cast<int>(Basis::orig);

/// Unbiased standard deviation of value(0) … value(count − 1), as torch.std.
template <class Value>
double standardDeviation(int64_t count, Value value) {
  double sum = 0, squares = 0;
  for (int64_t i = 0; i < count; i++) sum += value(i);
  const double mean = sum / static_cast<double>(count);
  for (int64_t i = 0; i < count; i++) squares += (value(i) - mean) * (value(i) - mean);
  return std::sqrt(squares / static_cast<double>(count - 1));
}

/// Linearly interpolated quantile, as torch.quantile: at position ratio·(count − 1) of the sorted values,
/// NaN where one of them is. Reorders them.
double quantile(std::vector<double>& values, double ratio) {
  for (double value : values)
    if (std::isnan(value)) return value;
  const double position = ratio * static_cast<double>(values.size() - 1);
  const auto lower = static_cast<size_t>(position);
  std::nth_element(values.begin(), values.begin() + lower, values.end());
  const double low = values[lower], fraction = position - static_cast<double>(lower);
  if (fraction == 0 || lower + 1 == values.size()) return low;
  return low + fraction * (*std::min_element(values.begin() + lower + 1, values.end()) - low);
}

/// One image's view of the arguments; `i` runs over its C·H·W elements.
struct Image {
  const PlanStepArgs& args;
  const PlanRow& row;
  int64_t index, batch, count, outputCount;

  const float* output(int64_t branch) const {
    return args.modelOutput.f32() + (branch * batch + index) * outputCount;
  }
  float* state(int basis) const {
    const Tensor& t = args.state[basis];
    return t ? t.f32() + index * count : nullptr;
  }
  float* predicted() const { return args.p.f32() + index * count; }

  /// Model output after guidance, before the rescale.
  double guided(int64_t i) const {
    const double m0 = output(0)[i];
    double m = m0;
    for (int branch = 1; branch < args.branches; branch++)
      m += row.guidance[branch - 1] * (output(branch)[i] - m0);
    return m;
  }
  /// The factor that guidanceRescale puts on m.
  double rescale() const {
    if (args.guidanceRescale == 0 || args.branches < 2) return 1;
    const double text =
        standardDeviation(count, [&](int64_t i) -> double { return output(args.branches - 1)[i]; });
    const double all = standardDeviation(count, [&](int64_t i) { return guided(i); });
    return args.guidanceRescale * (text / all) + (1 - args.guidanceRescale);
  }
  /// What n is multiplied by where the model predicts its variance.
  double noiseScale(int64_t i) const {
    if (!row.learnedRange) return 1;
    const double v = (output(args.branches - 1)[count + i] + 1.0) / 2;
    return std::exp(0.5 * (v * row.learnedRange->second + (1 - v) * row.learnedRange->first));
  }
};

/// Clips or thresholds p, the predicted original of one image.
void limitPredicted(const PlanRow& row, std::vector<double>& p) {
  if (row.threshold) {
    std::vector<double> magnitudes(p.size());
    for (size_t i = 0; i < p.size(); i++) magnitudes[i] = std::fabs(p[i]);
    const double s =
        std::min(std::max(quantile(magnitudes, row.threshold->ratio), 1.0), row.threshold->maxValue);
    for (double& value : p) value = std::clamp(value, -s, s) / s;
  } else if (row.clip) {
    for (double& value : p) value = std::clamp(value, -*row.clip, *row.clip);
  }
}

void stepImage(const Image& image) {
  const PlanStepArgs& args = image.args;
  const PlanRow& row = image.row;
  float* x = image.state(kX);

  const double rescale = image.rescale();
  // In double: where h recovers epsilon from p, a rounded p would be divided by a small sigma.
  std::vector<double> p(image.count);
  for (int64_t i = 0; i < image.count; i++) p[i] = row.a * x[i] + row.b * rescale * image.guided(i);
  limitPredicted(row, p);
  std::copy(p.begin(), p.end(), image.predicted());

  float* state[kBasisCount];
  for (int basis = 0; basis < kBasisCount; basis++) state[basis] = image.state(basis);
  const int64_t pixels = args.p.shape[2] * args.p.shape[3];
  const float* mask = args.mask ? args.mask->f32() + image.index * pixels : nullptr;

  for (int64_t i = 0; i < image.count; i++) {
    const double m = rescale * image.guided(i), h = row.c * x[i] + row.d * p[i], noise = image.noiseScale(i);
    auto value = [&](int basis) -> double {
      if (basis == kM) return m;
      if (basis == kH) return h;
      return basis == kN ? noise * state[kN][i] : state[basis][i];
    };
    for (const PlanWrite& write : row.writes) {
      double sum = 0;
      for (const PlanTerm& term : write.terms)
        if (term.coefficient != 0) sum += term.coefficient * value(static_cast<int>(term.basis));
      state[static_cast<int>(write.to)][i] = static_cast<float>(sum);
    }
    if (state[kM]) state[kM][i] = static_cast<float>(m);
    if (state[kH]) state[kH][i] = static_cast<float>(h);
    if (mask && row.blend) {
      const double kept = row.blend->first * state[kOrig][i] + row.blend->second * state[kN0][i];
      x[i] =
          static_cast<float>(mask[i % pixels] * static_cast<double>(x[i]) + (1.0 - mask[i % pixels]) * kept);
    }
  }
}

}  // namespace

void planStepFloat(const PlanStepArgs& args) {
  checkPlanStep(args);
  const Shape& shape = args.p.shape;
  const int64_t batch = shape[0], outputCount = args.modelOutput.shape.count() / (args.branches * batch);
  for (int64_t b = 0; b < batch; b++)
    stepImage({args, *args.row, b, batch, shape.count() / batch, outputCount});
}

}  // namespace nd
