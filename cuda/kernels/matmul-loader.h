// Fills shared memory with tiles of A and W: rows of 32 elements (64 bytes), K-contiguous. The 16-byte chunk
// j of row r lies at chunk j ^ (r / 2 mod 4) of its row, so that the eight rows that ldmatrix reads together
// touch all 32 banks once.
#pragma once

#include "cuda/kernels/matmul-params.h"
#include "cuda/tile/async-copy.h"

namespace nd::cuda {

constexpr int kDepth = 32;  // K elements of a tile

/// Element offset of chunk `chunk` of a row.
ND_DEVICE int tileOffset(int row, int chunk) { return row * kDepth + ((chunk ^ (row >> 1 & 3)) << 3); }

/// A position in the K range: tap (r, s) and channel c, moved on without divisions.
struct KPosition {
  int r, s, c;

  template <class T>
  ND_DEVICE void start(const MatmulParams<T>& p, int k) {
    const int tap = k / p.c;
    c = k - tap * p.c;
    r = tap / p.kernelW, s = tap - r * p.kernelW;
  }
  template <class T>
  ND_DEVICE void advance(const MatmulParams<T>& p, int by) {
    c += by;
    while (c >= p.c) {
      c -= p.c;
      if (++s == p.kernelW) s = 0, r++;
    }
  }
};

/// `i` from the other side where it is beyond an edge.
ND_DEVICE int wrapped(int i, int size) {
  i %= size;
  return i < 0 ? i + size : i;
}

/// An output pixel: where its image starts, and the first input position under the kernel.
struct RowPosition {
  static constexpr int kNowhere = -(1 << 20);
  int image, h, w;

  template <class T>
  ND_DEVICE void start(const MatmulParams<T>& p, int m, int phase) {
    if (m >= p.m) {
      image = 0, h = w = kNowhere;  // outside under every tap
      return;
    }
    const int b = m / p.gridPixels, pixel = m - b * p.gridPixels, i = pixel / p.gridW;
    image = b * p.height * p.width;
    h = i * p.stride - p.padTop + phase / 2, w = (pixel - i * p.gridW) * p.stride - p.padLeft + phase % 2;
  }
  /// The input pixel under a tap, or −1.
  template <class T>
  ND_DEVICE int pixel(const MatmulParams<T>& p, const KPosition& k) const {
    int i = h + k.r, j = w + k.s;
    if (p.wrapY && h != kNowhere) i = wrapped(i, p.inputH);
    if (p.wrapX && h != kNowhere) j = wrapped(j, p.inputW);
    if (k.r >= p.kernelH || i < 0 || j < 0 || i >= p.inputH || j >= p.inputW) return -1;
    if (p.scaleH != 0) {  // torch's nearest rule, in single precision as torch computes it
      i = min(static_cast<int>(static_cast<float>(i) * p.scaleH), p.height - 1);
      j = min(static_cast<int>(static_cast<float>(j) * p.scaleW), p.width - 1);
    }
    return image + i * p.width + j;
  }
};

/// The rows of one operand that a thread copies: row tid / 4 and every kThreads / 4 further, chunk tid mod 4.
template <class T, int kRowsA, int kRowsB, int kThreads, bool kWide>
class TileLoader {
 public:
  ND_DEVICE TileLoader(const MatmulParams<T>& p, int m0, int n0, int k0, int phase)
      : row_(threadIdx.x / 4), chunk_(threadIdx.x & 3), weight_(p.w + phase * p.n * p.wPitch) {
    k_ = k0 + 8 * chunk_;
    position_.start(p, k_);
    n_ = n0 + row_;
#pragma unroll
    for (int i = 0; i < kPassesA; i++) rows_[i].start(p, m0 + row_ + i * kStep, phase);
  }

  /// Copies the next tile. Wide: asynchronously, 16 bytes at a time.
  ND_DEVICE void load(const MatmulParams<T>& p, Shared<T> a, Shared<T> b) {
#pragma unroll
    for (int i = 0; i < kPassesA; i++) {
      const int row = row_ + i * kStep;
      if (kRowsA % kStep != 0 && row >= kRowsA) continue;
      if constexpr (kWide) {
        const int pixel = rows_[i].pixel(p, position_);
        const bool first = position_.c < p.c1;
        const Global<const T> from = first ? p.x + (pixel * p.xStride + position_.c)
                                           : p.skip + (pixel * p.skipStride + position_.c - p.c1);
        asyncCopy16(a + tileOffset(row, chunk_), pixel >= 0 ? from : p.x, pixel >= 0);
      } else {
        loadNarrow(p, rows_[i], a + tileOffset(row, chunk_));
      }
    }
#pragma unroll
    for (int i = 0; i < kPassesB; i++) {
      const int row = row_ + i * kStep, n = n_ + i * kStep;
      if (kRowsB % kStep != 0 && row >= kRowsB) continue;
      const bool inside = n < p.n && k_ < p.k;
      const Global<const T> from = weight_ + (inside ? n * p.wPitch + k_ : 0);
      if constexpr (kWide) {
        asyncCopy16(b + tileOffset(row, chunk_), from, inside);
      } else {
        const Shared<T> to = b + tileOffset(row, chunk_);
        for (int j = 0; j < 8; j++) to[j] = inside && k_ + j < p.k ? from[j] : fromFloat<T>(0);
      }
    }
    position_.advance(p, kDepth);
    k_ += kDepth;
  }

 private:
  static constexpr int kStep = kThreads / 4;
  static constexpr int kPassesA = (kRowsA + kStep - 1) / kStep, kPassesB = (kRowsB + kStep - 1) / kStep;

  /// Channels or rows that are not multiples of 8 elements (the first and last convolutions): one by one.
  ND_DEVICE void loadNarrow(const MatmulParams<T>& p, const RowPosition& at, Shared<T> to) {
    KPosition k = position_;
#pragma unroll 1  // few such layers, and unrolled they need more registers than there are
    for (int j = 0; j < 8; j++) {
      const int pixel = at.pixel(p, k);
      T value = fromFloat<T>(0);
      if (pixel >= 0)
        value = k.c < p.c1 ? p.x[pixel * p.xStride + k.c] : p.skip[pixel * p.skipStride + k.c - p.c1];
      to[j] = value;
      k.advance(p, 1);
    }
  }

  int row_, chunk_, k_, n_;
  Global<const T> weight_;  // the phase's
  KPosition position_;
  RowPosition rows_[kPassesA];
};

}  // namespace nd::cuda
