// Where a component's tensors are, as lib/models says it.
#pragma once

#include <napi.h>

#include "engine/model-parts.h"

namespace nd::binding {

/// files: paths; tensors: [name, index of file, stored name, { rows?, transpose? }?][]
void readWeightFiles(const Napi::Value& files, const Napi::Value& tensors, ModelPart& part);

}  // namespace nd::binding
