// A block computes kTileM × kTileN results over a range of K, a warp kWarpM × kWarpN of them with
// mma.m16n8k16; four tiles of depth 32 are in flight (cp.async), one barrier per tile. Results pass through
// shared memory 16 rows at a time, so that additions and stores are 16 bytes wide.
//
// Bounds: 2·M·N·K FLOP at the rate of mma.sync (A100: 312 TFLOP/s; H100/H200: about 60% of wgmma's 989), or
// the bytes of A, W and y once. A tile of 128 × 160 moves (128 + 160)·2 bytes from L2 per 128·160·2 FLOP: 71
// FLOP per byte. Not yet measured.
#include "cuda/kernels/matmul.h"

#include <algorithm>

#include "cuda/kernels/matmul-epilogue.h"
#include "cuda/kernels/matmul-hopper.h"
#include "cuda/kernels/matmul-loader.h"
#include "cuda/tile/mma.h"

namespace nd::cuda {
namespace {

constexpr int kStages = 4;

constexpr uint32_t pipelineBytes(int rows) { return kStages * rows * kDepth * 2; }
template <class T, int kTileM, int kTileN, int kWarpM, int kWarpN, bool kWide>
__global__ void __launch_bounds__(kTileM / kWarpM * (kTileN / kWarpN) * 32,
                                  kTileM / kWarpM * (kTileN / kWarpN) == 8 ? 2 : 6)
    matmulKernel(const MatmulParams<T> p) {
  constexpr int kWarpsN = kTileN / kWarpN, kThreads = kTileM / kWarpM * kWarpsN * 32;
  constexpr int kRowsM = kWarpM / 16, kColumnsN = kWarpN / 8;
  const auto tileA = shared<T>(0, kStages * kTileM * kDepth);
  const auto tileB = shared<T>(pipelineBytes(kTileM), kStages * kTileN * kDepth);
  const int warp = static_cast<int>(threadIdx.x / 32), lane = laneId();
  const int tilesM = (p.m + kTileM - 1) / kTileM, phase = static_cast<int>(blockIdx.x) / tilesM;
  const int m0 = (static_cast<int>(blockIdx.x) - phase * tilesM) * kTileM,
            n0 = static_cast<int>(blockIdx.y) * kTileN;
  const int warpM = warp / kWarpsN * kWarpM, warpN = warp % kWarpsN * kWarpN;

  const int firstTile = static_cast<int>(blockIdx.z) * p.tilesPerSplit;
  const int tiles = min(p.tilesPerSplit, (p.k + kDepth - 1) / kDepth - firstTile);
  TileLoader<T, kTileM, kTileN, kThreads, kWide> loader(p, m0, n0, firstTile * kDepth, phase);
#pragma unroll
  for (int i = 0; i < kStages - 1; i++) {
    if (i < tiles) loader.load(p, tileA + i * kTileM * kDepth, tileB + i * kTileN * kDepth);
    asyncCommit();
  }

  float sums[kRowsM][kColumnsN][4] = {};
  for (int tile = 0; tile < tiles; tile++) {
    asyncWait<kStages - 2>();
    syncThreads();  // the tile has arrived for all, and nobody reads the one that is overwritten next
    if (const int next = tile + kStages - 1; next < tiles) {
      const int stage = next % kStages;
      loader.load(p, tileA + stage * kTileM * kDepth, tileB + stage * kTileN * kDepth);
    }
    asyncCommit();
    const auto a = tileA + tile % kStages * kTileM * kDepth, b = tileB + tile % kStages * kTileN * kDepth;
#pragma unroll
    for (int step = 0; step < kDepth / 16; step++) {
      uint32_t fragmentA[kRowsM][4], fragmentB[kColumnsN][2];
#pragma unroll
      for (int i = 0; i < kRowsM; i++)
        loadMatrix4(fragmentA[i], a + tileOffset(warpM + 16 * i + lane % 16, 2 * step + lane / 16));
#pragma unroll
      for (int j = 0; j + 1 < kColumnsN; j += 2) {
        uint32_t four[4];
        loadMatrix4(four, b + tileOffset(warpN + 8 * j + lane / 16 * 8 + lane % 8, 2 * step + lane / 8 % 2));
        fragmentB[j][0] = four[0], fragmentB[j][1] = four[1], fragmentB[j + 1][0] = four[2],
        fragmentB[j + 1][1] = four[3];
      }
      if constexpr (kColumnsN % 2 != 0)
        loadMatrix2(fragmentB[kColumnsN - 1],
                    b + tileOffset(warpN + 8 * (kColumnsN - 1) + lane % 8, 2 * step + lane / 8 % 2));
#pragma unroll
      for (int i = 0; i < kRowsM; i++)
#pragma unroll
        for (int j = 0; j < kColumnsN; j++) multiply16816<T>(sums[i][j], fragmentA[i], fragmentB[j]);
    }
  }
  syncThreads();  // nobody reads the pipeline's memory any more (what is committed beyond the last tile is
                  // empty): it stages results

  const auto staging = shared<float>(warp * stagingBytes(kWarpN), 16 * stagingPitch(kWarpN));
  // One copy of the code for all rows, whose sums move to the front in turn.
#pragma unroll 1
  for (int i = 0; i < kRowsM; i++) {
    finishRows<kColumnsN>(
        p, staging, n0 + warpN, [&](int j, int e) { return sums[0][j][e]; },
        [&](int row) {
          const int m = m0 + warpM + 16 * i + row;
          return m < p.m ? p.rowOf(m, phase) : -1;
        });
#pragma unroll
    for (int row = 0; row + 1 < kRowsM; row++)
#pragma unroll
      for (int j = 0; j < kColumnsN; j++)
#pragma unroll
        for (int e = 0; e < 4; e++) sums[row][j][e] = sums[row + 1][j][e];
  }
}

/// Adds the partial sums of all ranges of K, in their order, and ends the results. One thread per 8 columns.
template <class T>
__global__ void __launch_bounds__(256) sumPartialKernel(const MatmulParams<T> p) {
  const int chunks = (p.n + 7) / 8;
  const int64_t at = static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x;
  if (at >= static_cast<int64_t>(p.phases) * p.m * chunks) return;
  const int m = static_cast<int>(at / chunks), n = static_cast<int>(at % chunks) * 8;
  float v[8] = {};
  for (int split = 0; split < p.splits; split++) {
    const auto from = p.partial + ((static_cast<int64_t>(split) * p.phases * p.m + m) * p.n + n);
    if (p.n % 4 == 0 && n + 8 <= p.n) {
      const Vec16 low = load16(from), high = load16(from + 4);
#pragma unroll
      for (int e = 0; e < 4; e++) v[e] += bitsToFloat(low.w[e]), v[4 + e] += bitsToFloat(high.w[e]);
    } else {
#pragma unroll
      for (int e = 0; e < 8; e++)
        if (n + e < p.n) v[e] += from[e];
    }
  }
  finish8(p, v, m, n);
}

template <class T, int kTileM, int kTileN, int kWarpM, int kWarpN, bool kWide>
void run(const Launch& launch_, const MatmulParams<T>& p) {
  constexpr unsigned kThreads = kTileM / kWarpM * (kTileN / kWarpN) * 32;
  constexpr uint32_t kStaging = kThreads / 32 * stagingBytes(kWarpN);
  constexpr uint32_t kBytes =
      pipelineBytes(kTileM + kTileN) > kStaging ? pipelineBytes(kTileM + kTileN) : kStaging;
  const dim3 grid((p.m + kTileM - 1) / kTileM * p.phases, (p.n + kTileN - 1) / kTileN, p.splits);
  launch("matmul", matmulKernel<T, kTileM, kTileN, kWarpM, kWarpN, kWide>,
         {grid, kThreads, kBytes, launch_.stream}, p);
}

struct TileKind {
  int m, n;
  double rate;  // of the tensor cores, where there are blocks enough: an estimate from loads per product, not
                // yet measured
};
constexpr TileKind kTiles[] = {
    {128, 160, 1.0},  // N of 320, 640, 1280 without remainder: M 2048 × N 1280 is 128 blocks, one wave of 132
    {128, 128, 0.95},
    {64, 64, 0.6},
    {128, 16, 0.25},  // the last convolutions: 3, 4 or 8 channels
};

}  // namespace

MatmulTile& forcedMatmulTile() {
  static MatmulTile tile;
  return tile;
}

MatmulTile chooseMatmulTile(int64_t m, int64_t n, int64_t k, int multiprocessors, size_t workspaceBytes) {
  const int64_t depth = (k + kDepth - 1) / kDepth;
  MatmulTile best{};
  for (const TileKind& tile : kTiles)
    for (int splits : {1, 2, 3, 4, 6, 8, 12, 16, 24, 32}) {
      // A range of less than 8 tiles does not fill the pipeline.
      if (splits > 1 && (depth / splits < 8 || static_cast<size_t>(splits * m * n) * 4 > workspaceBytes))
        continue;
      const int64_t blocks = (m + tile.m - 1) / tile.m * ((n + tile.n - 1) / tile.n) * splits;
      const double waves = static_cast<double>((blocks + multiprocessors - 1) / multiprocessors);
      // Clocks: 1024 multiply-adds each per multiprocessor, 300 to fill the pipeline, and where K is cut
      // another launch that reads what this one writes (about 2 KB per clock).
      double clocks = waves * (static_cast<double>((depth + splits - 1) / splits) * kDepth * tile.m * tile.n /
                                   1024 / tile.rate +
                               300);
      if (splits > 1) clocks += 2500 + static_cast<double>(splits * m * n) * 8 / 2048;
      if (best.m == 0 || clocks < best.clocks) best = {tile.m, tile.n, splits, clocks};
    }
  return best;
}

template <class T>
static void matmulOf(const Launch& launch_, const MatmulProblem& q) {
  MatmulParams<T> p{};
  p.x = Global<const T>(static_cast<const T*>(q.x)),
  p.skip = Global<const T>(static_cast<const T*>(q.skip ? q.skip : q.x));
  p.w = Global<const T>(static_cast<const T*>(q.weight)), p.bias = Global<const float>(q.bias);
  p.channelAdd = Global<const T>(static_cast<const T*>(q.channelAdd));
  p.residual = Global<const T>(static_cast<const T*>(q.residual));
  p.y = Global<T>(static_cast<T*>(q.y));
  p.xStride = q.xStride, p.skipStride = q.skipStride, p.wPitch = q.weightPitch;
  p.channelAddStride = q.channelAddStride, p.residualStride = q.residualStride, p.yStride = q.yStride;
  const int64_t m = q.batch * q.gridH() * q.gridW(), n = q.geglu ? 2 * q.n : q.n,
                k = q.c * q.kernelH * q.kernelW;
  expect(m * q.phases() < INT32_MAX && n < INT32_MAX && k < INT32_MAX &&
             q.batch * q.height * q.width < INT32_MAX,
         "matmul: rows, columns and pixels fit 31 bits");
  p.m = static_cast<int>(m), p.n = static_cast<int>(n), p.k = static_cast<int>(k);
  p.c1 = static_cast<int>(q.c1), p.c = static_cast<int>(q.c);
  p.height = static_cast<int>(q.height), p.width = static_cast<int>(q.width);
  p.inputH = static_cast<int>(q.inputH), p.inputW = static_cast<int>(q.inputW);
  p.outW = static_cast<int>(q.outW), p.outPixels = static_cast<int>(q.outH * q.outW);
  p.gridW = static_cast<int>(q.gridW()), p.gridPixels = static_cast<int>(q.gridH() * q.gridW());
  p.phases = q.phases();
  p.kernelH = q.kernelH, p.kernelW = q.kernelW, p.stride = q.stride, p.padTop = q.padTop,
  p.padLeft = q.padLeft;
  if (q.inputH != q.height || q.inputW != q.width) {
    p.scaleH = static_cast<float>(q.height) / static_cast<float>(q.inputH);
    p.scaleW = static_cast<float>(q.width) / static_cast<float>(q.inputW);
  }
  p.activation = q.activation, p.geglu = q.geglu, p.wrapX = q.wrapX, p.wrapY = q.wrapY;
  const auto wide = [](const void* data, int64_t stride) {
    return reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride % 8 == 0;
  };
  p.wideRows = wide(q.y, q.yStride) && (!q.residual || wide(q.residual, q.residualStride));
  const bool wideInput = wide(q.x, q.xStride) && wide(q.weight, q.weightPitch) && q.c1 % 8 == 0 &&
                         q.c % 8 == 0 && (!q.skip || wide(q.skip, q.skipStride));

  MatmulTile tile = forcedMatmulTile();
  if (!tile.m) tile = chooseMatmulTile(m * q.phases(), n, k, launch_.multiprocessors, launch_.workspaceBytes);
  if (tile.hopper || (launch_.capability == 90 && !forcedMatmulTile().m)) {
    HopperTile hopper = chooseHopperTile(q, launch_.multiprocessors);
    if (tile.hopper && hopper.n) hopper.n = tile.n;
    if (hopper.n && (tile.hopper || hopper.clocks < tile.clocks))
      return matmulHopper<T>(launch_, q, p, hopper);
  }
  if (!wideInput) tile.m = 64, tile.n = 64;
  const int depth = (p.k + kDepth - 1) / kDepth;
  p.tilesPerSplit = (depth + tile.splits - 1) / tile.splits;
  p.splits = (depth + p.tilesPerSplit - 1) / p.tilesPerSplit;
  if (p.splits > 1) p.partial = Global<float>(static_cast<float*>(launch_.workspace));

  if (!wideInput) {
    run<T, 64, 64, 32, 32, false>(launch_, p);
  } else if (tile.n == 160) {
    run<T, 128, 160, 64, 40, true>(launch_, p);
  } else if (tile.n == 128) {
    run<T, 128, 128, 64, 32, true>(launch_, p);
  } else if (tile.n == 64) {
    run<T, 64, 64, 32, 32, true>(launch_, p);
  } else {
    run<T, 128, 16, 32, 16, true>(launch_, p);
  }
  if (p.splits > 1) {
    const int64_t chunks = static_cast<int64_t>(p.phases) * p.m * ((p.n + 7) / 8);
    launch("sumPartial", sumPartialKernel<T>,
           {static_cast<unsigned>((chunks + 255) / 256), 256, 0, launch_.stream}, p);
  }
}

void matmul(const Launch& launch_, DType type, const MatmulProblem& problem) {
  withType(type, [&](auto zero) { matmulOf<decltype(zero)>(launch_, problem); });
}

}  // namespace nd::cuda
