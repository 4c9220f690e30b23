// An operation of the bench with its weights, inputs and result on a backend, ready to run.
#pragma once

#include <cmath>
#include <memory>
#include <vector>

#include "bench/gpu/operations.h"
#include "bench/gpu/random-models.h"
#include "engine/backend.h"

namespace nd::bench {

class PreparedOperation {
 public:
  PreparedOperation(Backend& backend, const GpuOperation& o) : backend_(backend), o_(o) {
    if (o.kind == "linear" || o.kind == "geglu") {
      const bool gated = o.kind == "geglu";
      weight(gated ? WeightKind::Geglu : WeightKind::Linear, {gated ? 2 * o.n : o.n, o.k});
      vectors(gated ? 2 * o.n : o.n);
      x_ = tensor({o.m, o.k}), y_ = tensor({o.m, o.n});
    } else if (o.kind == "conv") {
      weight(WeightKind::Conv, {o.n, o.k + o.skip, o.kernel, o.kernel});
      vectors(o.n);
      const int64_t h = o.up ? o.h / 2 : o.h, w = o.up ? o.w / 2 : o.w;
      x_ = tensor({o.b, h, w, o.k});
      if (o.skip) skip_ = tensor({o.b, h, w, o.skip});
      y_ = tensor({o.b, o.h / o.stride, o.w / o.stride, o.n});
    } else if (o.kind == "attention") {
      x_ = tensor({o.b, o.m, o.heads * o.d});
      k_ = tensor({o.b, o.l, o.heads * o.d}), v_ = tensor({o.b, o.l, o.heads * o.d});
      y_ = tensor({o.b, o.m, o.heads * o.d});
    } else {
      vectors(o.k);
      x_ = o.kind == "groupNorm" ? tensor({o.b, o.h, o.w, o.k}) : tensor({o.m, o.k});
      y_ = tensor(x_.shape);
    }
  }
  ~PreparedOperation() {
    for (const Tensor& t : owned_) backend_.deallocate(t.data, bytesOf(t));
  }
  PreparedOperation(const PreparedOperation&) = delete;
  PreparedOperation& operator=(const PreparedOperation&) = delete;

  void run() {
    if (o_.kind == "conv") {
      ConvArgs a{weight_.get(), vector_.get()};
      a.x = x_, a.y = y_;
      if (skip_) a.skip = &skip_;
      a.kernelH = a.kernelW = o_.kernel;
      a.padTop = a.padLeft = o_.kernel / 2;
      a.stride = o_.stride;
      a.inputH = o_.h, a.inputW = o_.w;
      backend_.conv2d(a);
    } else if (o_.kind == "attention") {
      backend_.attention(
          {x_, k_, v_, y_, static_cast<int>(o_.heads), 1 / std::sqrt(static_cast<float>(o_.d))});
    } else if (o_.kind == "groupNorm") {
      backend_.groupNorm({x_, nullptr, vector_.get(), vector_.get(), o_.model == "tiny" ? 8 : 32, 1e-5f,
                          Activation::Silu, y_});
    } else if (o_.kind == "layerNorm") {
      backend_.layerNorm({x_, y_, vector_.get(), vector_.get(), 1e-5f});
    } else {
      LinearArgs a{weight_.get(), vector_.get()};
      a.x = x_, a.y = y_;
      backend_.linear(a);
    }
  }
  std::vector<float> result() {
    run();
    std::vector<float> values(static_cast<size_t>(y_.shape.count()));
    backend_.download(y_, values.data());
    return values;
  }

 private:
  size_t bytesOf(const Tensor& t) const {
    return static_cast<size_t>(t.shape.count()) * backend_.activationBytes();
  }
  Tensor tensor(const Shape& shape) {
    Tensor t{nullptr, shape, shape.last()};
    t.data = backend_.allocate(bytesOf(t));
    owned_.push_back(t);
    backend_.upload(randomValues(shape.count(), static_cast<uint32_t>(owned_.size())).data(), t);
    return t;
  }
  void weight(WeightKind kind, const Shape& shape) {
    const RandomTensors random("bench");
    const HostTensor tensor = random.get("weight", shape);
    weight_ = backend_.makeWeight(kind, {&tensor, 1});
  }
  void vectors(int64_t n) {
    const RandomTensors random("bench");
    const HostTensor tensor = random.get("norm.weight", {n});
    vector_ = backend_.makeWeight(WeightKind::Vector, {&tensor, 1});
  }

  Backend& backend_;
  const GpuOperation o_;
  WeightPtr weight_, vector_;
  Tensor x_, skip_, k_, v_, y_;
  std::vector<Tensor> owned_;
};

}  // namespace nd::bench
