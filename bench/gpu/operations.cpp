#include "bench/gpu/operations.h"

#include "engine/error.h"

namespace nd::bench {

namespace {
using ll = long long;
}

std::string GpuOperation::name() const {
  if (kind == "conv")
    return format("conv %dx%d s%d %lld%s->%lld @ %lldx%lldx%lld%s", kernel, kernel, stride, ll(k),
                  skip ? format("+%lld", ll(skip)).c_str() : "", ll(n), ll(b), ll(h), ll(w), up ? " up" : "");
  if (kind == "attention")
    return format("attention h%lld d%lld @ %lldx%lldx%lld", ll(heads), ll(d), ll(b), ll(m), ll(l));
  if (kind == "groupNorm") return format("groupNorm %lldx%lldx%lldx%lld", ll(b), ll(h), ll(w), ll(k));
  if (kind == "layerNorm") return format("layerNorm %lldx%lld", ll(m), ll(k));
  return format("%s %lldx%lldx%lld", kind.c_str(), ll(m), ll(n), ll(k));
}

double GpuOperation::flops() const {
  const auto product = [](std::initializer_list<int64_t> factors) {
    double all = 1;
    for (const int64_t f : factors) all *= static_cast<double>(f);
    return all;
  };
  if (kind == "linear") return product({2, m, n, k});
  if (kind == "geglu") return product({4, m, n, k});
  if (kind == "conv") return product({2, b, h, w, n, k + skip, kernel, kernel}) / (stride * stride);
  if (kind == "attention") return product({4, b, m, l, heads, d});
  return 0;
}

double GpuOperation::bytes() const {
  const auto elements = [&]() -> int64_t {
    if (kind == "linear") return m * k + n * k + m * n;
    if (kind == "geglu") return m * k + 2 * n * k + m * n;
    if (kind == "conv")
      return b * h * w * (k + skip) / (up ? 4 : 1) + n * (k + skip) * kernel * kernel +
             b * h * w * n / (stride * stride);
    if (kind == "attention") return 2 * b * (m + l) * heads * d;
    if (kind == "groupNorm") return 2 * b * h * w * k;
    return 2 * m * k;
  };
  return 2.0 * static_cast<double>(elements());
}

std::vector<GpuOperation> gpuOperations(const std::string& model) {
  std::vector<GpuOperation> all;
  const auto linear = [&](int64_t m, int64_t n, int64_t k, const char* kind = "linear") {
    all.push_back({.model = model, .kind = kind, .m = m, .n = n, .k = k});
  };
  const auto conv = [&](int64_t b, int64_t side, int64_t k, int64_t n, int64_t skip = 0, int kernel = 3,
                        int stride = 1, bool up = false) {
    all.push_back({.model = model,
                   .kind = "conv",
                   .b = b,
                   .n = n,
                   .k = k,
                   .h = side,
                   .w = side,
                   .skip = skip,
                   .kernel = kernel,
                   .stride = stride,
                   .up = up});
  };
  const auto attention = [&](int64_t b, int64_t m, int64_t l, int64_t heads, int64_t d) {
    all.push_back({.model = model, .kind = "attention", .b = b, .m = m, .l = l, .heads = heads, .d = d});
  };
  const auto norms = [&](int64_t b, int64_t side, int64_t k) {
    all.push_back({.model = model, .kind = "groupNorm", .b = b, .k = k, .h = side, .w = side});
  };
  /// What a transformer block does on a map of side² pixels.
  const auto block = [&](int64_t side, int64_t width, int64_t heads, int64_t context) {
    const int64_t tokens = side * side, rows = 2 * tokens;
    linear(rows, 3 * width, width);
    linear(rows, width, width);
    linear(rows, 4 * width, width, "geglu");
    linear(rows, width, 4 * width);
    attention(2, tokens, tokens, heads, width / heads);
    attention(2, tokens, 77, heads, width / heads);
    linear(2 * 77, 2 * width, context);
    all.push_back({.model = model, .kind = "layerNorm", .m = rows, .k = width});
  };
  const auto decoder = [&](int64_t side) {
    conv(1, side, 512, 512);
    attention(1, side * side, side * side, 1, 512);
    conv(1, 2 * side, 512, 512, 0, 3, 1, true);
    conv(1, 4 * side, 512, 512, 0, 3, 1, true);
    conv(1, 4 * side, 256, 256);
    conv(1, 8 * side, 256, 256, 0, 3, 1, true);
    conv(1, 8 * side, 128, 128);
    conv(1, 8 * side, 128, 3);
    norms(1, 8 * side, 128);
  };
  if (model == "sd15" || model == "sd21") {
    const bool second = model == "sd21";
    const int64_t side = second ? 96 : 64, context = second ? 1024 : 768;
    const int64_t width[3] = {320, 640, 1280};
    conv(2, side, 4, 320);
    for (int i = 0; i < 3; i++) {
      block(side >> i, width[i], second ? width[i] / 64 : 8, context);
      conv(2, side >> i, width[i], width[i]);
      conv(2, side >> i, width[i], width[i], width[i]);
      norms(2, side >> i, width[i]);
      conv(2, side >> i, width[i], width[i], 0, 3, 2);
      conv(2, side >> i, width[i], width[i], 0, 3, 1, true);
    }
    conv(2, side / 8, 1280, 1280);
    conv(2, side / 8, 1280, 1280, 1280);
    conv(2, side, 320, 4);
    decoder(side);
  } else if (model == "sdxl") {
    conv(2, 128, 320, 320);
    conv(2, 128, 320, 320, 320);
    norms(2, 128, 320);
    block(64, 640, 10, 2048);
    conv(2, 64, 640, 640);
    conv(2, 64, 640, 640, 640);
    block(32, 1280, 20, 2048);
    conv(2, 32, 1280, 1280);
    conv(2, 32, 1280, 1280, 1280);
    norms(2, 32, 1280);
    decoder(128);
  } else if (model == "tiny") {
    linear(40, 24, 16);
    linear(40, 24, 16, "geglu");
    conv(2, 6, 8, 16);
    conv(2, 6, 8, 16, 8);
    conv(2, 6, 8, 16, 0, 3, 2);
    conv(2, 6, 8, 16, 0, 3, 1, true);
    attention(2, 30, 77, 2, 40);
    all.push_back({.model = model, .kind = "groupNorm", .b = 2, .k = 64, .h = 6, .w = 6});
    all.push_back({.model = model, .kind = "layerNorm", .m = 20, .k = 48});
  } else {
    throw Error(ErrorCode::InvalidArgument,
                "Expected a model out of sd15, sd21, sdxl, tiny but received " + model);
  }
  return all;
}

}  // namespace nd::bench
