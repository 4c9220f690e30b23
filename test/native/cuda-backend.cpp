// Every operation of the CUDA backend against the reference, on the GPU or in the simulator. Inputs are
// values that 16 bits hold, so that what is compared is the arithmetic and one rounding of the result.
#include <cmath>
#include <memory>

#include "cuda/kernels/group-norm.h"
#include "engine/half.h"
#include "test/native/backends.h"
#include "test/native/check.h"

namespace nd::test {
namespace {

/// Multiples of 2^-7 in −scale..scale: 8 bits of mantissa, which F16 and BF16 both hold.
std::vector<float> exactFloats(int64_t count, uint32_t seed, float scale = 1, float mean = 0) {
  std::vector<float> values = randomFloats(count, seed);
  for (float& v : values) v = std::round(v * 128) / 128 * scale + mean;
  return values;
}

struct Gpu {
  std::unique_ptr<Backend> backend;
  DType type;
};

/// Runs `body` on a backend of each activation type.
template <class Body>
void onGpu(Body body) {
  if (const CudaInfo info = cudaInfo(); !info.reason.empty()) throw ndtest::Skip(info.reason);
  for (const DType type : {DType::F16, DType::BF16}) {
    const auto backend = makeCudaBackend(0, type);
    body(*backend, type);
  }
}

double ulpOf(DType type) { return type == DType::F16 ? 0x1p-11 : 0x1p-8; }

/// Within one rounding of the type (a little more: the sum's own error may carry it over) and `tolerance`.
double checkRounded(const std::vector<float>& actual, const std::vector<float>& expected, DType type,
                    double tolerance, const std::string& what) {
  if (actual.size() != expected.size()) fail(what + ": another number of values");
  double worst = 0;
  for (size_t i = 0; i < expected.size(); i++) {
    if (std::isnan(actual[i]) && std::isnan(expected[i])) continue;
    if (actual[i] == expected[i]) continue;
    const double allowed = ulpOf(type) * std::abs(expected[i]) * 1.01 + tolerance + 0x1p-24;
    const double error = std::abs(static_cast<double>(actual[i]) - expected[i]);
    if (!(error <= allowed))
      fail(format("%s (%s): element %zu of %zu is %.9g, expected %.9g (error %.3g, allowed %.3g)",
                  what.c_str(), dtypeName(type), i, expected.size(), actual[i], expected[i], error, allowed));
    worst = std::max(worst, error / allowed);
  }
  return worst;
}

/// The same operation on the reference and on the GPU.
template <class Run>
void compare(Backend& gpu, DType type, double tolerance, const std::string& what, Run run) {
  checkRounded(run(gpu), run(reference()), type, tolerance, what);
}

WeightPtr vectorOf(Backend& b, const std::vector<float>& values) {
  return makeWeight(b, WeightKind::Vector,
                    HostWeight({static_cast<int64_t>(values.size())}, values, DType::F32));
}

struct NormCase {
  int64_t batch, h, w, c1, c2;
  int groups;
  Activation activation = Activation::None;
  float mean = 0;
  int64_t gap = 0;
};

std::vector<float> groupNormOf(Backend& b, const NormCase& c) {
  const int64_t channels = c.c1 + c.c2, pixels = c.batch * c.h * c.w;
  const auto gamma = vectorOf(b, randomFloats(channels, 1)), beta = vectorOf(b, randomFloats(channels, 2));
  const OnBackend x(b, {c.batch, c.h, c.w, c.c1}, exactFloats(pixels * c.c1, 3, 1, c.mean), c.c1 + c.gap);
  const OnBackend skip(b, {c.batch, c.h, c.w, std::max<int64_t>(c.c2, 1)},
                       exactFloats(pixels * std::max<int64_t>(c.c2, 1), 4, 2, c.mean));
  const OnBackend y(b, {c.batch, c.h, c.w, channels});
  b.groupNorm({x, c.c2 ? &skip : nullptr, gamma.get(), beta.get(), c.groups, 1e-5f, c.activation, y});
  return y.download();
}

}  // namespace

ND_TEST("cuda backend: names itself") {
  onGpu([](Backend& gpu, DType type) {
    CHECK(gpu.name().rfind("cuda", 0) == 0 && gpu.activationBytes() == 2);
    CHECK(gpu.description().find(type == DType::F16 ? "float16" : "bfloat16") != std::string::npos);
  });
  CHECK_ERROR(makeCudaBackend(99), ErrorCode::CudaUnavailable, cudaInfo().reason.empty() ? "cuda:99" : "");
}

ND_TEST("cuda backend: group norm, both schemes, any width, x | skip") {
  using cuda::GroupNormScheme;
  static const GroupNormScheme schemes[] = {GroupNormScheme::Resident, GroupNormScheme::Ranges};
  onGpu([](Backend& gpu, DType type) {
    for (const GroupNormScheme& scheme : schemes) {
      cuda::forcedGroupNorm() = &scheme;
      for (const Activation activation : {Activation::None, Activation::Silu})
        for (NormCase c :
             {NormCase{1, 1, 1, 32, 0, 4}, NormCase{2, 3, 5, 12, 0, 4}, NormCase{1, 9, 11, 20, 13, 11},
              NormCase{3, 8, 8, 64, 32, 32}, NormCase{2, 7, 9, 40, 24, 4}, NormCase{1, 7, 43, 5, 0, 1},
              NormCase{2, 4, 4, 1280, 640, 32}, NormCase{1, 30, 32, 8, 1, 3},
              NormCase{1, 21, 17, 320, 0, 32}}) {
          c.activation = activation;
          for (const int64_t gap : {0, 3, 8}) {
            if (gap && c.h * c.w > 100) continue;
            c.gap = gap;
            compare(gpu, type, 2e-5, format("group norm scheme %d", static_cast<int>(scheme)),
                    [&](Backend& b) { return groupNormOf(b, c); });
          }
        }
      // Means of many deviations: multiples of 1/128 up to 2 around 64 lose bits in neither type but BF16.
      if (type == DType::F16)
        compare(gpu, type, 5e-5, "group norm with a mean", [](Backend& b) {
          return groupNormOf(b, {2, 16, 17, 24, 0, 4, Activation::None, 14});
        });
    }
    cuda::forcedGroupNorm() = nullptr;
  });
  CHECK(cuda::chooseGroupNorm(64, 10) == GroupNormScheme::Resident);
  CHECK(cuda::chooseGroupNorm(1 << 20, 4) == GroupNormScheme::Ranges);
}

ND_TEST("cuda backend: group norm of an outlier, a constant image, and in place") {
  onGpu([](Backend& gpu, DType type) {
    for (const bool constant : {false, true})
      compare(gpu, type, 2e-4, "group norm", [&](Backend& b) {
        std::vector<float> values = exactFloats(100 * 8, 5);
        values[0] = 8192;
        if (constant) std::fill(values.begin(), values.end(), 3.25f);
        const auto ones = vectorOf(b, std::vector<float>(8, 1)),
                   zeros = vectorOf(b, std::vector<float>(8, 0));
        const OnBackend x(b, {1, 10, 10, 8}, values);
        b.groupNorm({x, nullptr, ones.get(), zeros.get(), 2, 1e-5f, Activation::None, x});
        return x.download();
      });
  });
}

ND_TEST("cuda backend: layer norm of every width") {
  onGpu([](Backend& gpu, DType type) {
    for (const float mean : {0.0f, 14.0f})
      for (auto [rows, width, gap] : {std::tuple<int64_t, int64_t, int64_t>{1, 1, 0},
                                      {3, 2, 0},
                                      {5, 7, 2},
                                      {9, 8, 8},
                                      {6, 320, 0},
                                      {7, 768, 0},
                                      {3, 1000, 0},
                                      {5, 1280, 16},
                                      {2, 2048, 0},
                                      {2, 2056, 0},
                                      {3, 640, 1}}) {
        if (mean != 0 && type == DType::BF16) continue;
        compare(gpu, type, 3e-5, format("layer norm %d", static_cast<int>(width)),
                [&, rows = rows, width = width, gap = gap](Backend& b) {
                  const auto gamma = vectorOf(b, randomFloats(width, 1)),
                             beta = vectorOf(b, randomFloats(width, 2));
                  const OnBackend x(b, {rows, width}, exactFloats(rows * width, 3, 1, mean), width + gap);
                  const OnBackend y(b, {rows, width}, width + 2 * gap);
                  b.layerNorm({x, y, gamma.get(), beta.get(), 1e-5f});
                  return y.download();
                });
      }
  });
}

ND_TEST("cuda backend: activations") {
  onGpu([](Backend& gpu, DType type) {
    for (const Activation activation : {Activation::None, Activation::Silu, Activation::Gelu,
                                        Activation::QuickGelu, Activation::Relu, Activation::GeluTanh})
      for (auto [rows, width, gap] :
           {std::tuple<int64_t, int64_t, int64_t>{1, 1, 0}, {3, 5, 0}, {7, 9, 4}, {40, 96, 8}, {5, 64, 1}})
        compare(gpu, type, 4e-6, "activate", [&, rows = rows, width = width, gap = gap](Backend& b) {
          std::vector<float> values = exactFloats(rows * width, 3, 8);
          values[0] = 1000;
          if (values.size() > 2) values[1] = -1000, values[2] = NAN;
          const OnBackend x(b, {rows, width}, values, width + gap), y(b, {rows, width}, width + gap);
          b.activate(x, activation, y);
          return y.download();
        });
  });
}

ND_TEST("cuda backend: rows added, gathered, copied, embedded") {
  onGpu([](Backend& gpu, DType type) {
    for (const int64_t width : {1, 21, 64})
      for (const int64_t gap : {0, 5, 8}) {
        compare(gpu, type, 4 * ulpOf(type), "add", [&](Backend& b) {
          const OnBackend x(b, {33, width}, exactFloats(33 * width, 1), width + gap),
              y(b, {33, width}, exactFloats(33 * width, 2)), sum(b, {33, width}, width + gap);
          b.add(x, y, 0.75f, sum);
          b.add(sum, y, 1, sum);
          return sum.download();
        });
        compare(gpu, type, 0, "copyColumns and gatherRows", [&](Backend& b) {
          const OnBackend x(b, {33, width}, exactFloats(33 * width, 1), width + gap),
              wide(b, {33, 2 * width + 8}, exactFloats(33 * (2 * width + 8), 3)), some(b, {4, 2 * width + 8});
          b.copyColumns(x, wide, 0);
          b.copyColumns(x, wide, width + 8);
          b.copyColumns(x, wide, width + 3);
          const int32_t rows[] = {32, 0, 3, 3};
          b.gatherRows(wide, rows, some);
          std::vector<float> all = wide.download(), gathered = some.download();
          all.insert(all.end(), gathered.begin(), gathered.end());
          return all;
        });
      }
    for (const DType dtype : {DType::F32, DType::F16, DType::BF16, DType::F8_E4M3, DType::F8_E5M2})
      for (const int64_t width : {21, 24})
        compare(gpu, type, 0, "embed", [&](Backend& b) {
          const HostWeight values({10, width}, exactFloats(10 * width, 1), dtype);
          const WeightPtr table = makeWeight(b, WeightKind::Table, values);
          const WeightPtr positions =
              makeWeight(b, WeightKind::Table, HostWeight({4, width}, exactFloats(4 * width, 2), dtype));
          const int32_t ids[] = {9, 0, 3, 3, 1, 2, 9, 8};
          const OnBackend y(b, {2, 4, width}), z(b, {2, 4, width});
          b.embed({table.get(), positions.get(), ids, 4, y});
          b.embed({table.get(), nullptr, ids, 4, z});
          const int32_t outside[] = {10};
          const OnBackend one(b, {1, width});
          CHECK_ERROR(b.embed({table.get(), nullptr, outside, 1, one}), ErrorCode::Internal,
                      "ids within the table");
          std::vector<float> both = y.download(), plain = z.download();
          both.insert(both.end(), plain.begin(), plain.end());
          return both;
        });
  });
}

ND_TEST("cuda backend: transfers") {
  onGpu([](Backend& gpu, DType type) {
    for (const Shape& shape : {Shape{1, 1, 1, 1}, Shape{2, 9, 11, 4}, Shape{3, 20, 17, 3}})
      compare(gpu, type, 0, "images", [&](Backend& b) {
        const std::vector<float> host = exactFloats(shape.count(), 1);
        const OnBackend image(b, shape, shape.last() + 3);
        b.uploadImage(host.data(), image);
        std::vector<float> back(host.size()), rows = image.download();
        b.downloadImage(image, back.data());
        CHECK(back == host);
        return rows;
      });
    // More than a staging segment, and values that round.
    compare(gpu, type, 0, "large upload", [&](Backend& b) {
      const OnBackend x(b, {1100, 1001}, randomFloats(1100 * 1001, 2));
      return x.download();
    });
    compare(gpu, type, 0, "model input and output", [&](Backend& b) {
      const std::vector<float> latents = randomFloats(2 * 4 * 9 * 11, 2);
      void *x = b.allocate(latents.size() * 4), *z = b.allocate(latents.size() * 12);
      const Tensor xt{x, {2, 4, 9, 11}, 11}, zt{z, {6, 4, 9, 11}, 11};
      b.uploadPlan(latents.data(), xt);
      const OnBackend y(b, {6, 9, 11, 4});
      b.modelInput(xt, 0.18215, 3, y);
      b.modelOutput(y, zt);
      std::vector<float> both = y.download(), back(latents.size() * 3);
      b.downloadPlan(zt, back.data());
      CHECK(back[17] == both[(17 % 99) * 4]);
      both.insert(both.end(), back.begin(), back.end());
      b.deallocate(x, latents.size() * 4);
      b.deallocate(z, latents.size() * 12);
      return both;
    });
    std::vector<float> values = {-2, -1, -0.5f, 0, 0.5f, 1, 2, NAN, INFINITY, -INFINITY, 0.25f, 0.125f};
    for (float v : exactFloats(3000, 5, 1.25f)) values.push_back(v);
    for (float& v : values)
      v = type == DType::F16 ? halfToFloat(floatToHalf(v)) : bfloatToFloat(floatToBfloat(v));
    compare(gpu, type, 0, "pixels", [&](Backend& b) {
      const OnBackend image(b, {1, 1, static_cast<int64_t>(values.size()) / 3, 3}, values);
      std::vector<uint8_t> pixels(values.size());
      b.downloadPixels(image, pixels.data());
      return std::vector<float>(pixels.begin(), pixels.end());
    });
  });
}

ND_TEST("cuda backend: weights of every dtype and kind") {
  onGpu([](Backend& gpu, DType type) {
    for (const DType dtype : {DType::F32, DType::F16, DType::BF16, DType::F8_E4M3, DType::F8_E5M2}) {
      // E4M3 test weights reach 448.
      const bool large = dtype == DType::F8_E4M3;
      const double tolerance = large ? 2e-2 : 5e-5;
      const float scale = large ? 1.0f / 64 : 1;
      for (const bool geglu : {false, true})
        compare(gpu, type, geglu ? tolerance * 40 : tolerance,
                format("linear %s geglu %d", dtypeName(dtype), geglu), [&](Backend& b) {
                  const int64_t n = 12, k = 37, rows = geglu ? 2 * n : n;
                  const WeightPtr weight = makeWeight(b, geglu ? WeightKind::Geglu : WeightKind::Linear,
                                                      HostWeight({rows, k}, exactFloats(rows * k, 1), dtype));
                  const WeightPtr bias = vectorOf(b, randomFloats(rows, 2));
                  const OnBackend x(b, {19, k}, exactFloats(19 * k, 3, scale), k + 3), y(b, {19, n}),
                      residual(b, {19, n}, exactFloats(19 * n, 4));
                  b.linear({weight.get(), bias.get(), x, y, Activation::None, &residual});
                  return y.download();
                });
      compare(gpu, type, tolerance, "conv2d", [&](Backend& b) {
        const WeightPtr weight =
            makeWeight(b, WeightKind::Conv, HostWeight({10, 7, 3, 3}, exactFloats(630, 1), dtype));
        const WeightPtr bias = vectorOf(b, randomFloats(10, 2));
        const OnBackend x(b, {2, 5, 6, 4}, exactFloats(240, 3)), skip(b, {2, 5, 6, 3}, exactFloats(180, 4)),
            y(b, {2, 10, 11, 10}), time(b, {2, 10}, exactFloats(20, 5));
        ConvArgs a{weight.get(), bias.get()};
        a.x = x, a.y = y, a.skip = &skip, a.channelAdd = &time;
        a.inputH = 10, a.inputW = 11;
        b.conv2d(a);
        return y.download();
      });
    }
    // Parts stacked, of different dtypes.
    compare(gpu, type, 1e-5, "stacked parts", [](Backend& b) {
      const HostWeight q({5, 12}, exactFloats(60, 1), DType::F16),
          k({20, 12, 1, 1}, exactFloats(240, 2), DType::BF16), v({9, 12}, exactFloats(108, 3), DType::F32);
      const HostTensor parts[] = {q, k, v};
      const WeightPtr weight = b.makeWeight(WeightKind::Linear, parts);
      const OnBackend x(b, {7, 12}, exactFloats(84, 4)), y(b, {7, 34});
      LinearArgs args{weight.get()};
      args.x = x, args.y = y;
      b.linear(args);
      return y.download();
    });
    const HostWeight ids({2, 2}, std::vector<float>(4), DType::I64, "position_ids");
    CHECK_ERROR(makeWeight(gpu, WeightKind::Linear, ids), ErrorCode::ModelFormat, "position_ids");
    // Rows of a weight in several chunks.
    compare(gpu, type, 0, "a table of several chunks", [](Backend& b) {
      const int64_t rows = 70000, width = 40;
      const WeightPtr table = makeWeight(b, WeightKind::Table,
                                         HostWeight({rows, width}, exactFloats(rows * width, 1), DType::F32));
      const int32_t rowsAsked[] = {0, 52427, 52428, 52429, 69999};
      const OnBackend y(b, {1, 5, width});
      b.embed({table.get(), nullptr, rowsAsked, 5, y});
      return y.download();
    });
  });
}

ND_TEST("cuda backend: attention") {
  onGpu([](Backend& gpu, DType type) {
    for (const int64_t d : {8, 40, 64})
      compare(gpu, type, type == DType::F16 ? 1e-3 : 8e-3, "attention", [&](Backend& b) {
        const int64_t width = 2 * d;
        const OnBackend q(b, {2, 19, width}, exactFloats(38 * width, 1), 3 * width),
            kv(b, {2, 77, 2 * width}, exactFloats(154 * 2 * width, 2)), y(b, {2, 19, width});
        Tensor k = kv, v = kv;
        k.shape.dim[2] = v.shape.dim[2] = width;
        v.data = static_cast<char*>(v.data) + static_cast<size_t>(width) * b.activationBytes();
        b.attention({q, k, v, y, 2, 1 / std::sqrt(static_cast<float>(d))});
        return y.download();
      });
  });
}

ND_TEST("cuda backend: attention with a bias") {
  onGpu([](Backend& gpu, DType type) {
    for (const int64_t d : {8, 40, 64, 80})
      for (const int64_t shared : {0, 1}) {
        const int64_t lq = d == 40 ? 70 : 19, lk = d == 40 ? 150 : 33, width = 2 * d;
        std::vector<float> values = randomFloats((shared ? 1 : 2) * 2 * lq * lk, 7);
        for (size_t i = 0; i < values.size(); i += 3) values[i] = -1e9f;                  // hidden
        for (int64_t j = 0; j < lk; j++) values[static_cast<size_t>(lk + j)] = -3.4e38f;  // a whole row
        compare(gpu, type, type == DType::F16 ? 1e-3 : 8e-3, "biased attention", [&](Backend& b) {
          const OnBackend q(b, {2, lq, width}, exactFloats(2 * lq * width, 1)),
              k(b, {2, lk, width}, exactFloats(2 * lk * width, 2)),
              v(b, {2, lk, width}, exactFloats(2 * lk * width, 3)), y(b, {2, lq, width});
          const Shape shape{shared ? 1 : 2, 2, lq, lk};
          const size_t bytes = values.size() * sizeof(float);
          const Tensor bias{b.allocate(bytes), shape, lk};
          b.uploadPlan(values.data(), bias);
          b.attention({q, k, v, y, 2, d == 8 ? 1.0f : 0.125f, false, &bias});
          std::vector<float> out = y.download();
          b.deallocate(bias.data, bytes);
          return out;
        });
      }
  });
}

ND_TEST("cuda backend: root mean square norm, and norms that the time modulates") {
  onGpu([](Backend& gpu, DType type) {
    for (const int64_t width : {5, 8, 320, 2056})
      for (const bool centred : {false, true})
        compare(gpu, type, 3e-5, "norm without beta", [&](Backend& b) {
          const auto gamma = vectorOf(b, randomFloats(width, 1));
          const OnBackend x(b, {5, width}, exactFloats(5 * width, 3, 1, 0.5f)), y(b, {5, width});
          b.layerNorm({x, y, gamma.get(), nullptr, 1e-6f, centred});
          return y.download();
        });
    using cuda::GroupNormScheme;
    static const GroupNormScheme schemes[] = {GroupNormScheme::Resident, GroupNormScheme::Ranges};
    for (const GroupNormScheme& scheme : schemes) {
      cuda::forcedGroupNorm() = &scheme;
      for (const auto& [c1, c2] : {std::pair<int64_t, int64_t>{24, 0}, {9, 6}})
        for (const bool shared : {false, true})
          for (const Activation activation : {Activation::None, Activation::Silu, Activation::Gelu})
            compare(gpu, type, 1e-4, "modulated group norm", [&, c1 = c1, c2 = c2](Backend& b) {
              const int64_t channels = c1 + c2;
              const auto gamma = vectorOf(b, randomFloats(channels, 1)),
                         beta = vectorOf(b, randomFloats(channels, 2));
              const OnBackend x(b, {2, 5, 6, c1}, exactFloats(60 * c1, 3)),
                  skip(b, {2, 5, 6, std::max<int64_t>(c2, 1)}, exactFloats(60 * std::max<int64_t>(c2, 1), 4)),
                  y(b, {2, 5, 6, channels}),
                  rows(b, {2, 2 * channels}, exactFloats(4 * channels, 5), 2 * channels + 3);
              Tensor modulation = rows;
              if (shared) modulation.stride = 0;  // as engine/ops has one row serve all images
              b.groupNorm(
                  {x, c2 ? &skip : nullptr, gamma.get(), beta.get(), 3, 1e-5f, activation, y, &modulation});
              return y.download();
            });
      cuda::forcedGroupNorm() = nullptr;
    }
  });
}

ND_TEST("cuda backend: resampled maps, gated layers with either GELU") {
  onGpu([](Backend& gpu, DType type) {
    for (const int64_t channels : {3, 16})
      for (const bool larger : {false, true})
        compare(gpu, type, 1e-6, "resample", [&](Backend& b) {
          const OnBackend x(b, {2, 5, 7, channels}, exactFloats(70 * channels, 1)),
              y(b, larger ? Shape{2, 10, 14, channels} : Shape{2, 2, 3, channels});
          b.resample(x, y);
          return y.download();
        });
    for (const Activation activation : {Activation::None, Activation::GeluTanh})
      for (const bool geglu : {false, true})
        compare(gpu, type, 1e-4, "linear", [&](Backend& b) {
          const int64_t n = 12, k = 24, rows = geglu ? 2 * n : n;
          const WeightPtr weight = makeWeight(b, geglu ? WeightKind::Geglu : WeightKind::Linear,
                                              HostWeight({rows, k}, exactFloats(rows * k, 1), DType::F32));
          const OnBackend x(b, {19, k}, exactFloats(19 * k, 3)), y(b, {19, n});
          b.linear({weight.get(), nullptr, x, y, activation});
          return y.download();
        });
  });
}

}  // namespace nd::test
