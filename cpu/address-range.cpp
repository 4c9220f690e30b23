#include "cpu/address-range.h"

#ifndef _WIN32
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace nd {

#ifdef _WIN32
// Windows counts committed pages, touched or not: the arena's blocks serve there.
void* reserveAddresses(size_t& bytes) {
  bytes = 0;
  return nullptr;
}
void releaseAddresses(void*, size_t) {}
#else
void* reserveAddresses(size_t& bytes) {
  constexpr size_t kHugePage = size_t{2} << 20;
  const long pages = sysconf(_SC_PHYS_PAGES), pageBytes = sysconf(_SC_PAGESIZE);
  bytes = pages > 0 && pageBytes > 0 ? static_cast<size_t>(pages) * static_cast<size_t>(pageBytes) : 0;
  bytes = bytes / kHugePage * kHugePage;
  int flags = MAP_PRIVATE | MAP_ANONYMOUS;
#ifdef MAP_NORESERVE
  flags |= MAP_NORESERVE;
#endif
  void* data = bytes ? mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, -1, 0) : MAP_FAILED;
  if (data == MAP_FAILED) {
    bytes = 0;
    return nullptr;
  }
#ifdef MADV_HUGEPAGE
  madvise(data, bytes, MADV_HUGEPAGE);  // a wish: 4 KiB pages work too
#endif
  return data;
}
void releaseAddresses(void* data, size_t bytes) { munmap(data, bytes); }
#endif

}  // namespace nd
