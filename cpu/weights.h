// Weights as the SIMD backend lays them out. Matrices become panels: NR output features wide, K-major, so
// that a micro-kernel reads one straight line of memory:
//   Linear, Conv  [N, K]  → [ceil(N / NR)][K][NR]          Conv: K = (ky, kx, c), c fastest
//   Geglu         [2N, K] → [ceil(N / (NR/2))][K][NR]      NR/2 values, then their NR/2 gates
// Elements keep the stored type (F8 becomes F16, exactly) and are widened to fp32 block by block while they
// are used. A matrix takes the bytes of the file plus the padding of its last panel.
#pragma once

#include "cpu/kernels/kernel-table.h"
#include "engine/backend.h"

namespace nd {

struct PackedWeight final : Weight {
  ~PackedWeight() override;
  size_t bytes() const override { return byteCount; }
  const uint8_t* element(int64_t index) const { return data + index * elementBytes(); }
  int elementBytes() const { return format == WeightFormat::F32 ? 4 : 2; }

  WeightFormat format = WeightFormat::F32;
  uint8_t* data = nullptr;  // 64-byte aligned
  size_t byteCount = 0;
  int64_t panels = 0;  // of the matrix kinds
};

inline const PackedWeight& packed(const Weight* w) { return static_cast<const PackedWeight&>(*w); }

/// Writes `count` elements from `index` on as float.
void widen(const KernelTable& kernels, const PackedWeight& weight, int64_t index, int64_t count, float* to);

/// `count` elements from `index` on as float: where they are stored so, else in `to`.
inline const float* asFloats(const KernelTable& kernels, const PackedWeight& weight, int64_t index,
                             int64_t count, float* to) {
  if (weight.format == WeightFormat::F32) return reinterpret_cast<const float*>(weight.element(index));
  widen(kernels, weight, index, count, to);
  return to;
}

/// One row of a Table as float.
inline void tableRow(const KernelTable& kernels, const PackedWeight& table, int64_t row, float* to) {
  widen(kernels, table, row * table.k, table.k, to);
}

}  // namespace nd
