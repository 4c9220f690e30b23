// Matrix products in bfloat16: against the reference whose operands are rounded the same way, which must
// agree to float32's precision, and against the reference as it is, which shows bfloat16's error.
#include <cmath>
#include <cstring>

#include "cpu/cpu-backend.h"
#include "cpu/dispatch.h"
#include "engine/half.h"
#include "test/native/backends.h"
#include "test/native/check.h"

namespace nd {
const KernelTable* emulatedTable();  // gemm-emulated.cpp
const Bf16Kernels* emulatedBf16Kernels();
const Bf16Kernels* emulatedUnitKernels();
}  // namespace nd

namespace nd::test {
namespace {

struct Kernels {
  std::string name;
  const KernelTable* table;
  const Bf16Kernels* bf16;
};

/// Everything in bfloat16 that this machine runs, and the AVX-512 unit's tiles in portable code.
const std::vector<Kernels>& allKernels() {
  static const std::vector<Kernels> list = [] {
    std::vector<Kernels> made;
    for (const IsaInfo& isa : cpuIsas()) {
      if (!isa.bf16) continue;
      const KernelTable& table = chooseKernels(isa.name);
      for (const Bf16Kernels* bf16 : bf16KernelsOf(table))
        made.push_back({isa.name + " " + bf16->name, &table, bf16});
    }
    for (const Bf16Kernels* bf16 : {emulatedBf16Kernels(), emulatedUnitKernels()})
      made.push_back({std::string("emulated-avx512 ") + bf16->name, emulatedTable(), bf16});
    return made;
  }();
  return list;
}

/// The backends of all of them.
const std::vector<Subject>& bf16Subjects() {
  static std::vector<std::unique_ptr<Backend>> owners;
  static const std::vector<Subject> list = [] {
    std::vector<Subject> made;
    for (const Kernels& k : allKernels()) {
      owners.push_back(std::make_unique<CpuBackend>(*k.table, 2, k.bf16));
      made.push_back({k.name, owners.back().get()});
    }
    return made;
  }();
  return list;
}

float roundedToBf16(float value) { return bfloatToFloat(floatToBfloat(value)); }

std::vector<float> roundedToBf16(std::vector<float> values) {
  for (float& v : values) v = roundedToBf16(v);
  return values;
}

/// What a weight of `dtype` holds of `values`.
std::vector<float> stored(std::vector<float> values, DType dtype) {
  for (float& v : values) {
    if (dtype == DType::F16) v = halfToFloat(floatToHalf(v));
    if (dtype == DType::BF16) v = roundedToBf16(v);
    if (dtype == DType::F8_E5M2) v = float8e5m2ToFloat(static_cast<uint8_t>(floatToHalf(v) >> 8));
  }
  return values;
}

/// bfdot rounds both of its sums to odd, by up to twice what rounding to nearest does.
double tight(int64_t k, double scale = 1) { return sumTolerance(k, 4 * scale); }

/// The largest error in units of the largest value.
double relativeError(const std::vector<float>& actual, const std::vector<float>& expected) {
  double worst = 0, largestValue = 0;
  for (size_t i = 0; i < actual.size(); i++) {
    worst = std::max(worst, std::fabs(static_cast<double>(actual[i]) - expected[i]));
    largestValue = std::max(largestValue, std::fabs(static_cast<double>(expected[i])));
  }
  return worst / largestValue;
}

// A sum of k products of two rounded numbers, each by up to 2^-9 of itself, beside the largest of such sums:
// at most 2^-8 in one product, and less where many errors cancel.
constexpr double kBf16Error = 0x1p-8;

struct LinearCase {
  int64_t m, n, k;
  DType dtype = DType::F16;
  Activation activation = Activation::None;
  bool residual = false, geglu = false;
  int64_t extraStride = 0;
};

/// `operands`: rounded to bfloat16 before the backend gets them.
std::vector<float> run(Backend& backend, const LinearCase& c, bool operands) {
  const int64_t rows = c.geglu ? 2 * c.n : c.n;
  const std::vector<float> weights = randomFloats(rows * c.k, 1), values = randomFloats(c.m * c.k, 3);
  const HostWeight weightValues({rows, c.k}, operands ? roundedToBf16(stored(weights, c.dtype)) : weights,
                                operands ? DType::F32 : c.dtype);
  const WeightPtr weight =
      makeWeight(backend, c.geglu ? WeightKind::Geglu : WeightKind::Linear, weightValues);
  const WeightPtr bias =
      makeWeight(backend, WeightKind::Vector, HostWeight({rows}, randomFloats(rows, 2), DType::F32));
  const OnBackend x(backend, {c.m, c.k}, operands ? roundedToBf16(values) : values, c.k + c.extraStride);
  const OnBackend y(backend, {c.m, c.n}, randomFloats(c.m * c.n, 4));
  LinearArgs args{weight.get(), bias.get()};
  args.x = x, args.y = y;
  args.activation = c.activation;
  if (c.residual) args.residual = &y;
  backend.linear(args);
  return y.download();
}

double compare(const LinearCase& c) {
  const std::vector<float> expected = run(reference(), c, true), plain = run(reference(), c, false);
  const double scale = c.geglu ? std::sqrt(static_cast<double>(c.k)) : 1;
  double worst = 0;
  for (const Subject& s : bf16Subjects()) {
    const std::vector<float> actual = run(*s.backend, c, false);
    checkClose(
        actual, expected, tight(c.k, scale),
        format("%s linear M=%lld N=%lld K=%lld %s geglu=%d", s.isa.c_str(), static_cast<long long>(c.m),
               static_cast<long long>(c.n), static_cast<long long>(c.k), dtypeName(c.dtype), c.geglu));
    worst = std::max(worst, relativeError(actual, plain));
  }
  return worst;
}

struct ConvCase {
  int64_t b, h, w, c1, c2, n;
  int kernel = 3, stride = 1, pad = 1;
  int64_t inputH = 0, inputW = 0;  // 0: not resized
  DType dtype = DType::F16;
  bool epilogue = false, strided = false, wrap = false;
};

std::vector<float> run(Backend& backend, ConvCase c, bool operands) {
  if (!c.inputH) c.inputH = c.h, c.inputW = c.w;
  const int64_t outH = (c.inputH + 2 * c.pad - c.kernel) / c.stride + 1;
  const int64_t outW = (c.inputW + 2 * c.pad - c.kernel) / c.stride + 1;
  const auto values = [&](int64_t count, uint32_t seed) {
    return operands ? roundedToBf16(randomFloats(count, seed)) : randomFloats(count, seed);
  };
  const int64_t channels = c.c1 + c.c2, taps = c.kernel * c.kernel, pixels = c.b * c.h * c.w;
  const std::vector<float> weights = randomFloats(c.n * channels * taps, 1);
  const WeightPtr weight = makeWeight(backend, WeightKind::Conv,
                                      HostWeight({c.n, channels, c.kernel, c.kernel},
                                                 operands ? roundedToBf16(stored(weights, c.dtype)) : weights,
                                                 operands ? DType::F32 : c.dtype));
  const WeightPtr bias =
      makeWeight(backend, WeightKind::Vector, HostWeight({c.n}, randomFloats(c.n, 2), DType::F32));
  const OnBackend x(backend, {c.b, c.h, c.w, c.c1}, values(pixels * c.c1, 3), c.strided ? c.c1 + 5 : 0);
  const int64_t c2 = c.c2 ? c.c2 : 1;
  const OnBackend skip(backend, {c.b, c.h, c.w, c2}, values(pixels * c2, 4), c.strided ? c2 + 3 : 0);
  const OnBackend y(backend, {c.b, outH, outW, c.n}, randomFloats(c.b * outH * outW * c.n, 5));
  const OnBackend time(backend, {c.b, c.n}, randomFloats(c.b * c.n, 7), c.n + 2);
  ConvArgs a{weight.get(), bias.get()};
  a.x = x, a.y = y;
  if (c.c2) a.skip = &skip;
  a.kernelH = a.kernelW = c.kernel, a.stride = c.stride, a.padTop = a.padLeft = c.pad;
  a.inputH = c.inputH, a.inputW = c.inputW;
  a.wrapX = a.wrapY = c.wrap;
  if (c.epilogue) a.channelAdd = &time, a.residual = &y, a.activation = Activation::Silu;
  backend.conv2d(a);
  return y.download();
}

double compare(const ConvCase& c) {
  const std::vector<float> expected = run(reference(), c, true), plain = run(reference(), c, false);
  double worst = 0;
  for (const Subject& s : bf16Subjects()) {
    const std::vector<float> actual = run(*s.backend, c, false);
    checkClose(actual, expected, tight((c.c1 + c.c2) * c.kernel * c.kernel),
               format("%s conv %dx%d s%d B=%lld %lldx%lld C=%lld+%lld N=%lld", s.isa.c_str(), c.kernel,
                      c.kernel, c.stride, static_cast<long long>(c.b), static_cast<long long>(c.h),
                      static_cast<long long>(c.w), static_cast<long long>(c.c1), static_cast<long long>(c.c2),
                      static_cast<long long>(c.n)));
    worst = std::max(worst, relativeError(actual, plain));
  }
  return worst;
}

/// The error of a layer beside the reference in float32: noted, bounded, and not that of float32.
void state(const char* layer, double error) {
  ndtest::note(format("%s: %.2g of the largest value", layer, error));
  if (error > kBf16Error || error < 1e-5)
    fail(format("%s: error %.3g, expected up to %.3g", layer, error, kBf16Error));
}

}  // namespace

ND_TEST("bfloat16: linear sizes") {
  for (const Kernels& k : allKernels()) ndtest::note(k.name);
  for (int64_t m : {1, 2, 5, 6, 7, 11, 12, 13, 16, 17, 31, 33})
    for (int64_t n : {1, 15, 17, 33, 70})
      for (int64_t k : {1, 2, 3, 16, 37}) compare(LinearCase{m, n, k});
}

ND_TEST("bfloat16: linear in many blocks") {
  compare(LinearCase{300, 100, 701});
  compare(LinearCase{77, 333, 1303});
  compare(LinearCase{1000, 5, 330});
  compare(LinearCase{3, 1000, 2999});
}

ND_TEST("bfloat16: linear dtypes, strides, epilogues") {
  for (DType dtype : {DType::F32, DType::F16, DType::BF16, DType::F8_E5M2})
    compare(LinearCase{19, 45, 67, dtype, Activation::Silu, true, false, 13});
}

ND_TEST("bfloat16: geglu") {
  for (int64_t n : {1, 7, 16, 50})
    for (int64_t k : {9, 720})
      for (DType dtype : {DType::F32, DType::F16, DType::BF16})
        compare(LinearCase{14, n, k, dtype, Activation::None, true, true});
}

ND_TEST("bfloat16: conv2d sizes, odd channels") {
  for (int64_t h : {1, 2, 9})
    for (int64_t w : {1, 3, 11})
      for (int64_t c : {1, 3, 4, 9, 33})
        for (int64_t n : {1, 17, 40}) compare(ConvCase{2, h, w, c, 0, n});
}

ND_TEST("bfloat16: conv2d skip") {
  for (int64_t c1 : {1, 16, 37})
    for (int64_t c2 : {1, 5, 64}) compare(ConvCase{2, 5, 7, c1, c2, 19});
  compare(ConvCase{1, 4, 5, 1351, 403, 20});
}

ND_TEST("bfloat16: conv2d kernels, strides, resizing, wraps") {
  for (int64_t c2 : {0, 5}) {
    compare(ConvCase{2, 7, 9, 13, c2, 19, 1, 1, 0});
    compare(ConvCase{2, 7, 9, 13, c2, 19, 1, 2, 0});
    compare(ConvCase{2, 7, 9, 13, c2, 19, 3, 2, 1});
    compare(ConvCase{2, 7, 9, 13, c2, 19, 3, 2, 0});
    compare(ConvCase{1, 9, 9, 13, c2, 19, 5, 1, 2});
    compare(ConvCase{2, 4, 5, 13, c2, 19, 3, 1, 1, 8, 10});
    compare(ConvCase{2, 4, 5, 13, c2, 19, 3, 1, 1, 7, 9});
    ConvCase wrapped{2, 4, 5, 13, c2, 19};
    wrapped.wrap = true;
    compare(wrapped);
  }
}

ND_TEST("bfloat16: conv2d dtypes, strides, epilogues") {
  for (DType dtype : {DType::F32, DType::F16, DType::BF16, DType::F8_E5M2}) {
    ConvCase c{2, 5, 7, 21, 7, 21};
    c.dtype = dtype;
    c.strided = c.epilogue = true;
    compare(c);
  }
}

ND_TEST("bfloat16: the error beside float32") {
  state("linear 256 x 320 x 320", compare(LinearCase{256, 320, 320}));
  state("linear 64 x 320 x 1280", compare(LinearCase{64, 320, 1280}));
  state("geglu 64 x 320 x 320", compare(LinearCase{64, 320, 320, DType::F16, Activation::None, false, true}));
  state("conv2d 3 x 3, 64 to 64 channels", compare(ConvCase{1, 12, 12, 64, 0, 64}));
}

ND_TEST("bfloat16: 3 x 3 convolutions are direct ones") {
  const ConvCase c{1, 16, 16, 64, 0, 64};
  for (const Subject& s : bf16Subjects()) {
    auto& backend = dynamic_cast<CpuBackend&>(*s.backend);
    const std::vector<float> actual = [&] {
      const With with(backend.winogradOptions, {FewerProducts::Always});
      return run(backend, c, false);
    }();
    checkClose(actual, run(backend, c, false), 0, s.isa);
  }
}

ND_TEST("bfloat16: rows and weights are rounded to nearest even") {
  const float inf = INFINITY;
  // Half an ulp above an even and an odd last bit, just beside it, the largest float, denormals of float32
  // aside.
  const std::vector<float> values = {1.0f,         1.00390625f,   1.01171875f, 1.0039063f, 1.0039061f,
                                     -1.00390625f, 3.4028235e38f, 0.0f,        -0.0f,      inf,
                                     -inf,         1e-30f,        -7.1f,       123456.7f,  0x1.fefffep0f};
  const auto check = [&](const char* isa, const KernelTable& k, const Bf16Kernels& kernels) {
    for (int64_t count = 1; count <= 67; count++) {
      std::vector<float> row(count);
      for (int64_t i = 0; i < count; i++) row[i] = values[i % values.size()];
      std::vector<uint16_t> y(count + 2, 0xdead);
      kernels.roundRow(row.data(), y.data(), count);
      for (int64_t i = 0; i < count; i++)
        if (y[i] != floatToBfloat(row[i])) fail(format("%s: %.9g is %04x", isa, row[i], y[i]));
      if ((count & 1) == 1 && y[count] != 0)
        fail(format("%s: no zero after %d values", isa, static_cast<int>(count)));
      if (y[count + (count & 1)] != 0xdead) fail(format("%s: wrote beyond %d", isa, static_cast<int>(count)));
    }
    float nan = NAN;
    uint16_t y[2];
    kernels.roundRow(&nan, y, 1);
    if (!std::isnan(bfloatToFloat(y[0]))) fail(format("%s: NaN is %04x", isa, y[0]));

    std::vector<float> rows(5 * k.nr);
    for (size_t i = 0; i < rows.size(); i++) rows[i] = values[i % values.size()];
    std::vector<uint16_t> pairs(6 * k.nr + 1, 0xdead);
    kernels.pairRows(rows.data(), WeightFormat::F32, 5, pairs.data());
    for (int row = 0; row < 6; row++)
      for (int j = 0; j < k.nr; j++) {
        const uint16_t expected = row < 5 ? floatToBfloat(rows[row * k.nr + j]) : 0;
        if (pairs[(row / 2 * k.nr + j) * 2 + row % 2] != expected)
          fail(format("%s: weight %d of row %d", isa, j, row));
      }
    if (pairs.back() != 0xdead) fail(format("%s: wrote beyond the pairs", isa));
  };
  for (const Kernels& k : allKernels()) check(k.name.c_str(), *k.table, *k.bf16);
}

ND_TEST("bfloat16: infinity and nan stay where they are") {
  for (const Subject& s : bf16Subjects()) {
    std::vector<float> values(9 * 5, 1.0f);
    values[2 * 5 + 4] = INFINITY, values[4 * 5] = NAN;
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

ND_TEST("bfloat16: same for any thread count") {
  const LinearCase linear{200, 300, 901, DType::F16, Activation::Gelu, true};
  ConvCase conv{2, 9, 8, 37, 5, 40};
  conv.epilogue = true;
  for (const Kernels& k : allKernels()) {
    CpuBackend one(*k.table, 1, k.bf16);
    for (int threads : {2, 3, 5}) {
      CpuBackend many(*k.table, threads, k.bf16);
      checkClose(run(many, linear, false), run(one, linear, false), 0, k.name);
      checkClose(run(many, conv, false), run(one, conv, false), 0, k.name);
    }
  }
}

ND_TEST("bfloat16: an image does not depend on its neighbours") {
  for (const Subject& s : bf16Subjects()) {
    ConvCase c{3, 6, 5, 9, 0, 20};
    const std::vector<float> batch = run(*s.backend, c, false);
    c.b = 1;
    const std::vector<float> alone = run(*s.backend, c, false);
    checkClose({batch.begin(), batch.begin() + static_cast<std::ptrdiff_t>(alone.size())}, alone, 0, s.isa);
  }
}

ND_TEST("bfloat16: refused where the CPU lacks it, told where it has it") {
  bool anywhere = false;
  for (const IsaInfo& isa : cpuIsas()) {
    if (!isa.supported) {
      CHECK(!isa.bf16);
      continue;
    }
    anywhere = anywhere || isa.bf16;
    if (isa.bf16)
      CHECK(makeCpuBackend(1, isa.name, DType::BF16)->description().find("BF16") != std::string::npos ||
            isa.name == "scalar");
    else
      CHECK_ERROR(makeCpuBackend(1, isa.name, DType::BF16), ErrorCode::Unsupported, "AVX512_BF16");
  }
  CHECK(anywhere);
  CHECK(makeCpuBackend(1, "scalar", DType::BF16)->description() ==
        "portable vectors, emulated bfloat16, 1 thread");
}

}  // namespace nd::test
