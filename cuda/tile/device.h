// What kernels use, on the GPU. cuda/sim/device.h is the same for the host.
#pragma once

#include <cuda.h>
#include <cudaTypedefs.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#define ND_DEVICE __device__ __forceinline__

namespace nd::cuda {

using Half = __half;
using Bfloat = __nv_bfloat16;

template <class T>
using Global = T*;
template <class T>
using Shared = T*;

/// 16 bytes, moved at once.
struct alignas(16) Vec16 {
  uint32_t w[4];
};
struct Float2 {
  float x, y;
};

ND_DEVICE float bitsToFloat(uint32_t bits) { return __uint_as_float(bits); }
ND_DEVICE uint32_t floatToBits(float value) { return __float_as_uint(value); }

ND_DEVICE double bitsToDouble(uint64_t bits) { return __longlong_as_double(static_cast<long long>(bits)); }
ND_DEVICE uint64_t doubleToBits(double value) { return static_cast<uint64_t>(__double_as_longlong(value)); }

ND_DEVICE float toFloat(float v) { return v; }
ND_DEVICE float toFloat(Half v) { return __half2float(v); }
ND_DEVICE float toFloat(Bfloat v) { return __bfloat162float(v); }
template <class T>
ND_DEVICE T fromFloat(float v);
template <>
ND_DEVICE float fromFloat<float>(float v) {
  return v;
}
template <>
ND_DEVICE Half fromFloat<Half>(float v) {
  return __float2half_rn(v);
}
template <>
ND_DEVICE Bfloat fromFloat<Bfloat>(float v) {
  return __float2bfloat16_rn(v);
}
/// Two 16-bit floats in a word, the first in the lower half.
template <class T>
ND_DEVICE uint32_t pack2(float a, float b);
template <>
ND_DEVICE uint32_t pack2<Half>(float a, float b) {
  const __half2 v = __floats2half2_rn(a, b);
  return *reinterpret_cast<const uint32_t*>(&v);
}
template <>
ND_DEVICE uint32_t pack2<Bfloat>(float a, float b) {
  const __nv_bfloat162 v = __floats2bfloat162_rn(a, b);
  return *reinterpret_cast<const uint32_t*>(&v);
}
template <class T>
ND_DEVICE Float2 unpack2(uint32_t word);
template <>
ND_DEVICE Float2 unpack2<Half>(uint32_t word) {
  const float2 v = __half22float2(*reinterpret_cast<const __half2*>(&word));
  return {v.x, v.y};
}
template <>
ND_DEVICE Float2 unpack2<Bfloat>(uint32_t word) {
  return {__uint_as_float(word << 16), __uint_as_float(word & 0xffff0000u)};
}

/// `count` elements from byte `offset` of the block's dynamic shared memory, whose start is 1024-byte
/// aligned.
template <class T>
ND_DEVICE T* shared(uint32_t offset, uint32_t) {
  extern __shared__ __align__(1024) unsigned char memory[];
  return reinterpret_cast<T*>(memory + offset);
}
ND_DEVICE uint32_t sharedAddress(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

template <class T>
ND_DEVICE Vec16 load16(const T* p) {
  const uint4 v = *reinterpret_cast<const uint4*>(p);
  return {{v.x, v.y, v.z, v.w}};
}
template <class T>
ND_DEVICE void store16(T* p, const Vec16& v) {
  *reinterpret_cast<uint4*>(p) = make_uint4(v.w[0], v.w[1], v.w[2], v.w[3]);
}
/// One word of two 16-bit elements (or a float).
template <class T>
ND_DEVICE uint32_t load4(const T* p) {
  return *reinterpret_cast<const uint32_t*>(p);
}
template <class T>
ND_DEVICE void store4(T* p, uint32_t word) {
  *reinterpret_cast<uint32_t*>(p) = word;
}
template <class T>
ND_DEVICE void store8(T* p, uint32_t first, uint32_t second) {
  *reinterpret_cast<uint2*>(p) = make_uint2(first, second);
}

ND_DEVICE void syncThreads() { __syncthreads(); }
ND_DEVICE void syncWarp() { __syncwarp(); }
/// bar.sync: barrier `id` (1 to 15; 0 is syncThreads()) for `count` threads, whole warps.
ND_DEVICE void namedBarrier(int id, int count) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(count) : "memory");
}

ND_DEVICE int laneId() { return static_cast<int>(threadIdx.x & 31); }
template <class T>
ND_DEVICE T shuffleXor(T value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}
template <class T>
ND_DEVICE T shuffleDown(T value, int delta) {
  return __shfl_down_sync(0xffffffffu, value, delta);
}
template <class T>
ND_DEVICE T shuffle(T value, int lane) {
  return __shfl_sync(0xffffffffu, value, lane);
}
ND_DEVICE uint32_t ballot(bool value) { return __ballot_sync(0xffffffffu, value); }

ND_DEVICE float fastExp(float x) { return __expf(x); }
ND_DEVICE float fastExp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
ND_DEVICE float fastDivide(float a, float b) { return __fdividef(a, b); }

}  // namespace nd::cuda
