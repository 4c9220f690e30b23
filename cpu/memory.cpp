#include "cpu/memory.h"

#include <cstdlib>

#include "engine/error.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(_MSC_VER)
#include <malloc.h>
#endif

namespace nd {

namespace {
constexpr size_t kAlignment = 64;
#if defined(__linux__)
// A matrix product walks rows and panels that lie in as many pages as there are rows; with 4 KB pages it
// waits for page tables, twice so in a virtual machine. A block's end, where it fills no huge page, has small
// ones: rounded up, the blocks of SD 1.5's weights took 100 MB more.
constexpr size_t kHugePage = 2 << 20, kHugeFrom = 4 * kHugePage;
#endif
}  // namespace

void* allocateAligned(size_t bytes, const char* purpose) {
  size_t alignment = kAlignment;
#if defined(__linux__)
  if (bytes >= kHugeFrom) alignment = kHugePage;
#endif
  const size_t size = bytes ? bytes : 1;
#if defined(_MSC_VER)
  void* data = _aligned_malloc(size, alignment);
#else
  void* data = nullptr;
  if (posix_memalign(&data, alignment, size) != 0) data = nullptr;
#endif
  if (!data) throw Error(ErrorCode::OutOfMemory, format("cannot allocate %zu bytes for %s", bytes, purpose));
#if defined(__linux__)
  if (alignment == kHugePage)
    madvise(data, size / kHugePage * kHugePage,
            MADV_HUGEPAGE);  // a wish; without it everything works, slower
#endif
  return data;
}

void freeAligned(void* data) {
#if defined(_MSC_VER)
  _aligned_free(data);
#else
  std::free(data);
#endif
}

}  // namespace nd
