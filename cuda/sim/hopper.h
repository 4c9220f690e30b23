// Hopper's asynchronous units in the simulator: mbarriers, the tensor copy engine (TMA) and wgmma.
#pragma once

#include <array>
#include <cstdint>

#include "cuda/sim/block.h"

namespace nd::cuda::sim {

// mbarriers, by the byte offset of their 8 bytes.
void mbarrierInit(uint32_t at, uint32_t count);
/// Makes the inits of this thread visible to the asynchronous units.
void mbarrierInitFence();
void mbarrierArrive(uint32_t at, uint32_t expectedBytes);
/// Until the phase of this parity has ended.
void mbarrierWait(uint32_t at, int parity);

/// Ordinary stores of this thread before it are visible to wgmma and copies after it.
void proxyFence();

/// What cuTensorMapEncodeTiled is told; checked as the driver checks it.
struct TensorMapFields {
  const void* data;
  uint64_t dim[4], stride[3];           // elements; bytes from index to index of dimensions 1 to 3
  uint32_t box[4];                      // elements
  uint32_t elementBytes, swizzleBytes;  // 0: none
};
void checkTensorMap(const TensorMapFields&);
/// The copy of a box into shared memory is under way from now on; it counts on the mbarrier.
void tensorLoad(uint32_t to, const TensorMapFields&, uint32_t mbarrier, const std::array<int, 4>& coordinate);

void wgmmaFence();
void wgmmaCommit();
void wgmmaWait(int pending);
/// A lane's part of a product: d[64, columns] += A[64, 16] B[16, columns], computed when the warp waits for
/// it.
struct Issue {
  float* d;
  const uint32_t* words;  // A in registers, or null and
  uint64_t a, b;          // descriptors of shared memory; A is K-contiguous
  int columns;
  bool transposed;  // B is N-contiguous
  float (*toFloat)(uint16_t);
};
void wgmmaIssue(const Issue&, const Site& site);

/// Where 8 consecutive elements of an operand begin, decoded from its 64-bit descriptor: start address,
/// leading and stride byte offsets (units of 16 bytes in bits 0–13, 16–29, 32–45) and the swizzle mode (bits
/// 62–63: none, 128, 64, 32 bytes). K-contiguous: row (of M or N) and k, a multiple of 8.
uint32_t operandOffset(uint64_t descriptor, int row, int k);
/// N-contiguous, swizzled: n, a multiple of 8, and k.
uint32_t transposedOffset(uint64_t descriptor, int n, int k);

/// Per launch.
void resetAsync();

}  // namespace nd::cuda::sim
