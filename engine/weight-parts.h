// What every backend asks of the parts of a weight before it lays them out (Backend::makeWeight).
#pragma once

#include <span>

#include "engine/backend.h"

namespace nd {

/// Checks the parts of a weight against its kind and gives their common [rows, columns] (stacked rows).
/// A Conv has C·kh·kw columns, a Vector one. Throws Error(ModelFormat), naming the tensor, where a rank, a
/// dtype or a length is wrong.
struct WeightMatrix {
  int64_t rows, columns;
};
WeightMatrix checkWeightParts(WeightKind kind, std::span<const HostTensor> parts);

/// Element `i` of a checked part, as float.
float weightValue(const HostTensor& part, int64_t i);

}  // namespace nd
