// One row of the step plan, from the definition: hand-made cases with known answers, and the same sums
// written again over plain arrays.
#include "cpu/reference/plan-step.h"

#include <algorithm>
#include <cmath>

#include "test/native/op-test.h"

using namespace ndtest;
using nd::Basis;
using nd::PlanRow;

namespace {

/// Latents [batch, channels, 2, 3] of every basis, filled at random.
struct Latents {
  int64_t batch, channels;
  std::vector<Owned> state;
  Owned p;

  Latents(int64_t batch, int64_t channels) : batch(batch), channels(channels), p({batch, channels, 2, 3}) {
    Random random(7);
    for (int i = 0; i < nd::kBasisCount; i++)
      state.push_back(Owned({batch, channels, 2, 3}).fill([&] { return random(); }));
  }
  int64_t image() const { return channels * 6; }
  float& at(Basis basis, int64_t i) { return state[static_cast<int>(basis)].tensor.f32()[i]; }
  float& predicted(int64_t i) { return p.tensor.f32()[i]; }

  nd::PlanStepArgs args(const PlanRow& row, Owned& output, int branches) {
    nd::PlanStepArgs a;
    a.row = &row;
    a.modelOutput = output.tensor;
    a.branches = branches;
    for (int i = 0; i < nd::kBasisCount; i++) a.state[i] = state[i].tensor;
    a.p = p.tensor;
    return a;
  }
};

Owned randomOutput(int64_t images, int64_t channels) {
  Random random(11);
  return Owned({images, channels, 2, 3}).fill([&] { return random(); });
}

bool near(double a, double b, double tolerance = 1e-6) { return std::fabs(a - b) <= tolerance; }

/// A row that only predicts: p = b·m.
PlanRow predictRow(double b) {
  PlanRow row;
  row.b = b;
  return row;
}

}  // namespace

ND_TEST("planStep: convert, then writes that see earlier writes") {
  Latents l(2, 3);
  Owned output = randomOutput(2, 3);
  PlanRow row;
  row.a = 0.9, row.b = -0.4, row.c = 1.5, row.d = -1.25;
  row.writes = {{Basis::r1, {{Basis::r0, 1}}},
                {Basis::r0, {{Basis::h, 1}}},
                {Basis::x,
                 {{Basis::x, 0.5},
                  {Basis::r0, 2},
                  {Basis::r1, -1},
                  {Basis::n, 0.25},
                  {Basis::nPrev, 0.125},
                  {Basis::m, 3}}},
                {Basis::r2, {{Basis::x, 1}, {Basis::n0, -2}, {Basis::orig, 4}}}};
  Latents before = l;
  nd::planStepFloat(l.args(row, output, 1));
  for (int64_t i = 0; i < 2 * l.image(); i++) {
    const double x = before.at(Basis::x, i), m = output.tensor.f32()[i];
    const double p = 0.9 * x - 0.4 * m, h = 1.5 * x - 1.25 * p;
    const double next = 0.5 * x + 2 * h - before.at(Basis::r0, i) + 0.25 * before.at(Basis::n, i) +
                        0.125 * before.at(Basis::nPrev, i) + 3 * m;
    CHECK(near(l.predicted(i), p));
    CHECK(near(l.at(Basis::r0, i), h) && l.at(Basis::r1, i) == before.at(Basis::r0, i));
    CHECK(near(l.at(Basis::x, i), next));
    CHECK(near(l.at(Basis::r2, i), next - 2 * before.at(Basis::n0, i) + 4 * before.at(Basis::orig, i), 3e-6));
    CHECK(near(l.at(Basis::m, i), m) && near(l.at(Basis::h, i), h));
    CHECK(l.at(Basis::n, i) == before.at(Basis::n, i) && l.at(Basis::r7, i) == before.at(Basis::r7, i));
  }
}

ND_TEST("planStep: guidance over two and three branches") {
  Latents l(2, 2);
  Owned output = randomOutput(6, 2);
  PlanRow row = predictRow(1);
  row.guidance = {7.5, 1.5};
  for (int branches : {1, 2, 3}) {
    Owned part({branches * 2, 2, 2, 3});
    std::copy_n(output.tensor.f32(), part.tensor.shape.count(), part.tensor.f32());
    nd::planStepFloat(l.args(row, part, branches));
    for (int64_t i = 0; i < 2 * l.image(); i++) {
      const double m0 = output.tensor.f32()[i];
      double m = m0;
      for (int branch = 1; branch < branches; branch++)
        m += row.guidance[branch - 1] * (output.tensor.f32()[branch * 2 * l.image() + i] - m0);
      CHECK(near(l.predicted(i), m));
    }
  }
}

ND_TEST("planStep: guidance rescale uses each image's own unbiased deviation") {
  Latents l(2, 2);
  Owned output = randomOutput(4, 2);
  PlanRow row = predictRow(1);
  row.guidance = {5};
  nd::PlanStepArgs args = l.args(row, output, 2);
  args.guidanceRescale = 0.7;
  nd::planStepFloat(args);
  const int64_t n = l.image();
  for (int64_t b = 0; b < 2; b++) {
    const float *negative = output.tensor.f32() + b * n, *text = output.tensor.f32() + (2 + b) * n;
    std::vector<double> guided(n);
    for (int64_t i = 0; i < n; i++) guided[i] = negative[i] + 5.0 * (text[i] - negative[i]);
    const auto variance = [&](auto value) {  // Σx² − (Σx)²/n over n − 1: another formula than the code's
      double sum = 0, squares = 0;
      for (int64_t i = 0; i < n; i++) sum += value[i], squares += static_cast<double>(value[i]) * value[i];
      return (squares - sum * sum / static_cast<double>(n)) / static_cast<double>(n - 1);
    };
    const double ratio = std::sqrt(variance(text) / variance(guided));
    for (int64_t i = 0; i < n; i++)
      CHECK(near(l.predicted(b * n + i), 0.7 * guided[i] * ratio + 0.3 * guided[i], 3e-6));
  }
  // Without a text branch there is nothing to rescale to.
  Owned one = randomOutput(2, 2);
  args = l.args(row, one, 1);
  args.guidanceRescale = 0.7;
  nd::planStepFloat(args);
  CHECK(l.predicted(3) == one.tensor.f32()[3]);
}

ND_TEST("planStep: clip limits p before h is made of it") {
  Latents l(1, 1);
  Owned output({1, 1, 2, 3});
  const float values[6] = {-3, -1, -0.5f, 0.5f, 1, 3};
  std::copy_n(values, 6, output.tensor.f32());
  PlanRow row = predictRow(1);
  row.clip = 0.75;
  row.d = 2;
  row.writes = {{Basis::r0, {{Basis::h, 1}}}};
  nd::planStepFloat(l.args(row, output, 1));
  const float expected[6] = {-0.75f, -0.75f, -0.5f, 0.5f, 0.75f, 0.75f};
  for (int i = 0; i < 6; i++) CHECK(l.predicted(i) == expected[i] && l.at(Basis::r0, i) == 2 * expected[i]);
}

ND_TEST("planStep: dynamic thresholding per image") {
  Latents l(3, 1);
  Owned output({3, 1, 2, 3});
  // |p| sorted: image 0 has quantile(0.9) at position 4.5 between 3 and 4; image 1 stays below 1; image 2
  // exceeds maxValue.
  const float values[18] = {1,    -2,    4, 0,   3,    -0.5f, 0.1f, -0.2f, 0.9f,
                            0.3f, -0.4f, 0, 100, -100, 50,    2,    3,     100};
  std::copy_n(values, 18, output.tensor.f32());
  PlanRow row = predictRow(1);
  row.threshold = {0.9, 10.0};
  nd::planStepFloat(l.args(row, output, 1));
  for (int i = 0; i < 6; i++) CHECK(near(l.predicted(i), std::clamp(values[i], -3.5f, 3.5f) / 3.5));
  for (int i = 6; i < 12; i++) CHECK(l.predicted(i) == values[i]);
  for (int i = 12; i < 18; i++) CHECK(near(l.predicted(i), std::clamp(values[i], -10.0f, 10.0f) / 10));

  output.tensor.f32()[1] = std::nanf("");
  nd::planStepFloat(l.args(row, output, 1));
  CHECK(std::isnan(l.predicted(0)) && l.predicted(7) == values[7]);
  row.threshold = {1.0, 10.0};  // the largest value itself
  output.tensor.f32()[1] = 0;
  nd::planStepFloat(l.args(row, output, 1));
  CHECK(l.predicted(2) == 1 && near(l.predicted(4), 0.75));
}

ND_TEST("planStep: a predicted variance scales the noise, of the text branch where there are two") {
  for (int branches : {1, 2}) {
    Latents l(2, 2);
    Owned output = randomOutput(2 * branches, 4);
    PlanRow row = predictRow(1);
    row.guidance = {3};
    row.learnedRange = {-4.0, -1.0};
    row.writes = {{Basis::x, {{Basis::n, 0.5}}}};
    nd::planStepFloat(l.args(row, output, branches));
    const int64_t n = l.image();
    for (int64_t b = 0; b < 2; b++)
      for (int64_t i = 0; i < n; i++) {
        const float *first = output.tensor.f32() + b * 2 * n,
                    *last = output.tensor.f32() + ((branches - 1) * 2 + b) * 2 * n;
        const double v = (last[n + i] + 1) / 2,
                     m = first[i] + (branches > 1 ? 3.0 * (last[i] - first[i]) : 0);
        CHECK(near(l.predicted(b * n + i), m));
        CHECK(near(l.at(Basis::x, b * n + i),
                   0.5 * l.at(Basis::n, b * n + i) * std::exp(0.5 * (v * -1 + (1 - v) * -4))));
      }
  }
}

ND_TEST("planStep: the blend keeps the original outside of the mask, after the writes") {
  Latents l(2, 3);
  Owned output = randomOutput(2, 3), mask({2, 1, 2, 3});
  Random random(3);
  mask.fill([&] { return random() < 0 ? 0.0f : 1.0f; });
  mask.tensor.f32()[4] = 0.25f;
  PlanRow row = predictRow(0);
  row.writes = {{Basis::x, {{Basis::m, 1}}}};
  row.blend = {0.8, 0.6};
  nd::PlanStepArgs args = l.args(row, output, 1);
  args.mask = &mask.tensor;
  nd::planStepFloat(args);
  for (int64_t i = 0; i < 2 * l.image(); i++) {
    const double kept = 0.8 * l.at(Basis::orig, i) + 0.6 * l.at(Basis::n0, i),
                 w = mask.tensor.f32()[i / 18 * 6 + i % 6];
    CHECK(near(l.at(Basis::x, i), w * output.tensor.f32()[i] + (1 - w) * kept));
  }
  args.mask = nullptr;
  nd::planStepFloat(args);
  CHECK(l.at(Basis::x, 0) == output.tensor.f32()[0]);
}

ND_TEST("planStep: an absent tensor is an error only where a term needs it") {
  Latents l(1, 1);
  Owned output = randomOutput(1, 1);
  PlanRow row = predictRow(1);
  row.writes = {{Basis::x, {{Basis::h, 1}, {Basis::r3, 0}}}};
  nd::PlanStepArgs args = l.args(row, output, 1);
  args.state[static_cast<int>(Basis::r3)] = {};
  args.state[static_cast<int>(Basis::n)] = {};
  nd::planStepFloat(args);
  CHECK(l.at(Basis::x, 2) == output.tensor.f32()[2]);
  row.writes[0].terms[1].coefficient = 0.5;
  CHECK_ERROR((nd::planStepFloat(args), 0), nd::ErrorCode::Internal, "every term's tensor");
  row.writes = {{Basis::r3, {{Basis::h, 1}}}};
  CHECK_ERROR((nd::planStepFloat(args), 0), nd::ErrorCode::Internal, "written tensor");
  row.writes = {{Basis::n0, {{Basis::h, 1}}}};
  CHECK_ERROR((nd::planStepFloat(args), 0), nd::ErrorCode::Internal, "x or a register");
  row.writes.clear();
  args.branches = 2;
  CHECK_ERROR((nd::planStepFloat(args), 0), nd::ErrorCode::Internal, "guidance weight");
}
