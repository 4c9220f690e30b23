// Attention on every instruction set against the reference.
#include <algorithm>
#include <string>

#include "test/native/op-test.h"

using namespace ndtest;

namespace {

struct Case {
  int64_t batch, lq, lk, d;
  int heads;
  bool causal = false;
  float spread = 1;  // of the scores before the scale
  int64_t padding = 0;
};

/// Rounding of the weights follows the scores (a random walk over d products, times the largest score), that
/// of the sums over the keys is a random walk again; values lie in −1..1.
double tolerance(const Case& c) {
  const double largestScore = std::sqrt(static_cast<double>(c.d)) * c.spread;
  return 4 * 0x1p-24 *
         (8 + std::sqrt(static_cast<double>(c.lk)) + largestScore * std::sqrt(static_cast<double>(c.d)));
}

double runCase(const std::string& isa, const Backends& backends, const Case& c) {
  Random random(static_cast<uint64_t>(c.lq * 1000 + c.lk * 10 + c.d));
  const int64_t width = c.heads * c.d;
  Owned q({c.batch, c.lq, width}, width + c.padding), k({c.batch, c.lk, width}, width + 2 * c.padding),
      v({c.batch, c.lk, width}, width + c.padding), y({c.batch, c.lq, width});
  q.fill([&] { return random() * c.spread; });
  k.fill([&] { return random(); });
  v.fill([&] { return random(); });
  nd::AttentionArgs args{q.tensor, k.tensor, v.tensor, {}, c.heads, 1 / std::sqrt(static_cast<float>(c.d)),
                         c.causal};
  return compareOperation(nd::format("attention %s B%d Lq%d Lk%d d%d h%d%s", isa.c_str(), int(c.batch),
                                     int(c.lq), int(c.lk), int(c.d), c.heads, c.causal ? " causal" : ""),
                          tolerance(c), y, backends, [&](nd::Backend& backend, nd::Tensor out) {
                            args.y = out;
                            backend.attention(args);
                          });
}

}  // namespace

ND_TEST("attention: every head width, odd lengths, strided rows") {
  forEachIsa([](const std::string& isa, const Backends& backends) {
    double worst = 0;
    for (int64_t d : {1, 4, 7, 8, 40, 64, 80, 96, 128, 160, 512})
      for (auto [lq, lk] :
           {std::pair<int64_t, int64_t>{1, 1}, {5, 1}, {1, 77}, {17, 33}, {33, 77}, {70, 301}})
        worst = std::max(worst,
                         runCase(isa, backends, {2, lq, lk, d, d > 100 ? 1 : 3, false, 1, lq % 2 ? 5 : 0}));
    note(isa + nd::format(": worst error %.2g", worst));
  });
}

ND_TEST("attention: causal") {
  forEachIsa([](const std::string& isa, const Backends& backends) {
    for (int64_t d : {8, 40, 64})
      for (auto [lq, lk] : {std::pair<int64_t, int64_t>{1, 1},
                            {2, 2},
                            {77, 77},
                            {16, 16},
                            {65, 65},
                            {300, 300},
                            {10, 40},
                            {40, 10}})
        runCase(isa, backends, {2, lq, lk, d, 2, true, 1, 3});
  });
}

ND_TEST("attention: scores beyond 80 either way neither overflow nor vanish") {
  forEachIsa([](const std::string& isa, const Backends& backends) {
    for (bool causal : {false, true}) runCase(isa, backends, {1, 37, 301, 40, 2, causal, 60});

    // One query, two keys with scores s and −s: y = v₀ / (1 + e^(−2s)) …, and equal scores of ±s: the mean of
    // v.
    for (float s : {0.0f, 1e-3f, 5.0f, 80.0f, -80.0f, 1e4f, -1e4f}) {
      Owned q({1, 1, 1}), k({1, 4, 1}), v({1, 4, 1}), y({1, 1, 1});
      q.at(0, 0) = 1;
      for (int i = 0; i < 4; i++) k.at(i, 0) = s, v.at(i, 0) = static_cast<float>(i);
      backends[0]->attention({q.tensor, k.tensor, v.tensor, y.tensor, 1, 1.0f});
      CHECK(std::fabs(y.at(0, 0) - 1.5f) < 1e-6f);
      k.at(3, 0) = -s;
      backends[0]->attention({q.tensor, k.tensor, v.tensor, y.tensor, 1, 1.0f});
      const double other = std::exp(-2.0 * s);
      const double expected = std::isfinite(other) ? 3 * (1 + other) / (3 + other) : 3;
      CHECK(std::fabs(y.at(0, 0) - expected) < 1e-5);
    }
  });
}

ND_TEST("attention: NaN in one query or key stays in its rows") {
  forEachIsa([](const std::string&, const Backends& backends) {
    Random random(1);
    Owned q({1, 20, 8}), k({1, 30, 8}), v({1, 30, 8}), y({1, 20, 8});
    for (Owned* t : {&q, &k, &v}) t->fill([&] { return random(); });
    q.at(3, 0) = std::numeric_limits<float>::quiet_NaN();
    backends[0]->attention({q.tensor, k.tensor, v.tensor, y.tensor, 1, 0.3f});
    for (int i = 0; i < 20; i++) CHECK(std::isnan(y.at(i, 0)) == (i == 3));
    q.at(3, 0) = 0;
    k.at(5, 2) = std::numeric_limits<float>::quiet_NaN();
    backends[0]->attention({q.tensor, k.tensor, v.tensor, y.tensor, 1, 0.3f, true});
    for (int i = 0; i < 20; i++) CHECK(std::isnan(y.at(i, 0)) == (i >= 5));
  });
}

ND_TEST("attention: causal first row is the first value") {
  forEachIsa([](const std::string&, const Backends& backends) {
    Random random(2);
    Owned q({1, 50, 16}), k({1, 50, 16}), v({1, 50, 16}), y({1, 50, 16});
    for (Owned* t : {&q, &k, &v}) t->fill([&] { return random(); });
    backends[0]->attention({q.tensor, k.tensor, v.tensor, y.tensor, 2, 1.0f, true});
    for (int c = 0; c < 16; c++) CHECK(y.at(0, c) == v.at(0, c));
  });
}

ND_TEST("attention: a bias per head and pair of tokens") {
  forEachIsa([](const std::string& isa, const Backends& backends) {
    for (const int64_t images : {1, 2})
      for (auto [lq, lk] : {std::pair<int64_t, int64_t>{1, 1}, {77, 77}, {33, 301}}) {
        Random random(static_cast<uint64_t>(lq + lk));
        const int64_t d = 8, width = 3 * d;
        Owned q({2, lq, width}), k({2, lk, width}), v({2, lk, width}), y({2, lq, width});
        Owned bias({images, 3, lq, lk});
        for (Owned* t : {&q, &k, &v}) t->fill([&] { return random(); });
        int n = 0;
        bias.fill([&] { return n++ % 5 == 3 ? -1e30f : 3 * random(); });  // some keys are hidden
        nd::AttentionArgs args{q.tensor, k.tensor, v.tensor, {}, 3, 1.0f, false, &bias.tensor};
        compareOperation(nd::format("attention %s bias %dx%d", isa.c_str(), int(lq), int(lk)), 1e-5, y,
                         backends, [&](nd::Backend& backend, nd::Tensor out) {
                           args.y = out;
                           backend.attention(args);
                         });
        // Where no key is seen, all are seen alike.
        bias.fill([] { return -1e30f; });
        args.y = y.tensor;
        backends[0]->attention(args);
        double mean = 0;
        for (int64_t i = 0; i < lk; i++) mean += v.at(i, 0);
        CHECK(std::fabs(y.at(0, 0) - mean / static_cast<double>(lk)) < 1e-5);
      }
  });
}
