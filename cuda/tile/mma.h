// The tensor cores of sm_80, a warp at a time. Lane l = 4 g + t (g 0…7, t 0…3) holds, as PTX defines
// mma.m16n8k16:
//   A 16×16 (rows m, columns k), 4 words of 2: (g, 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8) and the
//   column after each B 16×8 (rows k, columns n), 2 words of 2:  (2t, g), (2t + 8, g) and the row after each
//   C 16×8, 4 floats: (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1)
// ldmatrix reads 8×8 matrices of 16-bit elements: lanes 8 i … 8 i + 7 give the addresses of the rows of
// matrix i, and lane l gets row g's elements 2t and 2t + 1 of every matrix (transposed: column g's elements
// 2t and 2t + 1).
#pragma once

#include "cuda/tile/platform.h"

namespace nd::cuda {

#ifdef ND_CUDA_SIM

namespace sim {

struct MatrixLoad {
  uint16_t row[8];
  uint32_t* result;
};
template <int kMatrices, bool kTransposed>
void loadMatrices(uint32_t* result, const void* row, const Site& site) {
  MatrixLoad mine{{}, result};
  if (laneIndex() < 8 * kMatrices) {
    accessShared(row, 16, Access::Read);
    std::memcpy(mine.row, row, 16);
  }
  warpCollective(site, &mine, [](void** arguments, int) {
    const auto element = [&](int matrix, int r, int c) -> uint32_t {
      return static_cast<MatrixLoad*>(arguments[8 * matrix + r])->row[c];
    };
    for (int lane = 0; lane < 32; lane++)
      for (int i = 0; i < kMatrices; i++) {
        const int g = lane / 4, t = lane % 4;
        static_cast<MatrixLoad*>(arguments[lane])->result[i] =
            kTransposed ? element(i, 2 * t, g) | element(i, 2 * t + 1, g) << 16
                        : element(i, g, 2 * t) | element(i, g, 2 * t + 1) << 16;
      }
  });
}

struct MatrixProduct {
  float* d;
  const uint32_t *a, *b;
};
/// All lanes' D += A B, in float32.
template <class T>
void multiply(void** lanes) {
  float a[16][16], b[16][8], d[16][8];
  for (int lane = 0; lane < 32; lane++) {
    const auto& p = *static_cast<MatrixProduct*>(lanes[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; i++) {
      const Float2 v = unpack2<T>(p.a[i]);
      const int row = g + 8 * (i % 2), column = 2 * t + 8 * (i / 2);
      a[row][column] = v.x, a[row][column + 1] = v.y;
      d[g + 8 * (i / 2)][2 * t + i % 2] = p.d[i];
    }
    for (int i = 0; i < 2; i++) {
      const Float2 v = unpack2<T>(p.b[i]);
      b[2 * t + 8 * i][g] = v.x, b[2 * t + 8 * i + 1][g] = v.y;
    }
  }
  for (int m = 0; m < 16; m++)
    for (int k = 0; k < 16; k++)
      for (int n = 0; n < 8; n++) d[m][n] += a[m][k] * b[k][n];
  for (int lane = 0; lane < 32; lane++) {
    const auto& p = *static_cast<MatrixProduct*>(lanes[lane]);
    for (int i = 0; i < 4; i++) p.d[i] = d[lane / 4 + 8 * (i / 2)][2 * (lane % 4) + i % 2];
  }
}

}  // namespace sim

template <class P>
void loadMatrix4(uint32_t (&r)[4], P row, ND_AT) {
  sim::loadMatrices<4, false>(r, row.checked(16), sim::siteOf(at, "ldmatrix.x4"));
}
template <class P>
void loadMatrix2(uint32_t (&r)[2], P row, ND_AT) {
  sim::loadMatrices<2, false>(r, row.checked(16), sim::siteOf(at, "ldmatrix.x2"));
}
template <class P>
void loadMatrix4Transposed(uint32_t (&r)[4], P row, ND_AT) {
  sim::loadMatrices<4, true>(r, row.checked(16), sim::siteOf(at, "ldmatrix.x4.trans"));
}
template <class P>
void loadMatrix2Transposed(uint32_t (&r)[2], P row, ND_AT) {
  sim::loadMatrices<2, true>(r, row.checked(16), sim::siteOf(at, "ldmatrix.x2.trans"));
}
/// D += A B.
template <class T>
void multiply16816(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], ND_AT) {
  sim::MatrixProduct mine{d, a, b};
  sim::warpCollective(sim::siteOf(at, "mma.m16n8k16"), &mine,
                      [](void** lanes, int) { sim::multiply<T>(lanes); });
}

#else

ND_DEVICE void loadMatrix4(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(sharedAddress(row))
               : "memory");
}
ND_DEVICE void loadMatrix2(uint32_t (&r)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(sharedAddress(row))
               : "memory");
}
ND_DEVICE void loadMatrix4Transposed(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(sharedAddress(row))
               : "memory");
}
ND_DEVICE void loadMatrix2Transposed(uint32_t (&r)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(sharedAddress(row))
               : "memory");
}
template <class T>
ND_DEVICE void multiply16816(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
template <>
ND_DEVICE void multiply16816<Half>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, "
      "%1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
template <>
ND_DEVICE void multiply16816<Bfloat>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

#endif

}  // namespace nd::cuda
