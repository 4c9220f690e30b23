// A problem with weights (F16), bias, input and output on a backend, ready to run.
#pragma once

#include <random>

#include "bench/native/shapes.h"
#include "engine/backend.h"
#include "engine/half.h"

namespace nd::bench {

/// Uniform in −scale..scale.
inline std::vector<float> randomFloats(int64_t count, float scale) {
  std::minstd_rand random(1);
  std::vector<float> values(count);
  for (float& v : values) v = (static_cast<float>(random() % 65536) / 32768 - 1) * scale;
  return values;
}

class Prepared {
 public:
  Prepared(Backend& backend, const Problem& p) : backend_(backend), problem_(p) {
    const int64_t rows = p.geglu ? 2 * p.n : p.n, channels = p.k + p.skip;
    const int64_t columns = p.conv ? channels * p.kernel * p.kernel : p.k;
    std::vector<uint16_t> halves(rows * columns);
    const std::vector<float> values = randomFloats(rows * columns, 0.05f);
    for (size_t i = 0; i < halves.size(); i++) halves[i] = floatToHalf(values[i]);
    const Shape shape = p.conv ? Shape{p.n, channels, p.kernel, p.kernel} : Shape{rows, p.k};
    const HostTensor tensor{halves.data(), DType::F16, shape, p.name};
    const WeightKind kind = p.conv ? WeightKind::Conv : p.geglu ? WeightKind::Geglu : WeightKind::Linear;
    weight_ = backend.makeWeight(kind, {&tensor, 1});
    const std::vector<float> biasValues = randomFloats(rows, 1);
    const HostTensor bias{biasValues.data(), DType::F32, {rows}, "bias"};
    bias_ = backend.makeWeight(WeightKind::Vector, {&bias, 1});
    if (p.conv) {
      x_ = tensorOf({p.batch, p.size, p.size, p.k});
      if (p.skip) skip_ = tensorOf({p.batch, p.size, p.size, p.skip});
      y_ = tensorOf({p.batch, p.size, p.size, p.n});
    } else {
      x_ = tensorOf({p.m, p.k});
      y_ = tensorOf({p.m, p.n});
    }
  }
  ~Prepared() {
    for (const Tensor& t : tensors_) backend_.deallocate(t.data, t.shape.count() * sizeof(float));
  }
  Prepared(const Prepared&) = delete;
  Prepared& operator=(const Prepared&) = delete;

  void run() {
    if (!problem_.conv) {
      LinearArgs args{weight_.get(), bias_.get()};
      args.x = x_, args.y = y_;
      return backend_.linear(args);
    }
    ConvArgs args{weight_.get(), bias_.get()};
    args.x = x_, args.y = y_;
    if (skip_) args.skip = &skip_;
    args.kernelH = args.kernelW = problem_.kernel;
    args.padTop = args.padLeft = problem_.kernel / 2;
    args.inputH = args.inputW = problem_.size;
    backend_.conv2d(args);
  }

 private:
  Tensor tensorOf(const Shape& shape) {
    const Tensor t{backend_.allocate(shape.count() * sizeof(float)), shape, shape.last()};
    tensors_.push_back(t);
    backend_.upload(randomFloats(shape.count(), 1).data(), t);
    return t;
  }
  Backend& backend_;
  const Problem& problem_;
  WeightPtr weight_, bias_;
  Tensor x_, skip_, y_;
  std::vector<Tensor> tensors_;
};

}  // namespace nd::bench
