// Hopper (sm_90a): mbarriers, the tensor copy engine and wgmma. In code for other GPUs these do nothing:
// launchers choose.
//
// A producer thread waits until a buffer is empty, tells the buffer's mbarrier how many bytes will come, and
// starts tensor copies that count on it; consumers wait for the mbarrier's phase, which also makes the bytes
// visible to them.
#pragma once

#include <array>

#include "cuda/tile/platform.h"
#ifdef ND_CUDA_SIM
#include "cuda/sim/hopper.h"
#elif !defined(__CUDACC__)
#error "kernels only"
#endif

namespace nd::cuda {

// D[64, N] += A[64, 16] B[16, N]: operands of 16-bit floats in shared memory are boxes of rows of 64 elements
// (128 bytes), as a tensor copy with 128-byte swizzle leaves them at a multiple of 1024 bytes. The four warps
// of a warpgroup have 16 rows of A and D each; a lane's elements of D are those of mma (tile/mma.h) for every
// 8 columns, and so are A's where it comes in registers.
//
// Their descriptor: start address / 16 in bits 0–13; leading byte offset / 16 in bits 16–29; stride byte
// offset / 16 in bits 32–45, here 1024 from 8 rows to the next; swizzle mode 1, 128 bytes, in bits 62–63.
ND_DEVICE uint64_t operandBits(uint32_t address, uint32_t leading) {
  return (address & 0x3ffff) >> 4 | static_cast<uint64_t>(leading >> 4) << 16 |
         static_cast<uint64_t>(1024 >> 4) << 32 | static_cast<uint64_t>(1) << 62;
}

#ifdef ND_CUDA_SIM

struct TensorMap {
  sim::TensorMapFields fields;
};

inline void mbarrierInit(Shared<uint64_t> b, int count) {
  sim::mbarrierInit(sim::sharedOffset(b.checked(8)), count);
}
inline void mbarrierInitFence(ND_AT) {
  if (!sim::skipped(sim::siteOf(at, "mbarrierInitFence"))) sim::mbarrierInitFence();
}
inline void mbarrierExpect(Shared<uint64_t> b, uint32_t bytes, ND_AT) {
  if (!sim::skipped(sim::siteOf(at, "mbarrierExpect")))
    sim::mbarrierArrive(sim::sharedOffset(b.checked(8)), bytes);
}
inline void mbarrierArrive(Shared<uint64_t> b, ND_AT) {
  if (!sim::skipped(sim::siteOf(at, "mbarrierArrive")))
    sim::mbarrierArrive(sim::sharedOffset(b.checked(8)), 0);
}
inline void mbarrierWait(Shared<uint64_t> b, int parity, ND_AT) {
  if (!sim::skipped(sim::siteOf(at, "mbarrierWait")))
    sim::mbarrierWait(sim::sharedOffset(b.checked(8)), parity);
}
inline void proxyFence(ND_AT) {
  if (!sim::skipped(sim::siteOf(at, "proxyFence"))) sim::proxyFence();
}
template <class T>
void tensorLoad(Shared<T> to, const TensorMap& map, Shared<uint64_t> b, int c0, int c1, int c2, int c3) {
  sim::tensorLoad(sim::sharedOffset(to.checked(16)), map.fields, sim::sharedOffset(b.checked(8)),
                  {c0, c1, c2, c3});
}
template <int kRegisters>
void raiseRegisters() {}
template <int kRegisters>
void lowerRegisters() {}

/// Rows along M or N, K-contiguous: from column k (a multiple of 16, below 64) of the box on.
template <class T>
uint64_t operandDescriptor(Shared<T> box, int k) {
  return operandBits(sim::sharedOffset(box.raw()) + 2 * k, 16);  // the leading offset is not used
}
/// Rows along K (from row k on), N-contiguous; columns 64 and following are in the next box, `boxBytes`
/// further.
template <class T>
uint64_t transposedDescriptor(Shared<T> box, int k, uint32_t boxBytes) {
  return operandBits(sim::sharedOffset(box.raw()) + 128 * k, boxBytes);
}
template <int K>
void wgmmaFence(float (&)[K][4], ND_AT) {
  if (!sim::skipped(sim::siteOf(at, "wgmmaFence"))) sim::wgmmaFence();
}
/// Closes the group of the products so far.
inline void wgmmaCommit(ND_AT) {
  if (!sim::skipped(sim::siteOf(at, "wgmmaCommit"))) sim::wgmmaCommit();
}
/// Until at most N groups are under way; d may be used again where none is.
template <int N, int K>
void wgmmaWait(float (&)[K][4], ND_AT) {
  if (!sim::skipped(sim::siteOf(at, "wgmmaWait"))) sim::wgmmaWait(N);
}
/// d += A B with both in shared memory, K-contiguous.
template <class T, int N>
void wgmma(float (&d)[N / 8][4], uint64_t a, uint64_t b, ND_AT) {
  sim::wgmmaIssue({d[0], nullptr, a, b, N, false, [](uint16_t bits) { return toFloat(T{bits}); }},
                  sim::siteOf(at, "wgmma"));
}
/// d += A B with A in registers and B in shared memory, N-contiguous. A's registers keep their values until
/// the wait.
template <class T, int N>
void wgmmaTransposed(float (&d)[N / 8][4], const uint32_t (&a)[4], uint64_t b, ND_AT) {
  sim::wgmmaIssue({d[0], a, 0, b, N, true, [](uint16_t bits) { return toFloat(T{bits}); }},
                  sim::siteOf(at, "wgmma"));
}

#else

using TensorMap = CUtensorMap;

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define ND_HOPPER_ASM(...) asm volatile(__VA_ARGS__)
#else
#define ND_HOPPER_ASM(...)
#endif

ND_DEVICE void mbarrierInit(uint64_t* b, int count) {
  ND_HOPPER_ASM("mbarrier.init.shared.b64 [%0], %1;" ::"r"(sharedAddress(b)), "r"(count) : "memory");
}
ND_DEVICE void mbarrierInitFence() { ND_HOPPER_ASM("fence.mbarrier_init.release.cluster;" ::: "memory"); }
ND_DEVICE void mbarrierExpect(uint64_t* b, uint32_t bytes) {
  ND_HOPPER_ASM("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(sharedAddress(b)), "r"(bytes)
                : "memory");
}
ND_DEVICE void mbarrierArrive(uint64_t* b) {
  ND_HOPPER_ASM("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(sharedAddress(b)) : "memory");
}
ND_DEVICE void mbarrierWait(uint64_t* b, int parity) {
  uint32_t done = 1;
  do {
    ND_HOPPER_ASM(
        "{\n .reg .pred p;\n mbarrier.try_wait.parity.shared.b64 p, [%1], %2;\n selp.u32 %0, 1, 0, p;\n}"
        : "=r"(done)
        : "r"(sharedAddress(b)), "r"(parity)
        : "memory");
  } while (!done);
}
ND_DEVICE void proxyFence() { ND_HOPPER_ASM("fence.proxy.async.shared::cta;" ::: "memory"); }
template <class T>
ND_DEVICE void tensorLoad(T* to, const TensorMap& map, uint64_t* b, int c0, int c1, int c2, int c3) {
  ND_HOPPER_ASM(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, "
      "%6}], [%2];" ::"r"(sharedAddress(to)),
      "l"(&map), "r"(sharedAddress(b)), "r"(c0), "r"(c1), "r"(c2), "r"(c3)
      : "memory");
}
template <int kRegisters>
ND_DEVICE void raiseRegisters() {
  ND_HOPPER_ASM("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
ND_DEVICE void lowerRegisters() {
  ND_HOPPER_ASM("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

template <class T>
ND_DEVICE uint64_t operandDescriptor(const T* box, int k) {
  return operandBits(sharedAddress(box) + 2 * k, 16);
}
template <class T>
ND_DEVICE uint64_t transposedDescriptor(const T* box, int k, uint32_t boxBytes) {
  return operandBits(sharedAddress(box) + 128 * k, boxBytes);
}
/// Registers that wgmma uses behind the compiler's back: no use of theirs moves across this.
template <int K>
ND_DEVICE void holdRegisters(float (&d)[K][4]) {
#pragma unroll
  for (int i = 0; i < 4 * K; i++) asm volatile("" : "+f"(d[i / 4][i % 4])::"memory");
}
template <int K>
ND_DEVICE void wgmmaFence(float (&d)[K][4]) {
  holdRegisters(d);
  ND_HOPPER_ASM("wgmma.fence.sync.aligned;" ::: "memory");
}
ND_DEVICE void wgmmaCommit() { ND_HOPPER_ASM("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N, int K>
ND_DEVICE void wgmmaWait(float (&d)[K][4]) {
  ND_HOPPER_ASM("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
  holdRegisters(d);
}

#include "cuda/tile/wgmma-instructions.h"

#undef ND_HOPPER_ASM

#endif

}  // namespace nd::cuda
