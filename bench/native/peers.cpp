#include "bench/native/peers.h"

#include <algorithm>
#include <memory>
#include <unordered_map>
#include <vector>

#if defined(ND_BENCH_OPENBLAS)
#include <cblas.h>
extern "C" void openblas_set_num_threads(int);
#endif
#if defined(ND_BENCH_ONEDNN)
#include <dnnl.hpp>
#if DNNL_CPU_RUNTIME == DNNL_RUNTIME_OMP
extern "C" void omp_set_num_threads(int);
#endif
#endif

namespace nd::bench {

std::function<void()> openblasRunner([[maybe_unused]] const Problem& p, [[maybe_unused]] int threads) {
#if defined(ND_BENCH_OPENBLAS)
  if (p.conv) return nullptr;
  openblas_set_num_threads(threads);
  const int m = static_cast<int>(p.m), n = static_cast<int>(p.geglu ? 2 * p.n : p.n),
            k = static_cast<int>(p.k);
  auto x = std::make_shared<std::vector<float>>(p.m * k, 0.5f);
  auto w = std::make_shared<std::vector<float>>(static_cast<size_t>(n) * k, 0.25f);
  auto y = std::make_shared<std::vector<float>>(p.m * n);
  return [=] {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, k, 1, x->data(), k, w->data(), k, 0, y->data(),
                n);
  };
#else
  return nullptr;
#endif
}

#if defined(ND_BENCH_ONEDNN)
namespace {
using Dims = dnnl::memory::dims;

dnnl::memory::desc anyLayout(const Dims& dims) {
  return {dims, dnnl::memory::data_type::f32, dnnl::memory::format_tag::any};
}

// Activations as ours: channels last.
dnnl::memory::desc nhwc(const Dims& dims) {
  return {dims, dnnl::memory::data_type::f32, dnnl::memory::format_tag::nhwc};
}
dnnl::memory::desc rows(const Dims& dims) {
  return {dims, dnnl::memory::data_type::f32, dnnl::memory::format_tag::ab};
}

// oneDNN 2 and 3 build primitives differently.
dnnl::convolution_forward::primitive_desc convolution(const dnnl::engine& engine, const dnnl::memory::desc& x,
                                                      const dnnl::memory::desc& w,
                                                      const dnnl::memory::desc& y, int pad) {
  const auto inference = dnnl::prop_kind::forward_inference;
  const auto direct = dnnl::algorithm::convolution_direct;
  const Dims strides{1, 1}, padding{pad, pad};
#if DNNL_VERSION_MAJOR >= 3
  return {engine, inference, direct, x, w, y, strides, padding, padding};
#else
  return {{inference, direct, x, w, y, strides, padding, padding}, engine};
#endif
}
dnnl::inner_product_forward::primitive_desc innerProduct(const dnnl::engine& engine,
                                                         const dnnl::memory::desc& x,
                                                         const dnnl::memory::desc& w,
                                                         const dnnl::memory::desc& y) {
#if DNNL_VERSION_MAJOR >= 3
  return {engine, dnnl::prop_kind::forward_inference, x, w, y};
#else
  return {{dnnl::prop_kind::forward_inference, x, w, y}, engine};
#endif
}
}  // namespace
#endif

std::function<void()> onednnRunner([[maybe_unused]] const Problem& p, [[maybe_unused]] int threads) {
#if defined(ND_BENCH_ONEDNN)
#if DNNL_CPU_RUNTIME == DNNL_RUNTIME_OMP
  omp_set_num_threads(threads);
#endif
  static dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  static dnnl::stream stream(engine);
  const auto bind = [&](const auto& description) {
    dnnl::memory x(description.src_desc(), engine), w(description.weights_desc(), engine),
        y(description.dst_desc(), engine);
    for (const dnnl::memory* memory : {&x, &w}) {
      float* data = static_cast<float*>(memory->get_data_handle());
      std::fill(data, data + memory->get_desc().get_size() / sizeof(float), 0.25f);
    }
    return std::unordered_map<int, dnnl::memory>{{DNNL_ARG_SRC, x}, {DNNL_ARG_WEIGHTS, w}, {DNNL_ARG_DST, y}};
  };
  if (p.conv) {
    const int64_t size = p.size, channels = p.k + p.skip;
    const auto description = convolution(engine, nhwc({p.batch, channels, size, size}),
                                         anyLayout({p.n, channels, p.kernel, p.kernel}),
                                         nhwc({p.batch, p.n, size, size}), p.kernel / 2);
    const dnnl::convolution_forward primitive(description);
    return
        [primitive, arguments = bind(description)] { primitive.execute(stream, arguments), stream.wait(); };
  }
  const int64_t n = p.geglu ? 2 * p.n : p.n;
  const auto description = innerProduct(engine, rows({p.m, p.k}), anyLayout({n, p.k}), rows({p.m, n}));
  const dnnl::inner_product_forward primitive(description);
  return [primitive, arguments = bind(description)] { primitive.execute(stream, arguments), stream.wait(); };
#else
  return nullptr;
#endif
}

}  // namespace nd::bench
