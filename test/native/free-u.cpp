// FreeU's filter against a plain discrete Fourier transform with the shifted spectrum's middle scaled.
#include "engine/models/free-u.h"

#include <complex>
#include <numbers>

#include "test/native/backends.h"
#include "test/native/check.h"

namespace nd::test {
namespace {

/// diffusers' fourier_filter with threshold 1, of one map [h, w] of one channel.
std::vector<float> filtered(const std::vector<float>& x, int64_t h, int64_t w, double scale) {
  using Complex = std::complex<double>;
  const auto turn = [&](int64_t fy, int64_t fx, int64_t y, int64_t xx) {
    return 2 * std::numbers::pi *
           (static_cast<double>(fy * y) / static_cast<double>(h) +
            static_cast<double>(fx * xx) / static_cast<double>(w));
  };
  std::vector<float> out(x.size());
  std::vector<Complex> sums(x.size());
  for (int64_t i = 0; i < h; i++)
    for (int64_t j = 0; j < w; j++) {
      // Place (i, j) of the shifted spectrum is frequency (i − h/2, j − w/2).
      const int64_t fy = i - h / 2, fx = j - w / 2;
      Complex bin = 0;
      for (int64_t y = 0; y < h; y++)
        for (int64_t k = 0; k < w; k++)
          bin += double{x[static_cast<size_t>(y * w + k)]} * std::polar(1.0, -turn(fy, fx, y, k));
      const bool middle = i >= h / 2 - 1 && i < h / 2 + 1 && j >= w / 2 - 1 && j < w / 2 + 1;
      if (middle) bin *= scale;
      for (int64_t y = 0; y < h; y++)
        for (int64_t k = 0; k < w; k++)
          sums[static_cast<size_t>(y * w + k)] += bin * std::polar(1.0, turn(fy, fx, y, k));
    }
  for (size_t i = 0; i < out.size(); i++)
    out[i] = static_cast<float>(sums[i].real() / static_cast<double>(h * w));
  return out;
}

}  // namespace

ND_TEST("FreeU: four terms of the Fourier sum") {
  for (const auto& [h, w] :
       {std::pair<int64_t, int64_t>{8, 8}, {4, 6}, {5, 7}, {9, 11}, {2, 3}, {1, 4}, {1, 1}}) {
    const std::vector<float> first = randomFloats(h * w, 1), second = randomFloats(h * w, 2);
    std::vector<float> both;  // two channels side by side
    for (size_t i = 0; i < first.size(); i++) both.insert(both.end(), {first[i], second[i]});
    scaleLowFrequencies(both.data(), h, w, 2, 0.4);
    const std::vector<float> a = filtered(first, h, w, 0.4), b = filtered(second, h, w, 0.4);
    std::vector<float> expected;
    for (size_t i = 0; i < a.size(); i++) expected.insert(expected.end(), {a[i], b[i]});
    checkClose(both, expected, 1e-6,
               format("%lldx%lld", static_cast<long long>(h), static_cast<long long>(w)));
  }
}

ND_TEST("FreeU: the backbone's first half") {
  for (const Subject& s : subjects()) {
    Arena arena(*s.backend);
    Context context{*s.backend, arena};
    const std::vector<float> host = randomFloats(2 * 3 * 4 * 5, 3);
    const OnBackend x(*s.backend, {2, 3, 4, 5}, host);
    std::vector<float> out(host.size()), expected = host;
    s.backend->download(scaleBackbone(context, x, 1.5), out.data());
    for (size_t i = 0; i < expected.size(); i++)
      if (i % 5 < 2) expected[i] *= 1.5f;
    checkClose(out, expected, 1e-6, s.isa);
  }
}

}  // namespace nd::test
