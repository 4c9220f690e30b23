// Linear layers against the reference: sizes around every tile boundary, dtypes, epilogues, strides.
#include <algorithm>
#include <array>
#include <cmath>

#include "cpu/cpu-backend.h"
#include "cpu/strassen.h"
#include "test/native/backends.h"
#include "test/native/check.h"

namespace nd::test {
namespace {

struct Case {
  int64_t m, n, k;
  DType dtype = DType::F16;
  Activation activation = Activation::None;
  bool bias = true, residual = false, residualIsY = false, geglu = false;
  int64_t extraStride = 0;
};

std::vector<float> run(Backend& backend, const Case& c) {
  const int64_t rows = c.geglu ? 2 * c.n : c.n;
  const HostWeight weightValues({rows, c.k}, randomFloats(rows * c.k, 1), c.dtype);
  const HostWeight biasValues({rows}, randomFloats(rows, 2), DType::F32);
  const WeightPtr weight =
      makeWeight(backend, c.geglu ? WeightKind::Geglu : WeightKind::Linear, weightValues);
  const WeightPtr bias = makeWeight(backend, WeightKind::Vector, biasValues);
  const OnBackend x(backend, {c.m, c.k}, randomFloats(c.m * c.k, 3), c.k + c.extraStride);
  const OnBackend y(backend, {c.m, c.n}, randomFloats(c.m * c.n, 4));
  const OnBackend residual(backend, {c.m, c.n}, randomFloats(c.m * c.n, 5));
  LinearArgs args{weight.get()};
  args.bias = c.bias ? bias.get() : nullptr;
  args.x = x, args.y = y;
  args.activation = c.activation;
  if (c.residual) args.residual = c.residualIsY ? &y : &residual;
  backend.linear(args);
  return y.download();
}

void compare(const Case& c) {
  const std::vector<float> expected = run(reference(), c);
  // Geglu multiplies two sums of size √k.
  const double scale = largest(c.dtype) * (c.geglu ? std::sqrt(static_cast<double>(c.k)) : 1);
  for (const Subject& s : subjects())
    for (const FewerProducts use : {FewerProducts::Never, FewerProducts::Always}) {
      const With with(dynamic_cast<CpuBackend&>(*s.backend).strassenUse, use);
      const bool strassen = use == FewerProducts::Always;  // where the sizes allow it
      checkClose(
          run(*s.backend, c), expected, (strassen ? 3 : 1) * sumTolerance(c.k, scale),
          format("%s linear M=%lld N=%lld K=%lld %s act=%d geglu=%d%s", s.isa.c_str(),
                 static_cast<long long>(c.m), static_cast<long long>(c.n), static_cast<long long>(c.k),
                 dtypeName(c.dtype), static_cast<int>(c.activation), c.geglu, strassen ? " Strassen" : ""));
    }
}

bool takesStrassen(const Subject& s, FewerProducts use, int64_t rowsPerImage, int64_t n, int64_t k,
                   WeightKind kind = WeightKind::Linear) {
  CpuBackend& backend = dynamic_cast<CpuBackend&>(*s.backend);
  const int64_t rows = kind == WeightKind::Geglu ? 2 * n : n;
  const WeightPtr weight =
      makeWeight(backend, kind, HostWeight({rows, k}, std::vector<float>(rows * k), DType::F16));
  return useStrassen(use, backend.kernels(), rowsPerImage, packed(weight.get()), {});
}

}  // namespace

ND_TEST("linear: sizes") {
  for (int64_t m : {1, 2, 5, 6, 7, 13, 31})
    for (int64_t n : {1, 3, 8, 15, 16, 17, 33, 70})
      for (int64_t k : {1, 3, 16, 37}) compare({m, n, k});
}

ND_TEST("linear: many blocks") {
  compare({300, 100, 700});
  compare({77, 333, 1300});
  compare({1000, 5, 330});
  compare({3, 1000, 1000});
}

ND_TEST("linear: dtypes") {
  for (DType dtype : {DType::F32, DType::F16, DType::BF16, DType::F8_E4M3, DType::F8_E5M2})
    compare({19, 45, 67, dtype});
}

ND_TEST("linear: epilogues") {
  for (Activation a :
       {Activation::None, Activation::Silu, Activation::Gelu, Activation::QuickGelu, Activation::Relu})
    for (int64_t n : {5, 48}) {
      compare({20, n, 50, DType::F16, a});
      compare({20, n, 50, DType::F16, a, false});
      compare({20, n, 50, DType::F16, a, true, true});
      compare({20, n, 700, DType::F16, a, true, true, true});
    }
}

ND_TEST("linear: geglu") {
  for (int64_t n : {1, 4, 7, 8, 9, 16, 50})
    for (int64_t k : {9, 720}) {
      compare({14, n, k, DType::F16, Activation::None, true, false, false, true});
      compare({14, n, k, DType::BF16, Activation::None, false, true, true, true});
    }
}

ND_TEST("linear: strided rows") {
  compare({30, 40, 50, DType::F16, Activation::None, true, false, false, false, 13});
}

ND_TEST("linear: Strassen") {
  // Pairs of 64 features are whole pairs of panels for every instruction set; one and several pairs of pieces
  // of K, one and many tiles, tasks and images.
  for (const auto& [m, n, k] :
       {std::array<int64_t, 3>{2, 64, 64}, {12, 128, 640}, {14, 64, 1280}, {46, 128, 1280}, {600, 64, 640}}) {
    for (const Subject& s : subjects()) CHECK(takesStrassen(s, FewerProducts::Always, m, n, k));
    compare({m, n, k});
  }
  for (int64_t n : {33, 60, 320}) compare({50, n, 640});  // a panel that is not whole; many panels
  for (DType dtype : {DType::F32, DType::BF16, DType::F8_E4M3}) compare({50, 64, 768, dtype});
  for (Activation a : {Activation::None, Activation::Gelu})
    for (bool residualIsY : {false, true}) compare({38, 128, 640, DType::F16, a, true, true, residualIsY});
  compare({38, 128, 640, DType::F16, Activation::None, true, false, false, true});
  compare({38, 128, 640, DType::BF16, Activation::None, false, true, true, true});
  compare({38, 64, 640, DType::F16, Activation::None, true, false, false, false, 13});
}

ND_TEST("linear: the way depends on an image's size, not on the batch") {
  const Subject& avx2 = *std::find_if(subjects().begin(), subjects().end(),
                                      [](const Subject& s) { return s.isa == "avx2" || s.isa == "scalar"; });
  constexpr auto kFaster = FewerProducts::WhereFaster;
  const bool measured = avx2.isa == "avx2";
  CHECK(takesStrassen(avx2, kFaster, 1024, 640, 640) == measured);
  CHECK(takesStrassen(avx2, kFaster, 256, 5120, 1280, WeightKind::Geglu) == measured);
  CHECK(!takesStrassen(avx2, kFaster, 4096, 320, 320) && !takesStrassen(avx2, kFaster, 64, 1280, 1280));
  CHECK(!takesStrassen(avx2, FewerProducts::Always, 77, 640, 640));  // an odd row would have no partner
  CHECK(!takesStrassen(avx2, FewerProducts::Never, 1024, 640, 640));

  // Images of a batch come out as they do alone, and with any number of threads, bit for bit.
  const int64_t rows = 270, k = 640, n = 64;
  const std::vector<float> host = randomFloats(3 * rows * k, 3);
  const HostWeight values({n, k}, randomFloats(n * k, 1), DType::F16);
  const auto linear = [&](int threads, int64_t images, int64_t first) {
    const std::unique_ptr<Backend> backend = makeCpuBackend(threads, avx2.isa);
    const With with(dynamic_cast<CpuBackend&>(*backend).strassenUse, FewerProducts::Always);
    const WeightPtr weight = makeWeight(*backend, WeightKind::Linear, values);
    const OnBackend x(*backend, {images, rows, k},
                      {host.begin() + first * rows * k, host.begin() + (first + images) * rows * k}),
        y(*backend, {images, rows, n});
    LinearArgs args{weight.get()};
    args.x = x, args.y = y;
    backend->linear(args);
    return y.download();
  };
  const std::vector<float> all = linear(2, 3, 0);
  checkClose(linear(1, 3, 0), all, 0, "one thread");
  checkClose(linear(5, 3, 0), all, 0, "five threads");
  for (int64_t i = 0; i < 3; i++)
    checkClose(linear(2, 1, i), {all.begin() + i * rows * n, all.begin() + (i + 1) * rows * n}, 0,
               format("image %d", static_cast<int>(i)));
}

ND_TEST("linear: stacked parts") {
  const HostWeight q({5, 12}, randomFloats(60, 1), DType::F16),
      k({20, 12, 1, 1}, randomFloats(240, 2), DType::F16);
  for (DType last : {DType::F16, DType::F32, DType::BF16, DType::F8_E4M3}) {
    const HostWeight v({9, 12}, randomFloats(108, 3), last);
    const auto run = [&](Backend& backend) {
      const HostTensor parts[] = {q, k, v};
      const WeightPtr weight = backend.makeWeight(WeightKind::Linear, parts);
      const OnBackend x(backend, {7, 12}, randomFloats(84, 4)), y(backend, {7, 34});
      LinearArgs args{weight.get()};
      args.x = x, args.y = y;
      backend.linear(args);
      return y.download();
    };
    const std::vector<float> expected = run(reference());
    for (const Subject& s : subjects())
      checkClose(run(*s.backend), expected, sumTolerance(12, largest(last)),
                 s.isa + " stacked parts, last " + dtypeName(last));
  }
}

ND_TEST("linear: infinity and nan stay where they are") {
  for (const Subject& s : subjects()) {
    std::vector<float> values(9 * 5, 1.0f);
    values[2 * 5 + 1] = INFINITY, values[4 * 5] = NAN;
    const WeightPtr weight = makeWeight(*s.backend, WeightKind::Linear,
                                        HostWeight({3, 5}, std::vector<float>(15, 1.0f), DType::F16));
    const OnBackend x(*s.backend, {9, 5}, values), y(*s.backend, {9, 3});
    LinearArgs args{weight.get()};
    args.x = x, args.y = y;
    s.backend->linear(args);
    std::vector<float> expected(27, 5.0f);
    for (int i = 0; i < 3; i++) expected[6 + i] = INFINITY, expected[12 + i] = NAN;
    checkClose(y.download(), expected, 0, s.isa);
  }
}

ND_TEST("linear: same for any thread count") {
  const Case c{200, 300, 900, DType::F16, Activation::Gelu, true, true};
  for (const IsaInfo& isa : cpuIsas()) {
    if (!isa.supported) continue;
    const std::vector<float> one = run(*makeCpuBackend(1, isa.name), c);
    for (int threads : {2, 3, 5})
      checkClose(run(*makeCpuBackend(threads, isa.name), c), one, 0,
                 format("%s, %d threads", isa.name.c_str(), threads));
  }
}

ND_TEST("linear: weights of other dtypes are refused by name") {
  for (const Subject& s : subjects()) {
    const HostWeight ids({2, 2}, std::vector<float>(4), DType::I64, "position_ids");
    const HostWeight odd({3, 2}, std::vector<float>(6), DType::F16, "odd rows");
    CHECK_ERROR(makeWeight(*s.backend, WeightKind::Linear, ids), ErrorCode::ModelFormat, "position_ids");
    CHECK_ERROR(makeWeight(*s.backend, WeightKind::Geglu, odd), ErrorCode::ModelFormat, "odd rows");
  }
}

ND_TEST("linear: weights are counted and small") {
  for (const Subject& s : subjects()) {
    const size_t before = s.backend->memory().weights;
    {
      const WeightPtr weight = makeWeight(*s.backend, WeightKind::Linear,
                                          HostWeight({64, 100}, randomFloats(6400, 1), DType::F16));
      if (weight->bytes() != 12800 || s.backend->memory().weights != before + 12800)
        fail(format("%s: %zu bytes for 12800", s.isa.c_str(), weight->bytes()));
    }
    if (s.backend->memory().weights != before) fail(s.isa + ": a freed weight is still counted");
  }
}

}  // namespace nd::test
