// Group and layer normalisation on every instruction set against the reference.
#include <algorithm>
#include <string>

#include "test/native/op-test.h"

using namespace ndtest;

namespace {

std::vector<float> randomVector(Random& random, int64_t n) {
  std::vector<float> values(n);
  for (float& value : values) value = random() * 2;
  return values;
}

struct Case {
  int64_t batch, h, w, c1, c2;
  int groups;
  nd::Activation activation = nd::Activation::None;
  float mean = 0;
};

/// A handful of roundings of values that reach 2·√(reduction length) in the rarest case; x itself is exact.
constexpr double kRounding = 16 * 0x1p-24;

double runGroupNorm(const std::string& isa, const Backends& backends, const Case& c) {
  Random random(static_cast<uint64_t>(c.h * 100 + c.c1));
  Owned x({c.batch, c.h, c.w, c.c1}, c.c1 + (c.h % 2 ? 3 : 0)),
      skip({c.batch, c.h, c.w, std::max<int64_t>(c.c2, 1)});
  x.fill([&] { return random() + c.mean; });
  skip.fill([&] { return random() * 3 + c.mean; });
  const auto gamma = randomVector(random, c.c1 + c.c2), beta = randomVector(random, c.c1 + c.c2);
  return compareOperation(nd::format("groupNorm %s %dx%dx%dx(%d+%d) g%d mean %g", isa.c_str(), int(c.batch),
                                     int(c.h), int(c.w), int(c.c1), int(c.c2), c.groups, c.mean),
                          kRounding * 4, Owned({c.batch, c.h, c.w, c.c1 + c.c2}), backends,
                          [&](nd::Backend& backend, nd::Tensor y) {
                            const auto g = makeVector(backend, gamma), b = makeVector(backend, beta);
                            backend.groupNorm({x.tensor, c.c2 ? &skip.tensor : nullptr, g.get(), b.get(),
                                               c.groups, 1e-5f, c.activation, y});
                          });
}

}  // namespace

ND_TEST("groupNorm: odd group widths, groups across x and skip, few and many pixels") {
  forEachIsa([](const std::string& isa, const Backends& backends) {
    double worst = 0;
    for (auto activation : {nd::Activation::None, nd::Activation::Silu})
      for (const Case& c : {Case{1, 1, 1, 32, 0, 4}, Case{2, 3, 5, 12, 0, 4}, Case{1, 9, 11, 20, 13, 11},
                            Case{3, 8, 8, 64, 32, 32}, Case{1, 33, 31, 96, 0, 32}, Case{1, 7, 300, 5, 0, 1},
                            Case{2, 8, 8, 1280, 640, 32}, Case{1, 70, 64, 8, 1, 3}}) {
        Case with = c;
        with.activation = activation;
        worst = std::max(worst, runGroupNorm(isa, backends, with));
      }
    note(isa + nd::format(": worst error %.2g", worst));
  });
}

ND_TEST("groupNorm: a mean 10⁵ times the deviation costs no digits") {
  forEachIsa([](const std::string& isa, const Backends& backends) {
    // Both sides read the same rounded x, so that only the arithmetic is compared.
    for (float mean : {100.0f, -1e4f, 1e5f}) {
      runGroupNorm(isa, backends, {1, 16, 17, 24, 0, 4, nd::Activation::None, mean});
      runGroupNorm(isa, backends, {2, 20, 20, 16, 8, 3, nd::Activation::Silu, mean});
    }
  });
}

ND_TEST("groupNorm: an outlier first, a constant image, x as its own result") {
  forEachIsa([](const std::string& isa, const Backends& backends) {
    Random random(5);
    const std::vector<float> ones(8, 1), zeros(8, 0);
    Owned x({1, 10, 10, 8});
    x.fill([&] { return random(); });
    x.at(0, 0) = 1e4f;
    const auto run = [&](nd::Backend& backend, nd::Tensor y) {
      const auto g = makeVector(backend, ones), b = makeVector(backend, zeros);
      backend.groupNorm({x.tensor, nullptr, g.get(), b.get(), 2, 1e-5f, nd::Activation::None, y});
    };
    compareOperation("outlier " + isa, 20 * kRounding, Owned({1, 10, 10, 8}), backends, run);  // y reaches 20
    x.fill([] { return 3.25f; });
    CHECK(compareOperation("constant " + isa, 0, Owned({1, 10, 10, 8}), backends, run) == 0);

    x.fill([&] { return random(); });
    Owned separate({1, 10, 10, 8}), inPlace = x;
    run(*backends.back(), separate.tensor);
    const auto g = makeVector(*backends.back(), ones), b = makeVector(*backends.back(), zeros);
    backends.back()->groupNorm(
        {inPlace.tensor, nullptr, g.get(), b.get(), 2, 1e-5f, nd::Activation::None, inPlace.tensor});
    CHECK(identical(separate, inPlace));
  });
}

ND_TEST("layerNorm: every width, strided rows, a large mean") {
  forEachIsa([](const std::string& isa, const Backends& backends) {
    double worst = 0;
    for (float mean : {0.0f, 1000.0f, -1e5f})
      for (auto [rows, width] :
           {std::pair<int64_t, int64_t>{1, 1}, {3, 2}, {5, 7}, {9, 17}, {77, 768}, {200, 33}, {4, 1280}}) {
        Random random(static_cast<uint64_t>(rows * width));
        Owned x({rows, width}, width + rows % 3);
        x.fill([&] { return random() + mean; });
        const auto gamma = randomVector(random, width), beta = randomVector(random, width);
        worst = std::max(
            worst,
            compareOperation(
                nd::format("layerNorm %s %dx%d mean %g", isa.c_str(), int(rows), int(width), mean),
                4 * kRounding, Owned({rows, width}), backends, [&](nd::Backend& backend, nd::Tensor y) {
                  const auto g = makeVector(backend, gamma), b = makeVector(backend, beta);
                  backend.layerNorm({x.tensor, y, g.get(), b.get(), 1e-5f});
                }));
      }
    note(isa + nd::format(": worst error %.2g", worst));
  });
}

ND_TEST("groupNorm: scaled and shifted before the activation, GELU") {
  forEachIsa([](const std::string& isa, const Backends& backends) {
    for (const int64_t stride : {0, 48}) {  // 0: one row for all images
      Random random(5);
      Owned x({3, 5, 7, 16});
      Owned modulation({stride ? 3 : 1, 32}, 48);
      x.fill([&] { return random(); });
      modulation.fill([&] { return random(); });
      nd::Tensor rows = modulation.tensor;
      rows.shape = {3, 32}, rows.stride = stride;
      const auto gamma = randomVector(random, 16), beta = randomVector(random, 16);
      compareOperation("groupNorm modulated " + isa, kRounding * 8, Owned({3, 5, 7, 16}), backends,
                       [&](nd::Backend& backend, nd::Tensor y) {
                         const auto g = makeVector(backend, gamma), b = makeVector(backend, beta);
                         backend.groupNorm(
                             {x.tensor, nullptr, g.get(), b.get(), 4, 1e-5f, nd::Activation::Gelu, y, &rows});
                       });
    }
  });
}

ND_TEST("layerNorm: without centring and offset it is a root mean square norm") {
  forEachIsa([](const std::string& isa, const Backends& backends) {
    for (const int64_t width : {1, 7, 32, 129}) {
      Random random(static_cast<uint64_t>(width));
      Owned x({9, width}, width + 3);
      x.fill([&] { return random() + 2; });
      const auto gamma = randomVector(random, width);
      compareOperation("rmsNorm " + isa, kRounding * 4, Owned({9, width}), backends,
                       [&](nd::Backend& backend, nd::Tensor y) {
                         const auto g = makeVector(backend, gamma);
                         backend.layerNorm({x.tensor, y, g.get(), nullptr, 1e-6f, /*centred=*/false});
                       });
    }
  });
}

ND_TEST("resample: twice as large, and means of 2 x 2, the odd row and column left out") {
  forEachIsa([](const std::string& isa, const Backends& backends) {
    Random random(3);
    for (auto [h, w] : {std::pair<int64_t, int64_t>{2, 2}, {5, 7}, {16, 9}}) {
      Owned x({2, h, w, 5});
      x.fill([&] { return random(); });
      const auto run = [&](nd::Backend& backend, nd::Tensor y) { backend.resample(x.tensor, y); };
      compareOperation("upsample " + isa, 0, Owned({2, 2 * h, 2 * w, 5}), backends, run);
      compareOperation("averagePool " + isa, 1e-7, Owned({2, h / 2, w / 2, 5}), backends, run);
    }
  });
}
