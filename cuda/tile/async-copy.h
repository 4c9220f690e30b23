// cp.async (sm_80): 16 bytes from global to shared memory that arrive while the thread computes.
// A thread's copies up to asyncCommit() are one group; asyncWait<N>() returns when at most its N newest
// groups are under way. Other threads see the data after a barrier that follows the wait.
#pragma once

#include "cuda/tile/platform.h"

namespace nd::cuda {

#ifdef ND_CUDA_SIM

/// Where not `valid`, zeros arrive and the source is not read.
template <class T>
void asyncCopy16(Shared<T> to, Global<const T> from, bool valid) {
  sim::copyAsync(to.checked(16), valid ? from.checked(16) : nullptr, 16, valid ? 16 : 0);
}
inline void asyncCommit(ND_AT) {
  if (!sim::skipped(sim::siteOf(at, "asyncCommit"))) sim::copyCommit();
}
template <int N>
void asyncWait(ND_AT) {
  if (!sim::skipped(sim::siteOf(at, "asyncWait"))) sim::copyWait(N);
}

#else

template <class T>
ND_DEVICE void asyncCopy16(T* to, const T* from, bool valid) {
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(sharedAddress(to)), "l"(from), "r"(bytes)
               : "memory");
}
ND_DEVICE void asyncCommit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N>
ND_DEVICE void asyncWait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

#endif

}  // namespace nd::cuda
