// The components of a pipeline as they can be built anew: where their tensors lie, and how the model is made
// from them. Adapters come and go this way: what they touch is read from its file again, changed and laid
// out; all other weights are shared with the model before.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/adapter.h"
#include "engine/generate.h"

namespace nd {

/// One adapter in use.
struct AdapterUse {
  uint32_t id;
  double unet, textEncoder;  // strengths
};

/// One component.
struct ModelPart {
  struct Source {
    std::string name;  // canonical
    uint32_t file;
    std::string stored;
    TensorView view;
  };
  std::string component;   // "unet", "textEncoder", "vae"
  size_t index = 0;        // which one of them
  bool adaptable = false;  // whether adapters may change it; what may not is forgotten once it is built
  std::vector<std::string> files;
  std::vector<Source> sources;
  /// Makes the model and, once it is complete, puts it into its place.
  std::function<void(Models&, const WeightLoader&)> build;
};

class ModelParts {
 public:
  /// Builds the component for the first time. Throws Error(ModelNotFound | ModelFormat | …).
  void load(Context&, Models&, ModelPart);
  /// Opens an adapter and checks that it fits. Nothing changes until it is used.
  void addAdapter(uint32_t id, const std::string& path, std::vector<WeightChange> changes);
  /// Forgets an adapter, which must not be in use any more when the next call of use() ends.
  void removeAdapter(uint32_t id) { adapters_.erase(id); }
  /// Makes these adapters, in their order, the ones that the models are built with. Does nothing where they
  /// are already. Where it throws, every component has the adapters of before or the new ones.
  void use(Context&, Models&, std::span<const AdapterUse>);

 private:
  struct Stamp {
    uintmax_t size;
    std::filesystem::file_time_type time;
    bool operator==(const Stamp&) const = default;
  };
  struct Part {
    ModelPart description;
    std::vector<Stamp> stamps;  // of the files when they were loaded
    WeightCache cache;
    std::optional<TensorMap> tensors;  // open while an adapter is in use
    std::string adapters;              // AdapterEdits::description()
  };
  static Stamp stampOf(const std::string& path);
  static const TensorMap& open(Part&);

  std::vector<std::unique_ptr<Part>> parts_;
  std::map<uint32_t, std::shared_ptr<const Adapter>> adapters_;
};

}  // namespace nd
