// The vector activations against double arithmetic, over the range in which anything happens and far beyond
// it.
#include <algorithm>
#include <cmath>

#include "test/native/backends.h"
#include "test/native/check.h"

namespace nd::test {
namespace {

double exact(Activation activation, double x) {
  switch (activation) {
    case Activation::None:
      return x;
    case Activation::Silu:
      return x / (1 + std::exp(-x));
    case Activation::Gelu:
      return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
    case Activation::QuickGelu:
      return x / (1 + std::exp(-1.702 * x));
    case Activation::Relu:
      return x > 0 ? x : 0;
  }
  fail("unknown activation");
}

/// Largest error in units of max(|exact|, |x| · floor): tails that vanish beside x count as absolute.
double worstError(Backend& backend, Activation activation, double floor) {
  std::vector<float> x;
  for (int i = -40000; i <= 40000; i++) x.push_back(static_cast<float>(i) * (12.0f / 40000));
  for (float v : {0.0f, 1e-30f, -1e-30f, 20.0f, -20.0f, 87.0f, -87.0f, 88.5f, -88.5f, 89.0f, -89.0f, 1e4f,
                  -1e4f, 3e38f})
    x.push_back(v);
  const Shape shape{1, static_cast<int64_t>(x.size())};
  const OnBackend in(backend, shape, x), out(backend, shape);
  backend.activate(in, activation, out);
  const std::vector<float> y = out.download();
  double worst = 0;
  for (size_t i = 0; i < x.size(); i++) {
    const double e = exact(activation, x[i]), scale = std::max(std::abs(e), std::abs(x[i]) * floor) + 1e-37;
    worst = std::max(worst, std::isfinite(y[i]) ? std::abs(y[i] - e) / scale : INFINITY);
  }
  return worst;
}

}  // namespace

ND_TEST("math: silu and quick_gelu are right in their digits, gelu beside x") {
  for (const Subject& s : subjects()) {
    const double silu = worstError(*s.backend, Activation::Silu, 1e-30);
    const double quick = worstError(*s.backend, Activation::QuickGelu, 1e-30);
    const double gelu = worstError(*s.backend, Activation::Gelu, 1);
    ndtest::note(format("%s: silu %.2g, quick_gelu %.2g relative; gelu %.2g of |x|", s.isa.c_str(), silu,
                        quick, gelu));
    // exp's argument is rounded to float: |1.702 x| · 2^-24 relative at |x| = 12 is 1.2e-6, silu has no such
    // product.
    CHECK(silu < 4e-7);
    CHECK(quick < 2e-6);
    CHECK(gelu < 3e-7);
    CHECK(worstError(*s.backend, Activation::Relu, 1e-30) == 0);
  }
}

ND_TEST("math: NaN stays NaN, infinity saturates") {
  for (const Subject& s : subjects())
    for (Activation a : {Activation::Silu, Activation::Gelu, Activation::QuickGelu, Activation::Relu}) {
      const OnBackend in(*s.backend, {1, 2}, {NAN, INFINITY}), out(*s.backend, {1, 2});
      s.backend->activate(in, a, out);
      const std::vector<float> y = out.download();
      CHECK(std::isnan(y[0]));
      CHECK(y[1] == INFINITY);
    }
}

}  // namespace nd::test
