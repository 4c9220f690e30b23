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

/// D[64, N] += A[64, 16] B[16, N]: operands of 16-bit floats in shared memory, rows of 64 elements (128
/// bytes), K-contiguous, as a tensor copy with 128-byte swizzle leaves them at a multiple of 1024 bytes; `k`
/// elements (a multiple of 16) into them. Descriptor: start address / 16 in bits 0–13, 1024 / 16 from 8 rows
/// to the next in bits 32–45, swizzle mode 1 in bits 62–63.
ND_DEVICE uint64_t operandBits(uint32_t address) {
  return (address & 0x3ffff) >> 4 | static_cast<uint64_t>(1) << 16 | static_cast<uint64_t>(1024 >> 4) << 32 |
         static_cast<uint64_t>(1) << 62;
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

template <class T>
uint64_t operandDescriptor(Shared<T> tile, int k) {
  return operandBits(sim::sharedOffset(tile.raw()) + 2 * k);
}
template <int K>
void wgmmaFence(float (&)[K], ND_AT) {
  if (!sim::skipped(sim::siteOf(at, "wgmmaFence"))) sim::wgmmaFence();
}
/// Closes the group of the products so far.
inline void wgmmaCommit(ND_AT) {
  if (!sim::skipped(sim::siteOf(at, "wgmmaCommit"))) sim::wgmmaCommit();
}
template <int N, int K>
void wgmmaWait(float (&)[K], ND_AT) {
  if (!sim::skipped(sim::siteOf(at, "wgmmaWait"))) sim::wgmmaWait(N);
}
template <class T, int N>
void wgmma(float (&d)[N / 2], uint64_t a, uint64_t b, ND_AT) {
  sim::wgmmaIssue(
      d, N, a, b, [](uint16_t bits) { return toFloat(T{bits}); }, sim::siteOf(at, "wgmma"));
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
ND_DEVICE uint64_t operandDescriptor(const T* tile, int k) {
  return operandBits(sharedAddress(tile) + 2 * k);
}
/// Registers that wgmma writes behind the compiler's back: no use of theirs moves across this.
template <int K>
ND_DEVICE void holdRegisters(float (&d)[K]) {
#pragma unroll
  for (int i = 0; i < K; i++) asm volatile("" : "+f"(d[i])::"memory");
}
template <int K>
ND_DEVICE void wgmmaFence(float (&d)[K]) {
  holdRegisters(d);
  ND_HOPPER_ASM("wgmma.fence.sync.aligned;" ::: "memory");
}
ND_DEVICE void wgmmaCommit() { ND_HOPPER_ASM("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N, int K>
ND_DEVICE void wgmmaWait(float (&d)[K]) {
  ND_HOPPER_ASM("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
  holdRegisters(d);
}

template <class T, int N>
ND_DEVICE void wgmma(float (&d)[N / 2], uint64_t a, uint64_t b);

// One product with N / 2 accumulators: %0 … are d, then the two descriptors.
#define ND_R8(i)                                                                              \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define ND_R40(i) ND_R8(i), ND_R8(i + 8), ND_R8(i + 16), ND_R8(i + 24), ND_R8(i + 32)
#define ND_R64(i)                                                                                    \
  ND_R8(i), ND_R8(i + 8), ND_R8(i + 16), ND_R8(i + 24), ND_R8(i + 32), ND_R8(i + 40), ND_R8(i + 48), \
      ND_R8(i + 56)
#define ND_D80                               \
  "%0, %1, %2, %3, %4, %5, %6, %7, "         \
  "%8, %9, %10, %11, %12, %13, %14, %15, "   \
  "%16, %17, %18, %19, %20, %21, %22, %23, " \
  "%24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39, " \
  "%40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, " \
  "%56, %57, %58, %59, %60, %61, %62, %63, " \
  "%64, %65, %66, %67, %68, %69, %70, %71, " \
  "%72, %73, %74, %75, %76, %77, %78, %79"
#define ND_D128                                      \
  "%0, %1, %2, %3, %4, %5, %6, %7, "                 \
  "%8, %9, %10, %11, %12, %13, %14, %15, "           \
  "%16, %17, %18, %19, %20, %21, %22, %23, "         \
  "%24, %25, %26, %27, %28, %29, %30, %31, "         \
  "%32, %33, %34, %35, %36, %37, %38, %39, "         \
  "%40, %41, %42, %43, %44, %45, %46, %47, "         \
  "%48, %49, %50, %51, %52, %53, %54, %55, "         \
  "%56, %57, %58, %59, %60, %61, %62, %63, "         \
  "%64, %65, %66, %67, %68, %69, %70, %71, "         \
  "%72, %73, %74, %75, %76, %77, %78, %79, "         \
  "%80, %81, %82, %83, %84, %85, %86, %87, "         \
  "%88, %89, %90, %91, %92, %93, %94, %95, "         \
  "%96, %97, %98, %99, %100, %101, %102, %103, "     \
  "%104, %105, %106, %107, %108, %109, %110, %111, " \
  "%112, %113, %114, %115, %116, %117, %118, %119, " \
  "%120, %121, %122, %123, %124, %125, %126, %127"
template <>
ND_DEVICE void wgmma<Half, 160>(float (&d)[80], uint64_t a, uint64_t b) {
  ND_HOPPER_ASM(
      "{\n .reg .pred p;\n setp.eq.u32 p, 0, 0;\n wgmma.mma_async.sync.aligned.m64n160k16.f32.f16.f16 "
      "{" ND_D80 "}, %80, %81, p, 1, 1, 0, 0;\n}"
      : ND_R40(0), ND_R40(40)
      : "l"(a), "l"(b));
}
template <>
ND_DEVICE void wgmma<Bfloat, 160>(float (&d)[80], uint64_t a, uint64_t b) {
  ND_HOPPER_ASM(
      "{\n .reg .pred p;\n setp.eq.u32 p, 0, 0;\n wgmma.mma_async.sync.aligned.m64n160k16.f32.bf16.bf16 "
      "{" ND_D80 "}, %80, %81, p, 1, 1, 0, 0;\n}"
      : ND_R40(0), ND_R40(40)
      : "l"(a), "l"(b));
}
template <>
ND_DEVICE void wgmma<Half, 256>(float (&d)[128], uint64_t a, uint64_t b) {
  ND_HOPPER_ASM(
      "{\n .reg .pred p;\n setp.eq.u32 p, 0, 0;\n wgmma.mma_async.sync.aligned.m64n256k16.f32.f16.f16 "
      "{" ND_D128 "}, %128, %129, p, 1, 1, 0, 0;\n}"
      : ND_R64(0), ND_R64(64)
      : "l"(a), "l"(b));
}
template <>
ND_DEVICE void wgmma<Bfloat, 256>(float (&d)[128], uint64_t a, uint64_t b) {
  ND_HOPPER_ASM(
      "{\n .reg .pred p;\n setp.eq.u32 p, 0, 0;\n wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 "
      "{" ND_D128 "}, %128, %129, p, 1, 1, 0, 0;\n}"
      : ND_R64(0), ND_R64(64)
      : "l"(a), "l"(b));
}

#undef ND_R8
#undef ND_R40
#undef ND_R64
#undef ND_D80
#undef ND_D128
#undef ND_HOPPER_ASM

#endif

}  // namespace nd::cuda
