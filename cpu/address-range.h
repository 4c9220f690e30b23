// Addresses without memory: an arena's range, whose pages the system provides when they are first touched.
#pragma once

#include <cstddef>

namespace nd {

/// As many bytes as the machine has memory; null (and 0) where the system refuses or has no such thing.
void* reserveAddresses(size_t& bytes);
void releaseAddresses(void* data, size_t bytes);

}  // namespace nd
