// The CUDA kernels of linear layers and convolutions in the simulator, against the reference operation on the
// same 16-bit inputs: every tile, odd sizes, both load paths, cut K ranges, epilogues.
#include <cmath>
#include <functional>

#include "cuda/kernels/conv.h"
#include "cuda/kernels/gemm.h"
#include "cuda/kernels/matmul-hopper.h"
#include "cuda/kernels/matmul.h"
#include "cuda/kernels/weight-layout.h"
#include "test/native/cuda-support.h"

namespace nd::test {
namespace {

struct Linear {
  int64_t m, n, k;
  DType type = DType::F16;
  Activation activation = Activation::None;
  bool bias = true, residual = false, residualIsY = false, geglu = false;
  int64_t extraStride = 0;
};

/// Rows 0…N−1 and N…2N−1 in turn.
std::vector<float> interleaved(const std::vector<float>& w, int64_t n, int64_t k) {
  std::vector<float> out(w.size());
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < k; j++)
      out[2 * i * k + j] = w[i * k + j], out[(2 * i + 1) * k + j] = w[(n + i) * k + j];
  return out;
}
/// Rows padded with zeros to a multiple of 8.
std::vector<float> padded(const std::vector<float>& w, int64_t k, int64_t pitch) {
  std::vector<float> out(w.size() / k * pitch);
  for (size_t i = 0; i < w.size(); i++) out[i / k * pitch + i % k] = w[i];
  return out;
}

void compareLinear(const Linear& c, int multiprocessors = 4) {
  const int64_t rows = c.geglu ? 2 * c.n : c.n, pitch = (c.k + 7) / 8 * 8;
  const auto w = randomOf(c.type, rows * c.k, 1), x = randomOf(c.type, c.m * c.k, 3),
             y = randomOf(c.type, c.m * c.n, 4), residual = randomOf(c.type, c.m * c.n, 5),
             bias = randomFloats(rows, 2);

  LinearArgs a{};
  const WeightPtr weight = makeWeight(reference(), c.geglu ? WeightKind::Geglu : WeightKind::Linear,
                                      HostWeight({rows, c.k}, w, DType::F32));
  const WeightPtr biasWeight =
      makeWeight(reference(), WeightKind::Vector, HostWeight({rows}, bias, DType::F32));
  const OnBackend rx(reference(), {c.m, c.k}, x), ry(reference(), {c.m, c.n}, y),
      rr(reference(), {c.m, c.n}, residual);
  a.weight = weight.get(), a.bias = c.bias ? biasWeight.get() : nullptr;
  a.x = rx, a.y = ry, a.activation = c.activation;
  if (c.residual) a.residual = c.residualIsY ? &ry : &rr;
  reference().linear(a);

  const DeviceTensor dx(c.type, {c.m, c.k}, x, c.k + c.extraStride), dy(c.type, {c.m, c.n}, y),
      dr(c.type, {c.m, c.n}, residual),
      dw(c.type, {rows, pitch}, padded(c.geglu ? interleaved(w, c.n, c.k) : w, c.k, pitch));
  const DeviceFloats db(bias);
  cuda::GemmArgs g;
  g.type = c.type, g.m = c.m, g.n = c.n, g.k = c.k, g.x = dx.data(), g.xStride = c.k + c.extraStride;
  g.w = dw.data(), g.wPitch = pitch, g.bias = c.bias ? db.data() : nullptr, g.geglu = c.geglu;
  g.activation = c.activation, g.y = dy.data(), g.yStride = c.n;
  if (c.residual) g.residual = c.residualIsY ? dy.data() : dr.data(), g.residualStride = c.n;
  cuda::gemm(testLaunch(multiprocessors), g);
  const cuda::MatmulTile tile = cuda::forcedMatmulTile();
  checkRounded(dy.download(), ry.download(), c.type, sumTolerance(c.k, c.geglu ? std::sqrt(double(c.k)) : 1),
               format("M=%d N=%d K=%d %s act=%d geglu=%d, tile %dx%d, %d splits", int(c.m), int(c.n),
                      int(c.k), dtypeName(c.type), int(c.activation), c.geglu, tile.m, tile.n, tile.splits));
}

void withTile(const cuda::MatmulTile& tile, const std::function<void()>& body) {
  struct Restore {
    ~Restore() { cuda::forcedMatmulTile() = {}; }
  } restore;
  cuda::forcedMatmulTile() = tile;
  body();
}
/// Every tile, with K whole and cut, and Hopper's.
void forEachTile(const std::function<void()>& body) {
  for (int splits : {1, 3})
    for (auto [m, n] : {std::pair{128, 160}, {128, 128}, {64, 64}, {128, 16}}) withTile({m, n, splits}, body);
  if (!haveHopper()) return;
  for (int n : {160, 256}) withTile({128, n, 1, 0, true}, body);
}

struct Conv {
  int64_t b, h, w, c1, c2, n;
  int kernelH = 3, kernelW = 3, stride = 1, padTop = 1, padLeft = 1;
  int64_t inputH = 0, inputW = 0, outH = 0, outW = 0;
  DType type = DType::F16;
  Activation activation = Activation::None;
  bool channelAdd = false, residual = false, strided = false;
  bool wrapX = false, wrapY = false;
  bool folded = false;  // as four convolutions of 2 × 2
};

void compareConv(Conv c, int multiprocessors = 4) {
  if (!c.inputH) c.inputH = c.h, c.inputW = c.w;
  if (!c.outH) {
    c.outH = (c.inputH + 2 * c.padTop - c.kernelH) / c.stride + 1;
    c.outW = (c.inputW + 2 * c.padLeft - c.kernelW) / c.stride + 1;
  }
  const int64_t channels = c.c1 + c.c2, taps = c.kernelH * c.kernelW, k = channels * taps,
                pitch = (k + 7) / 8 * 8;
  const Shape xs{c.b, c.h, c.w, c.c1}, ss{c.b, c.h, c.w, c.c2 ? c.c2 : 1}, ys{c.b, c.outH, c.outW, c.n};
  auto w = randomOf(c.type, c.n * k, 1);
  if (c.folded)  // sums that 16 bits hold
    for (float& v : w) v = std::round(v * 16) / 16;
  const auto x = randomOf(c.type, xs.count(), 3), skip = randomOf(c.type, ss.count(), 4),
             residual = randomOf(c.type, ys.count(), 6), time = randomOf(c.type, c.b * c.n, 7),
             bias = randomFloats(c.n, 2);

  const auto arguments = [&](const Tensor& tx, const Tensor& tskip, const Tensor& tresidual,
                             const Tensor& ttime, const Tensor& ty) {
    ConvArgs a{};
    a.x = tx, a.y = ty;
    if (c.c2) a.skip = &tskip;
    a.kernelH = c.kernelH, a.kernelW = c.kernelW, a.stride = c.stride, a.padTop = c.padTop,
    a.padLeft = c.padLeft;
    a.inputH = c.inputH, a.inputW = c.inputW, a.activation = c.activation;
    a.wrapX = c.wrapX, a.wrapY = c.wrapY;
    if (c.channelAdd) a.channelAdd = &ttime;
    if (c.residual) a.residual = &tresidual;
    return a;
  };
  const WeightPtr weight = makeWeight(reference(), WeightKind::Conv,
                                      HostWeight({c.n, channels, c.kernelH, c.kernelW}, w, DType::F32));
  const WeightPtr biasWeight =
      makeWeight(reference(), WeightKind::Vector, HostWeight({c.n}, bias, DType::F32));
  const OnBackend rx(reference(), xs, x), rs(reference(), ss, skip), ry(reference(), ys),
      rr(reference(), ys, residual), rt(reference(), {c.b, c.n}, time);
  ConvArgs a = arguments(rx, rs, rr, rt, ry);
  a.weight = weight.get(), a.bias = biasWeight.get();
  reference().conv2d(a);

  std::vector<float> tapMajor(c.n * pitch);
  for (int64_t n = 0; n < c.n; n++)
    for (int64_t ch = 0; ch < channels; ch++)
      for (int64_t tap = 0; tap < taps; tap++)
        tapMajor[n * pitch + tap * channels + ch] = w[(n * channels + ch) * taps + tap];
  const DeviceTensor dw(c.type, {c.n, pitch}, tapMajor), dx(c.type, xs, x, c.strided ? c.c1 + 8 : 0),
      ds(c.type, ss, skip, c.strided ? ss.last() + 3 : 0), dy(c.type, ys), dr(c.type, ys, residual),
      dt(c.type, {c.b, c.n}, time, c.n + 2);
  const DeviceFloats db(bias);
  const ConvArgs onDevice = arguments(dx.tensor(), ds.tensor(), dr.tensor(), dt.tensor(), dy.tensor());
  if (c.folded) {
    CHECK(cuda::isEnlarged(onDevice));
    const int64_t foldedPitch = (4 * channels + 7) / 8 * 8;
    const DeviceTensor folded(c.type, {4 * c.n, foldedPitch});
    cuda::foldWeight(testLaunch(multiprocessors),
                     {c.type, dw.data(), c.n, channels, pitch, folded.data(), foldedPitch});
    cuda::convEnlarged(testLaunch(multiprocessors), c.type, onDevice, folded.data(), foldedPitch, db.data());
  } else {
    cuda::conv(testLaunch(multiprocessors), c.type, onDevice, dw.data(), pitch, db.data());
  }
  checkRounded(dy.download(), ry.download(), c.type, sumTolerance(k),
               format("conv %dx%d s%d B=%d %dx%d C=%d+%d N=%d %s", c.kernelH, c.kernelW, c.stride, int(c.b),
                      int(c.h), int(c.w), int(c.c1), int(c.c2), int(c.n), dtypeName(c.type)));
}

}  // namespace

ND_TEST("cuda matmul: sizes around every tile") {
  forEachTile([] {
    for (auto [m, n, k] :
         {std::tuple{1, 8, 8}, {7, 3, 24}, {65, 17, 32}, {129, 161, 40}, {40, 330, 320}, {200, 64, 1000}})
      compareLinear({m, n, k});
  });
}
ND_TEST("cuda matmul: odd K and strides") {
  for (int64_t k : {1, 3, 9, 37, 100}) compareLinear({70, 33, k});
  compareLinear({30, 40, 48, DType::F16, Activation::None, true, false, false, false, 8});
  compareLinear({30, 40, 48, DType::F16, Activation::None, true, false, false, false, 13});
}
ND_TEST("cuda matmul: epilogues") {
  forEachTile([] {
    for (Activation a : {Activation::None, Activation::Silu, Activation::Gelu, Activation::QuickGelu}) {
      compareLinear({70, 40, 320, DType::F16, a, false, true});
      compareLinear({70, 37, 320, DType::BF16, a, true, true, true});
    }
  });
}
ND_TEST("cuda matmul: geglu") {
  forEachTile([] {
    for (int64_t n : {1, 4, 7, 9, 50, 88}) {
      compareLinear({70, n, 320, DType::F16, Activation::None, true, false, false, true});
      compareLinear({5, n, 40, DType::BF16, Activation::None, false, true, true, true});
    }
  });
}
ND_TEST("cuda matmul: chosen tiles") {
  for (int multiprocessors : {1, 4, 132}) {
    compareLinear({2, 320, 1280}, multiprocessors);
    compareLinear({150, 330, 640}, multiprocessors);
  }
  // The shapes that the tiles are made for.
  const auto chosen = [](int64_t m, int64_t n, int64_t k) {
    return cuda::chooseMatmulTile(m, n, k, 132, cuda::kWorkspaceBytes);
  };
  CHECK(chosen(2048, 1280, 1280).n == 160 && chosen(2048, 1280, 1280).splits == 1);
  CHECK(chosen(8192, 320, 2880).n == 160);
  CHECK(chosen(128, 1280, 11520).splits > 4);
  CHECK(chosen(1048576, 3, 1152).n == 16);
  cuda::MatmulProblem q;
  q.width = q.inputW = q.outW = 2048, q.c = q.c1 = q.xStride = q.weightPitch = 1280;
  const auto chosenHopper = [&](int64_t n) { return q.n = n, cuda::chooseHopperTile(q, 132).n; };
  CHECK(chosenHopper(1280) == 160);   // 128 blocks of 132
  CHECK(chosenHopper(10240) == 256);  // 640 blocks: 4.85 waves
  q.stride = 2;
  CHECK(chosenHopper(1280) == 0);
}

ND_TEST("cuda conv2d: sizes, both load paths") {
  for (int64_t h : {1, 5, 9})
    for (int64_t w : {1, 11})
      for (int64_t c : {4, 8, 24, 64})
        for (int64_t n : {3, 40}) compareConv({2, h, w, c, 0, n});
  compareConv({1, 5, 4, 328, 0, 21});
}
ND_TEST("cuda conv2d: skip") {
  for (int64_t c1 : {1, 16, 40})
    for (int64_t c2 : {5, 64}) compareConv({2, 5, 7, c1, c2, 19});
  Conv strided{2, 5, 7, 16, 24, 19};
  strided.strided = true;
  compareConv(strided);
}
ND_TEST("cuda conv2d: strides, paddings, kernels") {
  for (int stride : {1, 2, 3})
    for (int pad : {0, 1, 2}) compareConv({2, 9, 11, 8, 0, 10, 3, 3, stride, pad, pad});
  compareConv({1, 9, 7, 16, 0, 10, 3, 3, 2, 0, 0, 0, 0, 5, 4});
  compareConv({2, 9, 8, 6, 3, 10, 1, 1, 1, 0, 0});
  compareConv({2, 9, 8, 8, 16, 10, 1, 1, 2, 0, 0});
  compareConv({2, 9, 8, 8, 0, 10, 5, 3, 1, 2, 1});
  compareConv({1, 14, 14, 3, 0, 10, 7, 7, 7, 0, 0});
}
ND_TEST("cuda conv2d: resize") {
  compareConv({2, 4, 5, 8, 0, 10, 3, 3, 1, 1, 1, 8, 10});
  compareConv({2, 4, 5, 6, 4, 10, 3, 3, 1, 1, 1, 9, 11});
  compareConv({1, 7, 9, 8, 0, 10, 3, 3, 1, 1, 1, 3, 4});
}
ND_TEST("cuda conv2d: twice the size as four convolutions") {
  const auto every = [] {
    for (Conv c : {Conv{1, 1, 1, 8, 0, 3}, Conv{2, 3, 7, 24, 40, 33}, Conv{1, 12, 13, 16, 0, 24}}) {
      c.inputH = 2 * c.h, c.inputW = 2 * c.w, c.folded = true;
      if (c.n == 24) c.channelAdd = c.residual = true, c.activation = Activation::Silu, c.type = DType::BF16;
      compareConv(c);
    }
  };
  withTile({128, 160, 1}, every);
  withTile({64, 64, 3}, every);
  if (haveHopper()) withTile({128, 160, 1, 0, true}, every);
  Conv narrow{2, 4, 5, 6, 3, 10};
  narrow.inputH = 8, narrow.inputW = 10, narrow.folded = true;
  compareConv(narrow);
  narrow.wrapX = true;
  compareConv(narrow);
}
ND_TEST("cuda conv2d: round to the other side") {
  for (const bool x : {false, true})
    for (const bool y : {false, true}) {
      Conv c{2, 5, 7, 16, 24, 19};
      c.wrapX = x, c.wrapY = y;
      compareConv(c);
      c.c2 = 5, c.kernelH = 5, c.padTop = 2;
      compareConv(c);
      c = {2, 4, 5, 8, 0, 10, 3, 3, 1, 1, 1, 8, 10};
      c.wrapX = x, c.wrapY = y;
      compareConv(c);
      c.folded = true;
      compareConv(c);
      c.folded = false, c.inputH = 9, c.inputW = 11;
      compareConv(c);
      c = {1, 9, 8, 8, 0, 10, 3, 3, 2};
      c.wrapX = x, c.wrapY = y;
      compareConv(c);
    }
}
ND_TEST("cuda conv2d: tensor copies and wgmma") {
  if (!haveHopper()) throw ndtest::Skip("needs a GPU of capability 9.0");

  withTile({128, 160, 1, 0, true}, [] {
    compareConv({1, 1, 1, 8, 0, 8});
    compareConv({2, 9, 11, 24, 0, 40});
    compareConv({1, 5, 4, 328, 0, 21});
    compareConv({2, 5, 7, 16, 72, 19});
    compareConv({3, 8, 8, 64, 128, 170});
    compareConv({1, 3, 70, 40, 0, 10, 5, 3, 1, 2, 1});
    compareConv({1, 9, 7, 16, 0, 10, 3, 3, 1, 0, 2});
    Conv strided{2, 20, 7, 16, 24, 19};
    strided.strided = strided.residual = strided.channelAdd = true;
    strided.type = DType::BF16;
    compareConv(strided);
  });
}
ND_TEST("cuda conv2d: epilogues") {
  forEachTile([] {
    Conv c{3, 5, 5, 40, 0, 24};
    c.channelAdd = c.residual = true;
    c.activation = Activation::Silu;
    compareConv(c);
    c.n = 21, c.type = DType::BF16;
    compareConv(c);
  });
}

}  // namespace nd::test
