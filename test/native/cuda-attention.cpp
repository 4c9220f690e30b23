// The CUDA attention kernel in the simulator, against the reference operation on the same 16-bit inputs.
#include <cmath>

#include "cuda/kernels/attention.h"
#include "test/native/cuda-support.h"

namespace nd::test {
namespace {

struct Case {
  int64_t batch, lq, lk, d;
  int heads;
  bool causal = false;
  float spread = 1;  // of the queries
  int64_t padding = 0;
  DType type = DType::F16;
  int capability = 80;
};

void compare(const Case& c) {
  const int64_t width = c.heads * c.d;
  const Shape qs{c.batch, c.lq, width}, ks{c.batch, c.lk, width};
  auto q = randomOf(c.type, qs.count(), 1);
  for (float& v : q) v = rounded(v * c.spread, c.type);
  const auto k = randomOf(c.type, ks.count(), 2), v = randomOf(c.type, ks.count(), 3);
  const float scale = 1 / std::sqrt(static_cast<float>(c.d));
  const OnBackend rq(reference(), qs, q), rk(reference(), ks, k), rv(reference(), ks, v), ry(reference(), qs);
  reference().attention({rq, rk, rv, ry, c.heads, scale, c.causal});

  const int64_t stride = width + c.padding;
  const DeviceTensor dq(c.type, qs, q, stride), dk(c.type, ks, k, stride), dv(c.type, ks, v, stride),
      dy(c.type, qs);
  cuda::Launch launch = testLaunch(4);
  launch.capability = c.capability;
  cuda::attention(launch, c.type,
                  {dq.tensor(), dk.tensor(), dv.tensor(), dy.tensor(), c.heads, scale, c.causal});
  // The weights are rounded to 16 bits before they meet the values, which are below 1: the largest weight's
  // rounding of half an ulp, and a random walk of the others'. Scores are float32 sums.
  const double ulp = c.type == DType::F16 ? 0x1p-11 : 0x1p-8;
  checkRounded(dy.download(), ry.download(), c.type, ulp + 0x1p-20 * c.spread * std::sqrt(double(c.d)),
               format("attention B%d Lq%d Lk%d d%d h%d %s%s", int(c.batch), int(c.lq), int(c.lk), int(c.d),
                      c.heads, dtypeName(c.type), c.causal ? " causal" : ""));
}

}  // namespace

ND_TEST("cuda attention: every head width, odd lengths, strided rows") {
  for (int64_t d : {1, 7, 8, 40, 64, 72, 80, 96, 128, 160})
    for (auto [lq, lk] : {std::pair<int64_t, int64_t>{1, 1}, {5, 1}, {17, 33}, {33, 77}, {130, 150}})
      compare({2, lq, lk, d, d > 100 ? 1 : 3, false, 1, lq % 2 ? 8 : 0});
  for (int64_t d : {40, 64})
    compare({1, 33, 77, d, 2, false, 1, 5});  // rows that 16-byte copies cannot reach
}
ND_TEST("cuda attention: tensor copies and wgmma") {
  if (!haveHopper()) throw ndtest::Skip("needs a GPU of capability 9.0");

  for (DType type : {DType::F16, DType::BF16})
    for (int64_t d : {8, 40, 64, 72, 80, 128, 160})
      for (auto [lq, lk] : {std::pair<int64_t, int64_t>{64, 96}, {150, 300}})
        if (type == DType::F16 || lq == 64) compare({lq == 64 ? 2 : 1, lq, lk, d, 2, false, 1, 8, type, 90});
  for (int64_t d : {40, 64})
    for (auto [lq, lk] : {std::pair<int64_t, int64_t>{200, 200}, {70, 140}, {140, 100}})
      compare({1, lq, lk, d, 2, true, 1, 0, DType::F16, 90});
}
ND_TEST("cuda attention: width 512, with much and with little shared memory") {
  for (int capability : {80, 89})
    for (auto [lq, lk] : {std::pair<int64_t, int64_t>{1, 1}, {70, 77}, {64, 130}})
      compare({1, lq, lk, 512, 1, false, 1, 0, DType::F16, capability});
}
ND_TEST("cuda attention: bfloat16") {
  for (int64_t d : {40, 64, 80, 512}) compare({1, 70, 150, d, 1, false, 1, 0, DType::BF16});
}
ND_TEST("cuda attention: causal") {
  for (int64_t d : {8, 40, 64, 80})
    for (auto [lq, lk] :
         {std::pair<int64_t, int64_t>{1, 1}, {77, 77}, {65, 65}, {200, 200}, {10, 40}, {40, 10}})
      compare({2, lq, lk, d, 2, true, 1, 8});
}
ND_TEST("cuda attention: large scores neither overflow nor vanish") {
  for (bool causal : {false, true}) compare({1, 37, 200, 40, 2, causal, 60});
}
ND_TEST("cuda attention: NaN in one query or key stays in its rows") {
  const Shape qs{1, 20, 8}, ks{1, 30, 8};
  auto q = randomOf(DType::F16, qs.count(), 1), k = randomOf(DType::F16, ks.count(), 2);
  const auto v = randomOf(DType::F16, ks.count(), 3);
  const auto run = [&](bool causal) {
    const DeviceTensor dq(DType::F16, qs, q), dk(DType::F16, ks, k), dv(DType::F16, ks, v),
        dy(DType::F16, qs);
    cuda::attention(testLaunch(4), DType::F16,
                    {dq.tensor(), dk.tensor(), dv.tensor(), dy.tensor(), 1, 0.3f, causal});
    return dy.download();
  };
  q[3 * 8] = NAN;
  auto y = run(false);
  for (int i = 0; i < 20; i++) CHECK(std::isnan(y[i * 8]) == (i == 3));
  q[3 * 8] = 0, k[5 * 8 + 2] = NAN;
  y = run(true);
  for (int i = 0; i < 20; i++) CHECK(std::isnan(y[i * 8]) == (i >= 5));
}

}  // namespace nd::test
