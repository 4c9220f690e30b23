// Rows of a stored matrix → the rows of a panel, NR elements wide: the transposition that laying out weights
// consists of. Square blocks, as wide as a 16-byte vector, are transposed in registers by rounds of
// interleaving, each of which doubles the length of the stretches that belong together.
//
// Bound by the memory that is read and written for the first time.
#pragma once

#include <cstdint>
#include <cstring>

namespace nd {

template <class T>
struct Lanes;

template <>
struct Lanes<uint16_t> {
  using Vector = uint16_t __attribute__((vector_size(16)));
  static constexpr int kCount = 8;
  static Vector low(Vector a, Vector b) { return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11); }
  static Vector high(Vector a, Vector b) { return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15); }
};

template <>
struct Lanes<float> {
  using Vector = float __attribute__((vector_size(16)));
  static constexpr int kCount = 4;
  static Vector low(Vector a, Vector b) { return __builtin_shufflevector(a, b, 0, 4, 1, 5); }
  static Vector high(Vector a, Vector b) { return __builtin_shufflevector(a, b, 2, 6, 3, 7); }
};

/// One square block: to[i · width + r] = rows[r][i].
template <class T>
inline void transposeBlock(const T* const* rows, int64_t first, int width, T* to) {
  constexpr int kCount = Lanes<T>::kCount;
  typename Lanes<T>::Vector a[kCount], b[kCount];
  for (int r = 0; r < kCount; r++)
    std::memcpy(&a[r], rows[r] + first, sizeof a[r]);  // mapped files promise no alignment
  for (int stretch = 1; stretch < kCount; stretch *= 2) {
    for (int r = 0; r < kCount / 2; r++) {
      b[2 * r] = Lanes<T>::low(a[r], a[r + kCount / 2]);
      b[2 * r + 1] = Lanes<T>::high(a[r], a[r + kCount / 2]);
    }
    std::memcpy(a, b, sizeof a);
  }
  for (int r = 0; r < kCount; r++) std::memcpy(to + r * width, &a[r], sizeof a[r]);
}

/// to[i · width + j] = rows[j][i] for i < count, j < width.
template <class T>
void transposeRows(const T* const* rows, int width, int64_t count, T* to) {
  constexpr int kCount = Lanes<T>::kCount;
  for (int j = 0; j < width; j += kCount) {
    int64_t i = 0;
    if (j + kCount <= width)
      for (; i + kCount <= count; i += kCount) transposeBlock(rows + j, i, width, to + i * width + j);
    for (; i < count; i++)
      for (int c = j; c < width && c < j + kCount; c++)
        std::memcpy(to + i * width + c, rows[c] + i, sizeof(T));
  }
}

}  // namespace nd
