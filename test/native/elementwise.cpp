// Activations on every instruction set against the reference.
#include <algorithm>
#include <string>

#include "test/native/op-test.h"

using namespace ndtest;

ND_TEST("activate: values, lengths, strided rows, extremes") {
  forEachIsa([](const std::string& isa, const Backends& backends) {
    for (auto activation : {nd::Activation::None, nd::Activation::Silu, nd::Activation::Gelu,
                            nd::Activation::QuickGelu, nd::Activation::Relu, nd::Activation::GeluTanh}) {
      double worst = 0;
      for (auto [rows, width, stride] : {std::tuple<int64_t, int64_t, int64_t>{1, 1, 1},
                                         {3, 5, 5},
                                         {7, 9, 13},
                                         {40, 1000, 1000},
                                         {40, 1000, 1003}}) {
        Random random(static_cast<uint64_t>(rows + width));
        Owned x({rows, width}, stride);
        x.fill([&] { return random() * 12; });
        // exp and erf are good to 3e-7; results reach 12.
        worst = std::max(worst, compareOperation("activate " + isa, 12 * 3e-7, Owned({rows, width}), backends,
                                                 [&](nd::Backend& b, nd::Tensor y) {
                                                   b.activate(x.tensor, activation, y);
                                                 }));
      }
      note(isa + nd::format(": activation %d, worst error %.2g", static_cast<int>(activation), worst));

      // Far from 0 every activation is x or 0.
      Owned x({1, 4}), y({1, 4});
      x.at(0, 0) = 1000, x.at(0, 1) = -1000, x.at(0, 2) = 1e30f, x.at(0, 3) = -1e30f;
      backends[0]->activate(x.tensor, activation, y.tensor);
      const bool linear = activation == nd::Activation::None;
      CHECK(y.at(0, 0) == 1000 && y.at(0, 2) == 1e30f);
      CHECK(y.at(0, 1) == (linear ? -1000 : 0) && y.at(0, 3) == (linear ? -1e30f : 0));
    }
  });
}

ND_TEST("activate: the reference against known values") {
  // Φ(1) = 0.841344746, sigmoid(1) = 0.731058579, sigmoid(1.702) = 0.845795...
  auto reference = nd::makeReferenceBackend();
  Owned x({1, 2}), y({1, 2});
  x.at(0, 0) = 1, x.at(0, 1) = -1;
  reference->activate(x.tensor, nd::Activation::Silu, y.tensor);
  CHECK(std::fabs(y.at(0, 0) - 0.7310585786) < 1e-7 && std::fabs(y.at(0, 1) + 0.2689414214) < 1e-7);
  reference->activate(x.tensor, nd::Activation::Gelu, y.tensor);
  CHECK(std::fabs(y.at(0, 0) - 0.8413447461) < 1e-7 && std::fabs(y.at(0, 1) + 0.1586552539) < 1e-7);
  reference->activate(x.tensor, nd::Activation::QuickGelu, y.tensor);
  CHECK(std::fabs(y.at(0, 0) - 1 / (1 + std::exp(-1.702))) < 1e-7);
}
