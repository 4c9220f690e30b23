// From tensor names to laid-out weights. Names are the canonical diffusers ones; which file and stored name
// hold each is decided in lib/models and arrives here as a TensorMap.
#pragma once

#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/ops.h"
#include "engine/safetensors.h"

namespace nd {

/// Which part of a stored tensor is meant, and how: original checkpoints fuse projections and store matrices
/// the other way round.
struct TensorView {
  int64_t begin = 0, end = -1;  // rows [begin, end) of the first dimension; end -1: all of them
  bool transpose = false;       // the matrix [rows, columns] is stored as [columns, rows]
};

/// Where one component's tensors are: canonical name → file, stored name and view.
class TensorMap {
 public:
  /// `component` names it in messages: "unet".
  explicit TensorMap(std::string component) : component_(std::move(component)) {}
  virtual ~TensorMap() = default;
  void add(const std::string& name, std::shared_ptr<const SafetensorsFile> file, const std::string& stored,
           const TensorView& view = {});
  bool has(const std::string& name) const { return sources_.count(name) > 0; }
  /// Throws Error(ModelFormat) where the tensor is missing or has another shape; trailing dimensions of 1 do
  /// not count ([C, C, 1, 1] is [C, C]). The bytes lie in the file, also those of a range of rows; a
  /// transposed tensor is a copy that lives as long as this map. Not thread-safe.
  virtual HostTensor get(const std::string& name, const Shape& shape) const;
  /// The stored shape, views applied, or an empty one where there is no such tensor.
  std::optional<Shape> shape(const std::string& name) const;
  /// What the tensor is, for whoever asks for it by whatever name: the file, its stored name and the view.
  /// Empty where there is no such tensor or it lies in no file.
  std::string identity(const std::string& name) const;
  /// Says that a tensor has been laid out: a model need not be resident twice while it loads.
  virtual void discard(const HostTensor& tensor) const;
  const std::string& component() const { return component_; }

 private:
  struct Source {
    std::shared_ptr<const SafetensorsFile> file;
    std::string stored;
    TensorView view;
  };
  HostTensor viewed(HostTensor tensor, const TensorView& view, const std::string& name) const;

  std::string component_;
  std::unordered_map<std::string, Source> sources_;
  std::set<std::shared_ptr<const SafetensorsFile>> files_;
  mutable std::vector<std::vector<uint64_t>> copies_;  // words, so that every element is aligned
};

/// A tensor that a weight is made of: its canonical name and the shape that the model expects.
struct TensorRef {
  std::string name;
  Shape shape;
  std::optional<Shape> as;  // the same values seen under another shape: how the weight takes them
};

/// What changes stored tensors before they are laid out.
class WeightEdits {
 public:
  virtual ~WeightEdits() = default;
  /// Tells apart what a tensor may become; empty where it stays as it is stored.
  virtual std::string key(const std::string& tensor) const = 0;
  /// Writes the changed tensor, as many values as it has.
  virtual void apply(const std::string& tensor, const HostTensor& stored, float* changed) const = 0;
};

/// Finished weights by what they were made of: a component that is built anew shares those that are the same.
class WeightCache {
 public:
  /// Room for values that are needed until the next weight; kept for it until commit() or rollback().
  float* scratch(size_t number, size_t count);
  WeightPtr find(const std::string& key);
  void add(const std::string& key, const WeightPtr& weight) { used_[key] = weight; }
  /// After a build: forgets what it did not use; after one that failed: what it added.
  void commit();
  void rollback();

 private:
  struct Scratch {
    std::unique_ptr<float[]> data;
    size_t count = 0;
  };
  std::vector<Scratch> scratch_;
  std::unordered_map<std::string, WeightPtr> known_, used_;
};

/// A TensorMap seen from one module: at("down_blocks.0") is the loader of that submodule.
class WeightLoader {
 public:
  /// Without a cache every weight is laid out; without edits, which need a cache, it is as stored.
  WeightLoader(Backend& backend, const TensorMap& tensors, WeightCache* cache = nullptr,
               const WeightEdits* edits = nullptr)
      : backend_(backend), tensors_(tensors), cache_(cache), edits_(edits) {}

  WeightLoader at(const std::string& module) const {
    WeightLoader loader(*this);
    loader.prefix_ += module + ".";
    return loader;
  }
  WeightLoader at(const std::string& list, int64_t i) const { return at(list + "." + std::to_string(i)); }

  Backend& backend() const { return backend_; }

  Linear linear(const std::string& name, int64_t in, int64_t out, bool bias = true) const;
  /// Several projections of the same input as one: their outputs lie side by side.
  Linear linears(const std::vector<std::string>& names, int64_t in, int64_t out, bool bias) const;
  /// [2·out, in]: value and gate.
  Linear geglu(const std::string& name, int64_t in, int64_t out) const;
  /// The same from two matrices [out, in], without bias.
  Linear gated(const std::string& value, const std::string& gate, int64_t in, int64_t out) const;
  /// Without beta: a root mean square norm.
  Norm rmsNorm(const std::string& name, int64_t channels, float epsilon) const;
  Conv2d conv(const std::string& name, int64_t in, int64_t out, int kernel = 3, int stride = 1,
              int padding = 1) const;
  Norm norm(const std::string& name, int64_t channels, float epsilon, int groups = 1) const;
  WeightPtr table(const std::string& name, int64_t rows, int64_t columns) const;
  WeightPtr vector(const std::string& name, int64_t n) const;
  /// A weight as it is stored is the one that another pipeline of this process made of the same tensors,
  /// where there is one (engine/shared-weights.h).
  WeightPtr weight(WeightKind kind, const std::vector<TensorRef>& parts) const;
  TensorRef tensor(const std::string& name, const Shape& shape, std::optional<Shape> as = {}) const {
    return {prefix_ + name, shape, as};
  }

 private:
  std::string sharedKey(WeightKind kind, const std::vector<TensorRef>& parts) const;

  Backend& backend_;
  const TensorMap& tensors_;
  WeightCache* cache_;
  const WeightEdits* edits_;
  std::string prefix_;
};

}  // namespace nd
