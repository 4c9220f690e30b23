#include "bench/native/attention-bench.h"

#include <cmath>
#include <memory>

#include "bench/native/prepared.h"

namespace nd::bench {
namespace {

/// A tensor on a backend, freed with the operation that holds it.
std::shared_ptr<const Tensor> tensorOf(Backend& backend, const Shape& shape) {
  const size_t bytes = shape.count() * sizeof(float);
  const Tensor t{backend.allocate(bytes), shape, shape.last()};
  backend.upload(randomFloats(shape.count(), 1).data(), t);
  return {new Tensor(t), [&backend, bytes](const Tensor* tensor) {
            backend.deallocate(tensor->data, bytes);
            delete tensor;
          }};
}

/// Columns [start, start + width) of a fused projection.
Tensor columns(const Tensor& t, int64_t start, int64_t width) {
  Shape shape = t.shape;
  shape.dim[shape.rank - 1] = width;
  return {t.f32() + start, shape, t.stride};
}

struct AttentionShape {
  const char* name;
  int64_t batch, queries, keys, d;
  int heads;
};

/// Self-attention reads a fused q, k, v projection; cross-attention a fused k, v.
Operation attentionOperation(Backend& backend, const AttentionShape& s) {
  const int64_t width = s.d * s.heads;
  const bool self = s.queries == s.keys;
  const auto q = tensorOf(backend, {s.batch, s.queries, self ? 3 * width : width});
  const auto kv = self ? q : tensorOf(backend, {s.batch, s.keys, 2 * width});
  const auto y = tensorOf(backend, {s.batch, s.queries, width});
  const int64_t first = self ? width : 0;
  const double flops = 4.0 * static_cast<double>(s.batch * s.queries * s.keys * width);
  return {s.name, flops, 0, [=, &backend] {
            backend.attention({columns(*q, 0, width), columns(*kv, first, width),
                               columns(*kv, first + width, width), *y, s.heads,
                               1 / std::sqrt(static_cast<float>(s.d))});
          }};
}

struct NormShape {
  const char* name;
  int64_t batch, size, channels;
  bool layer;  // layerNorm, else groupNorm with SiLU
};

/// groupNorm must read its input twice (statistics, then result) where it is larger than the cache.
Operation normOperation(Backend& backend, const NormShape& s) {
  const auto x = tensorOf(backend, {s.batch, s.size, s.size, s.channels}), y = tensorOf(backend, x->shape);
  const std::vector<float> values = randomFloats(s.channels, 1);
  const HostTensor vector{values.data(), DType::F32, {s.channels}, "gamma"};
  const WeightPtr gamma = backend.makeWeight(WeightKind::Vector, {&vector, 1});
  const double bytes = static_cast<double>(x->shape.count()) * sizeof(float) * (s.layer ? 2 : 3);
  return {s.name, 0, bytes, [=, &backend] {
            if (s.layer)
              backend.layerNorm({*x, *y, gamma.get(), gamma.get(), 1e-5f});
            else
              backend.groupNorm({*x, nullptr, gamma.get(), gamma.get(), 32, 1e-5f, Activation::Silu, *y});
          }};
}

}  // namespace

std::vector<Operation> sd15Operations(Backend& backend, const std::function<bool(const char*)>& wanted) {
  std::vector<Operation> operations;
  for (const AttentionShape& s : {AttentionShape{"attention 4096 d40", 2, 4096, 4096, 40, 8},
                                  AttentionShape{"attention 1024 d80", 2, 1024, 1024, 80, 8},
                                  AttentionShape{"attention 256 d160", 2, 256, 256, 160, 8},
                                  AttentionShape{"attention 64 d160", 2, 64, 64, 160, 8},
                                  AttentionShape{"attention 4096x77 d40", 2, 4096, 77, 40, 8},
                                  AttentionShape{"attention 1024x77 d80", 2, 1024, 77, 80, 8},
                                  AttentionShape{"vae attention 4096 d512", 1, 4096, 4096, 512, 1}})
    if (wanted(s.name)) operations.push_back(attentionOperation(backend, s));
  for (const NormShape& s : {NormShape{"groupNorm+silu 64x64x320", 2, 64, 320, false},
                             NormShape{"groupNorm+silu 32x32x640", 2, 32, 640, false},
                             NormShape{"groupNorm+silu 8x8x1280", 2, 8, 1280, false},
                             NormShape{"vae groupNorm 512x512x128", 1, 512, 128, false},
                             NormShape{"layerNorm 4096x320", 2, 64, 320, true},
                             NormShape{"layerNorm 256x1280", 2, 16, 1280, true}})
    if (wanted(s.name)) operations.push_back(normOperation(backend, s));
  return operations;
}

}  // namespace nd::bench
