// Stored tensors as float32 on the host.
#pragma once

#include <vector>

#include "engine/tensor.h"

namespace nd {

/// Every element of an F32, F16, BF16 or F8 tensor, exactly; of F64, I64 and I32, rounded. Throws
/// Error(ModelFormat) naming the tensor where the dtype is another.
std::vector<float> toFloats(const HostTensor& tensor);
/// The same into memory for as many values.
void toFloats(const HostTensor& tensor, float* out);

}  // namespace nd
