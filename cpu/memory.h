// Memory of the SIMD backend: 64-byte aligned, large blocks on huge pages where Linux gives them.
#pragma once

#include <cstddef>

namespace nd {

/// Uninitialised. Throws Error(OutOfMemory) naming `purpose`.
void* allocateAligned(size_t bytes, const char* purpose);
void freeAligned(void* data);

}  // namespace nd
