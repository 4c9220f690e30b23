// From tensor names to laid-out weights. Names are the canonical diffusers ones; which file and stored name
// hold each is decided in lib/models and arrives here as a TensorMap.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/ops.h"
#include "engine/safetensors.h"

namespace nd {

/// Where one component's tensors are: canonical name → file and stored name.
class TensorMap {
 public:
  /// `component` names it in messages: "unet".
  explicit TensorMap(std::string component) : component_(std::move(component)) {}
  void add(const std::string& name, std::shared_ptr<const SafetensorsFile> file, const std::string& stored);
  bool has(const std::string& name) const { return sources_.count(name) > 0; }
  /// Throws Error(ModelFormat) where the tensor is missing or has another shape; trailing dimensions of 1 do
  /// not count ([C, C, 1, 1] is [C, C]).
  HostTensor get(const std::string& name, const Shape& shape) const;
  const std::string& component() const { return component_; }

 private:
  struct Source {
    std::shared_ptr<const SafetensorsFile> file;
    std::string stored;
  };
  std::string component_;
  std::unordered_map<std::string, Source> sources_;
};

/// A TensorMap seen from one module: at("down_blocks.0") is the loader of that submodule.
class WeightLoader {
 public:
  WeightLoader(Backend& backend, const TensorMap& tensors) : backend_(backend), tensors_(tensors) {}

  WeightLoader at(const std::string& module) const { return {backend_, tensors_, prefix_ + module + "."}; }
  WeightLoader at(const std::string& list, int64_t i) const { return at(list + "." + std::to_string(i)); }

  Linear linear(const std::string& name, int64_t in, int64_t out, bool bias = true) const;
  /// Several projections of the same input as one: their outputs lie side by side.
  Linear linears(const std::vector<std::string>& names, int64_t in, int64_t out, bool bias) const;
  /// [2·out, in]: value and gate.
  Linear geglu(const std::string& name, int64_t in, int64_t out) const;
  Conv2d conv(const std::string& name, int64_t in, int64_t out, int kernel = 3, int stride = 1,
              int padding = 1) const;
  Norm norm(const std::string& name, int64_t channels, float epsilon, int groups = 1) const;
  WeightPtr table(const std::string& name, int64_t rows, int64_t columns) const;
  WeightPtr vector(const std::string& name, int64_t n) const;
  WeightPtr weight(WeightKind kind, const std::vector<HostTensor>& parts) const;
  HostTensor tensor(const std::string& name, const Shape& shape) const {
    return tensors_.get(prefix_ + name, shape);
  }

 private:
  WeightLoader(Backend& backend, const TensorMap& tensors, std::string prefix)
      : backend_(backend), tensors_(tensors), prefix_(std::move(prefix)) {}
  Backend& backend_;
  const TensorMap& tensors_;
  std::string prefix_;
};

}  // namespace nd
