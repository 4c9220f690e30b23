// Convolutions against the reference: kernels, strides, paddings, resizing, skip, epilogues; directly and,
// for 3 × 3 of stride 1, by Winograd's transforms.
#include "cpu/cpu-backend.h"
#include "test/native/backends.h"
#include "test/native/check.h"

namespace nd::test {
namespace {

struct Case {
  int64_t b, h, w, c1, c2, n;
  int kernelH = 3, kernelW = 3, stride = 1, padTop = 1, padLeft = 1;
  int64_t inputH = 0, inputW = 0;  // 0: not resized
  int64_t outH = 0, outW = 0;      // 0: with symmetric padding
  DType dtype = DType::F16;
  Activation activation = Activation::None;
  bool channelAdd = false, residual = false, residualIsY = false, strided = false, linearWeight = false;
  bool wrapX = false, wrapY = false;
};

std::vector<float> run(Backend& backend, Case c) {
  if (!c.inputH) c.inputH = c.h, c.inputW = c.w;
  if (!c.outH) {
    c.outH = (c.inputH + 2 * c.padTop - c.kernelH) / c.stride + 1;
    c.outW = (c.inputW + 2 * c.padLeft - c.kernelW) / c.stride + 1;
  }
  const int64_t channels = c.c1 + c.c2, taps = c.kernelH * c.kernelW, count = c.n * channels * taps;
  const Shape shape = c.linearWeight ? Shape{c.n, channels} : Shape{c.n, channels, c.kernelH, c.kernelW};
  const WeightPtr weight = makeWeight(backend, c.linearWeight ? WeightKind::Linear : WeightKind::Conv,
                                      HostWeight(shape, randomFloats(count, 1), c.dtype));
  const WeightPtr bias =
      makeWeight(backend, WeightKind::Vector, HostWeight({c.n}, randomFloats(c.n, 2), DType::F32));
  const OnBackend x(backend, {c.b, c.h, c.w, c.c1}, randomFloats(c.b * c.h * c.w * c.c1, 3),
                    c.strided ? c.c1 + 5 : 0);
  const OnBackend skip(backend, {c.b, c.h, c.w, c.c2 ? c.c2 : 1},
                       randomFloats(c.b * c.h * c.w * (c.c2 ? c.c2 : 1), 4), c.strided ? c.c2 + 3 : 0);
  const OnBackend y(backend, {c.b, c.outH, c.outW, c.n}, randomFloats(c.b * c.outH * c.outW * c.n, 5));
  const OnBackend residual(backend, y.tensor().shape, randomFloats(c.b * c.outH * c.outW * c.n, 6));
  const OnBackend time(backend, {c.b, c.n}, randomFloats(c.b * c.n, 7), c.n + 2);
  ConvArgs a{weight.get(), bias.get()};
  a.x = x, a.y = y;
  if (c.c2) a.skip = &skip;
  a.kernelH = c.kernelH, a.kernelW = c.kernelW, a.stride = c.stride, a.padTop = c.padTop,
  a.padLeft = c.padLeft;
  a.inputH = c.inputH, a.inputW = c.inputW;
  a.wrapX = c.wrapX, a.wrapY = c.wrapY;
  if (c.channelAdd) a.channelAdd = &time;
  a.activation = c.activation;
  if (c.residual) a.residual = c.residualIsY ? &y : &residual;
  backend.conv2d(a);
  return y.download();
}

constexpr auto kNever = FewerProducts::Never, kAlways = FewerProducts::Always;
// Whole layers; blocks of 5 tiles with their filters made first; the same with filters made in every task.
constexpr WinogradOptions kWinograd[] = {{kAlways}, {kAlways, 0, 5}, {kAlways, 0, 5, 0}};

void compare(const Case& c) {
  const int64_t k = (c.c1 + c.c2) * c.kernelH * c.kernelW;
  const std::vector<float> expected = run(reference(), c);
  const double tolerance = sumTolerance(k, largest(c.dtype));
  const auto check = [&](const Subject& s, const WinogradOptions& options, double allowed, const char* way) {
    const With with(dynamic_cast<CpuBackend&>(*s.backend).winogradOptions, options);
    checkClose(run(*s.backend, c), expected, allowed,
               format("%s conv %dx%d s%d B=%lld %lldx%lld C=%lld+%lld N=%lld%s", s.isa.c_str(), c.kernelH,
                      c.kernelW, c.stride, static_cast<long long>(c.b), static_cast<long long>(c.h),
                      static_cast<long long>(c.w), static_cast<long long>(c.c1), static_cast<long long>(c.c2),
                      static_cast<long long>(c.n), way));
  };
  for (const Subject& s : subjects()) {
    check(s, {kNever}, tolerance, "");
    if (c.kernelH != 3 || c.kernelW != 3 || c.stride != 1) continue;
    // Its error is about twice that of the plain sum (kernels/winograd.h).
    for (const WinogradOptions& options : kWinograd) check(s, options, 3 * tolerance, " Winograd");
  }
}

}  // namespace

ND_TEST("conv2d: sizes") {
  for (int64_t h : {1, 2, 5, 9})
    for (int64_t w : {1, 3, 11})
      for (int64_t c : {1, 4, 9, 33})
        for (int64_t n : {1, 4, 17, 40}) compare({2, h, w, c, 0, n});
}

ND_TEST("conv2d: skip") {
  for (int64_t c1 : {1, 16, 37})
    for (int64_t c2 : {1, 5, 64}) compare({2, 5, 7, c1, c2, 19});
  compare({1, 6, 6, 350, 400, 20});
}

ND_TEST("conv2d: long channels") {
  compare({1, 5, 4, 700, 0, 21});
  compare({2, 9, 11, 128, 0, 70});
}

ND_TEST("conv2d: the way depends on an image's size, not on the batch") {
  CpuBackend& backend = dynamic_cast<CpuBackend&>(*subjects().front().backend);
  const auto wins = [&](int64_t size, int64_t channels, int64_t n, int stride = 1) {
    const WeightPtr weight =
        makeWeight(backend, WeightKind::Conv,
                   HostWeight({n, channels, 3, 3}, std::vector<float>(n * channels * 9), DType::F16));
    GemmInput in;
    in.rows = false, in.kernelH = in.kernelW = 3, in.stride = stride;
    in.outH = in.outW = size;
    return useWinograd({}, backend.kernels(), packed(weight.get()), in);
  };
  CHECK(wins(64, 320, 320) && wins(8, 256, 256) && wins(16, 48, 48) && wins(64, 320, 4));
  CHECK(!wins(4, 256, 256) && !wins(1, 64, 64) && !wins(64, 4, 320) && !wins(64, 320, 320, 2));
  // Images of a batch come out as they do alone, bit for bit.
  for (int64_t size : {4, 9, 12}) {
    const std::vector<float> host = randomFloats(2 * size * size * 40, 3);
    const WeightPtr weight = makeWeight(backend, WeightKind::Conv,
                                        HostWeight({50, 40, 3, 3}, randomFloats(50 * 40 * 9, 1), DType::F16));
    const auto conv = [&](int64_t images, const std::vector<float>& values) {
      const OnBackend x(backend, {images, size, size, 40}, values), y(backend, {images, size, size, 50});
      ConvArgs a{weight.get()};
      a.x = x, a.y = y, a.inputH = a.inputW = size;
      backend.conv2d(a);
      return y.download();
    };
    std::vector<float> both = conv(1, {host.begin(), host.begin() + size * size * 40});
    const std::vector<float> second = conv(1, {host.begin() + size * size * 40, host.end()});
    both.insert(both.end(), second.begin(), second.end());
    checkClose(conv(2, host), both, 0, "two images");
  }
}

ND_TEST("conv2d: strides and paddings") {
  for (int stride : {1, 2, 3})
    for (int pad : {0, 1, 2}) compare({2, 9, 11, 6, 0, 10, 3, 3, stride, pad, pad});
  // The VAE encoder's downsampler: padding only at the bottom and the right.
  compare({1, 8, 10, 6, 0, 10, 3, 3, 2, 0, 0, 0, 0, 4, 5});
  compare({1, 9, 7, 6, 0, 10, 3, 3, 2, 0, 0, 0, 0, 5, 4});
}

ND_TEST("conv2d: kernels") {
  compare({2, 9, 8, 6, 0, 10, 1, 1, 1, 0, 0});
  compare({2, 9, 8, 6, 3, 10, 1, 1, 1, 0, 0});
  compare({2, 9, 8, 6, 0, 10, 1, 1, 2, 0, 0});
  compare({2, 9, 8, 6, 0, 10, 5, 3, 1, 2, 1});
  compare({2, 9, 8, 6, 0, 10, 2, 4, 1, 0, 1});
  compare({1, 14, 14, 3, 0, 10, 7, 7, 7, 0, 0});
  Case linear{2, 9, 8, 6, 3, 10, 1, 1, 1, 0, 0};
  linear.linearWeight = true;
  compare(linear);
}

ND_TEST("conv2d: resize") {
  compare({2, 4, 5, 6, 0, 10, 3, 3, 1, 1, 1, 8, 10});
  compare({2, 4, 5, 6, 4, 10, 3, 3, 1, 1, 1, 9, 11});
  compare({1, 5, 6, 6, 0, 10, 3, 3, 1, 1, 1, 13, 7});
  compare({1, 7, 9, 6, 0, 10, 3, 3, 1, 1, 1, 3, 4});
  compare({1, 4, 4, 6, 0, 10, 1, 1, 1, 0, 0, 8, 8});
}

ND_TEST("conv2d: wrapping round either side") {
  for (const auto& [wrapX, wrapY] : {std::pair{true, true}, {true, false}, {false, true}}) {
    for (Case c : {Case{2, 5, 7, 6, 0, 10}, Case{1, 9, 8, 6, 3, 10, 3, 3, 2, 1, 1},
                   Case{2, 9, 8, 6, 0, 10, 5, 3, 1, 2, 1}, Case{1, 4, 5, 6, 4, 10, 3, 3, 1, 1, 1, 9, 11},
                   Case{1, 1, 2, 6, 0, 10}}) {
      c.wrapX = wrapX, c.wrapY = wrapY;
      compare(c);
    }
  }
}

ND_TEST("conv2d: a picture rolled before a wrapping convolution is rolled after it") {
  const int64_t h = 6, w = 7, channels = 3, n = 4;
  const auto rolled = [&](const std::vector<float>& x, int64_t c, int64_t by) {
    std::vector<float> y(x.size());
    for (int64_t i = 0; i < h; i++)
      for (int64_t j = 0; j < w; j++)
        for (int64_t k = 0; k < c; k++)
          y[static_cast<size_t>((i * w + (j + by) % w) * c + k)] =
              x[static_cast<size_t>((i * w + j) * c + k)];
    return y;
  };
  for (const Subject& s : subjects()) {
    const WeightPtr weight =
        makeWeight(*s.backend, WeightKind::Conv,
                   HostWeight({n, channels, 3, 3}, randomFloats(n * channels * 9, 1), DType::F32));
    const auto conv = [&](const std::vector<float>& host) {
      const OnBackend x(*s.backend, {1, h, w, channels}, host), y(*s.backend, {1, h, w, n});
      ConvArgs a{weight.get()};
      a.x = x, a.y = y, a.inputH = h, a.inputW = w, a.wrapX = true;
      s.backend->conv2d(a);
      return y.download();
    };
    const std::vector<float> host = randomFloats(h * w * channels, 2);
    checkClose(conv(rolled(host, channels, 3)), rolled(conv(host), n, 3), 1e-5, s.isa);
  }
}

ND_TEST("conv2d: epilogues") {
  for (Activation a : {Activation::None, Activation::Silu, Activation::Gelu, Activation::QuickGelu,
                       Activation::Relu, Activation::GeluTanh}) {
    Case c{3, 5, 5, 20, 0, 21};
    c.activation = a;
    compare(c);
    c.channelAdd = true;
    compare(c);
    c.residual = true;
    compare(c);
    c.residualIsY = true;
    compare(c);
    c.c1 = 200;
    compare(c);
  }
}

ND_TEST("conv2d: dtypes and strides") {
  for (DType dtype : {DType::F32, DType::F16, DType::BF16, DType::F8_E4M3, DType::F8_E5M2}) {
    Case c{2, 5, 7, 20, 6, 21};
    c.dtype = dtype;
    c.strided = true;
    compare(c);
  }
}

}  // namespace nd::test
