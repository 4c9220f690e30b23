// Any number of rows as tiles of nearly equal height, at most kMr: a short last tile would leave the FMA
// units waiting for each other.
//   Kernel::multiply<R>(rows, tiles)   `tiles` tiles of R rows, one after the other
#pragma once

#include "cpu/kernels/kernel-table.h"
#include "cpu/kernels/vec.h"

namespace nd::ND_ISA {

template <class Kernel, int R, class Rows>
ND_INLINE void multiplyTiles(int64_t height, const Rows& rows, int64_t tiles) {
  if (height == R) return Kernel::template multiply<R>(rows, tiles);
  if constexpr (R > 1) multiplyTiles<Kernel, R - 1>(height, rows, tiles);
}

template <class Kernel, class Rows>
inline void multiplyRows(const Rows& t) {
  if (t.count <= kMr) return multiplyTiles<Kernel, kMr>(t.count, t, 1);
  const int64_t tiles = (t.count + kMr - 1) / kMr, least = t.count / tiles, taller = t.count % tiles;
  if (taller) multiplyTiles<Kernel, kMr>(least + 1, t, taller);
  Rows rest = t;
  rest.rows += taller * (least + 1);
  rest.acc += taller * (least + 1) * kNr;
  multiplyTiles<Kernel, kMr>(least, rest, tiles - taller);
}

}  // namespace nd::ND_ISA
