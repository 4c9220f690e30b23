// Where a component's tensors are, as lib/models says it: read on JavaScript's thread, opened on the
// engine's.
#pragma once

#include <napi.h>

#include <string>
#include <vector>

#include "engine/weight-loader.h"

namespace nd::binding {

class WeightFiles {
 public:
  /// files: paths; tensors: [name, index of file, stored name, { rows?, transpose? }?][]
  WeightFiles(const Napi::Value& files, const Napi::Value& tensors);
  /// Opens the files. `component` names it in messages.
  TensorMap open(const std::string& component) const;

 private:
  struct Source {
    std::string name;
    uint32_t file;
    std::string stored;
    TensorView view;
  };
  std::vector<std::string> files_;
  std::vector<Source> sources_;
};

}  // namespace nd::binding
