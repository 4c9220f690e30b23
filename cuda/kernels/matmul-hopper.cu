// The matrix product and convolution of matmul.h for Hopper: persistent blocks of one producer and two
// consumer warpgroups.
//
// The producer's one thread fetches tiles of 128 pixels × 64 channels and of kTileN weight rows × 64 with
// tensor copies. A tile's pixels are a box of the result (boxB × boxH × boxW), so that under every tap they
// are a box of the input: what lies outside arrives as zeros, which is the padding, and a channel range that
// ends before a multiple of 64 is filled up with zeros. Each consumer warpgroup multiplies 64 rows with wgmma
// m64nNk16 (128-byte swizzle) and finishes them itself.
//
// Bounds: 2·M·N·K FLOP at 989 TFLOP/s (H200, dense; 60–80% is what well-known kernels reach), or bytes once
// at 4.8 TB/s. Per 64 deep step a block of 128 × 160 takes 640 clocks of the tensor cores and fetches 36 KB:
// 57 bytes per clock of L2's about 64 per multiprocessor; 128 × 256 takes 1024 clocks and 48 KB, 47 bytes per
// clock. Not yet measured.
#include "cuda/kernels/matmul-hopper.h"

#include <algorithm>

#include "cuda/kernels/matmul-epilogue.h"
#include "cuda/kernels/tensor-map.h"
#include "cuda/tile/hopper.h"

namespace nd::cuda {
namespace {

constexpr int kRows = 128, kStep = 64;  // of a tile; K elements of one copy
constexpr int kConsumerWarps = 8, kThreads = 384;

template <class T>
struct HopperParams {
  TensorMap x, skip, w;
  MatmulParams<T> common;
  int boxW, boxH, boxB, tilesW, tilesH, tilesB, tilesN, tiles;
  int chunks1, chunks;  // of 64 channels: of x, of x and skip
};

template <int kTileN>
struct Layout {
  static constexpr int kStages = kTileN == 160 ? 5 : 4;
  static constexpr int kSlab = kTileN == 160 ? 40 : 32;  // columns that are finished at a time
  static constexpr uint32_t kBytesA = kRows * kStep * 2, kBytesB = kTileN * kStep * 2;
  static constexpr uint32_t kStaging = kStages * (kBytesA + kBytesB);
  static constexpr uint32_t kBarriers = kStaging + kConsumerWarps * stagingBytes(kSlab);
  static constexpr uint32_t kBytes = kBarriers + 2 * kStages * 8;
};

/// The first pixel of a tile's box.
struct Box {
  int w, h, b, n, phase;

  template <class T>
  ND_DEVICE Box(const HopperParams<T>& p, int tile) {
    n = tile % p.tilesN;
    int rest = tile / p.tilesN;
    w = rest % p.tilesW * p.boxW;
    rest /= p.tilesW;
    h = rest % p.tilesH * p.boxH;
    rest /= p.tilesH;
    b = rest % p.tilesB * p.boxB;
    phase = rest / p.tilesB;
  }
};

template <int kTileN, class T>
ND_DEVICE void produce(const HopperParams<T>& p, Shared<T> a, Shared<T> b, Shared<uint64_t> full,
                       Shared<uint64_t> empty) {
  using L = Layout<kTileN>;
  const MatmulParams<T>& q = p.common;
  int stage = 0, parity = 1;  // an mbarrier's phase before the first counts as ended
  for (int tile = static_cast<int>(blockIdx.x); tile < p.tiles; tile += static_cast<int>(gridDim.x)) {
    const Box box(p, tile);
    for (int tap = 0; tap < q.kernelH * q.kernelW; tap++) {
      const int h = box.h + tap / q.kernelW - q.padTop + box.phase / 2,
                w = box.w + tap % q.kernelW - q.padLeft + box.phase % 2;
      for (int chunk = 0; chunk < p.chunks; chunk++) {
        const bool second = chunk >= p.chunks1;
        const int c = (second ? chunk - p.chunks1 : chunk) * kStep, k = tap * q.c + (second ? q.c1 : 0) + c;
        mbarrierWait(empty + stage, parity);
        mbarrierExpect(full + stage, L::kBytesA + L::kBytesB);
        tensorLoad(a + stage * kRows * kStep, second ? p.skip : p.x, full + stage, c, w, h, box.b);
        tensorLoad(b + stage * kTileN * kStep, p.w, full + stage, k, box.n * kTileN, box.phase, 0);
        if (++stage == L::kStages) stage = 0, parity ^= 1;
      }
    }
  }
}

template <int kTileN, class T>
ND_DEVICE void consume(const HopperParams<T>& p, Shared<T> a, Shared<T> b, Shared<uint64_t> full,
                       Shared<uint64_t> empty) {
  using L = Layout<kTileN>;
  const MatmulParams<T>& q = p.common;
  const int warp = static_cast<int>(threadIdx.x / 32) - 4, lane = laneId();
  const int steps = q.kernelH * q.kernelW * p.chunks;
  const auto staging =
      shared<float>(L::kStaging + warp * stagingBytes(L::kSlab), 16 * stagingPitch(L::kSlab));
  int stage = 0, parity = 0;
  for (int tile = static_cast<int>(blockIdx.x); tile < p.tiles; tile += static_cast<int>(gridDim.x)) {
    float sums[kTileN / 8][4];
#pragma unroll
    for (int i = 0; i < kTileN / 2; i++) sums[i / 4][i % 4] = 0;

    int last = stage;
    for (int step = 0; step < steps; step++) {
      mbarrierWait(full + stage, parity);
      wgmmaFence(sums);
      const Shared<T> tileA = a + (stage * kRows + warp / 4 * 64) * kStep, tileB = b + stage * kTileN * kStep;
#pragma unroll
      for (int k = 0; k < kStep; k += 16)
        wgmma<T, kTileN>(sums, operandDescriptor(tileA, k), operandDescriptor(tileB, k));
      wgmmaCommit();
      wgmmaWait<1>(sums);  // the previous step's: its buffers are free
      if (step > 0 && lane == 0) mbarrierArrive(empty + last);
      last = stage;
      if (++stage == L::kStages) stage = 0, parity ^= 1;
    }
    wgmmaWait<0>(sums);
    if (lane == 0) mbarrierArrive(empty + last);

    const Box box(p, tile);
    const int first = warp * 16;  // of the warp's rows
    const auto rowOf = [&](int r) {
      const int row = first + r, line = row / p.boxW;
      const int w = box.w + row % p.boxW, h = box.h + line % p.boxH, image = box.b + line / p.boxH;
      if (w >= q.gridW || h * q.gridW >= q.gridPixels || image * q.gridPixels >= q.m) return -1;
      return q.rowAt(image, h, w, box.phase);
    };
    // One copy of the code for all slabs, whose sums move to the front in turn: unrolled it would not fit the
    // instruction cache.
    constexpr int kColumns = L::kSlab / 8;
#pragma unroll 1
    for (int slab = 0; slab < kTileN / L::kSlab; slab++) {
      finishRows<kColumns>(
          q, staging, box.n * kTileN + slab * L::kSlab, [&](int j, int e) { return sums[j][e]; }, rowOf);
#pragma unroll
      for (int i = 0; i < 4 * (kTileN / 8 - kColumns); i++)
        sums[i / 4][i % 4] = sums[i / 4 + kColumns][i % 4];
    }
  }
}

template <class T, int kTileN>
__global__ void __launch_bounds__(kThreads, 1) matmulHopperKernel(const __grid_constant__ HopperParams<T> p) {
#if defined(ND_CUDA_SIM) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using L = Layout<kTileN>;
  const auto a = shared<T>(0, L::kStages * kRows * kStep);
  const auto b = shared<T>(L::kStages * L::kBytesA, L::kStages * kTileN * kStep);
  const auto full = shared<uint64_t>(L::kBarriers, L::kStages),
             empty = shared<uint64_t>(L::kBarriers + L::kStages * 8, L::kStages);
  if (threadIdx.x == 0) {
    for (int i = 0; i < L::kStages; i++) {
      mbarrierInit(full + i, 1);
      mbarrierInit(empty + i, kConsumerWarps);
    }
    mbarrierInitFence();
  }
  syncThreads();
  // 40 + 2 · 232 registers are no more than the 3 · 168 that the block starts with.
  if (threadIdx.x < 128) {
    lowerRegisters<40>();
    if (threadIdx.x == 0) produce<kTileN>(p, a, b, full, empty);
  } else {
    raiseRegisters<232>();
    consume<kTileN>(p, a, b, full, empty);
  }
#endif
}

int64_t ceilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }

template <class T, int kTileN>
void run(const Launch& launch_, const HopperParams<T>& p) {
  const unsigned blocks = static_cast<unsigned>(std::min(p.tiles, launch_.multiprocessors));
  launch("matmulHopper", matmulHopperKernel<T, kTileN>,
         {blocks, kThreads, Layout<kTileN>::kBytes, launch_.stream}, p);
}

}  // namespace

HopperTile chooseHopperTile(const MatmulProblem& q, int multiprocessors) {
  const auto aligned = [](const void* data, int64_t stride) {
    return reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride % 8 == 0;
  };
  const bool fits = q.stride == 1 && q.inputH == q.height && q.inputW == q.width && !q.wrapX && !q.wrapY &&
                    aligned(q.x, q.xStride) && aligned(q.weight, q.weightPitch) && q.c1 % 8 == 0 &&
                    q.c % 8 == 0 && (!q.skip || aligned(q.skip, q.skipStride));
  HopperTile best;
  if (!fits) return best;
  int64_t tilesM = 0;
  for (int w = kRows; w >= 1; w /= 2)
    for (int h = kRows / w; h >= 1; h /= 2) {
      const int b = kRows / w / h;
      const int64_t tiles =
          ceilDivide(q.gridW(), w) * ceilDivide(q.gridH(), h) * ceilDivide(q.batch, b) * q.phases();
      if (tilesM == 0 || tiles < tilesM) tilesM = tiles, best.boxW = w, best.boxH = h, best.boxB = b;
    }
  const int64_t rows = q.geglu ? 2 * q.n : q.n;
  const int64_t steps = q.kernelH * q.kernelW * (ceilDivide(q.c1, kStep) + ceilDivide(q.c - q.c1, kStep));
  for (int n : {160, 256}) {
    // 2048 multiply-adds per clock at 0.75 of the peak, and a tile's beginning and end, which nothing
    // overlaps.
    const auto waves = static_cast<double>(ceilDivide(tilesM * ceilDivide(rows, n), multiprocessors));
    const double clocks = waves * (static_cast<double>(steps * kStep * kRows * n) / 2048 / 0.75 + 1500);
    if (best.n == 0 || clocks < best.clocks) best.n = n, best.clocks = clocks;
  }
  return best;
}

template <class T>
void matmulHopper(const Launch& launch_, const MatmulProblem& q, const MatmulParams<T>& params,
                  const HopperTile& tile) {
  HopperParams<T> p{};
  p.common = params;
  p.common.splits = 1;
  p.boxW = tile.boxW, p.boxH = tile.boxH, p.boxB = tile.boxB;
  p.tilesW = static_cast<int>(ceilDivide(q.gridW(), p.boxW)),
  p.tilesH = static_cast<int>(ceilDivide(q.gridH(), p.boxH));
  p.tilesB = static_cast<int>(ceilDivide(q.batch, p.boxB));
  p.tilesN = static_cast<int>(ceilDivide(params.n, tile.n));
  p.tiles = p.tilesN * p.tilesW * p.tilesH * p.tilesB * q.phases();
  p.chunks1 = static_cast<int>(ceilDivide(q.c1, kStep));
  p.chunks = p.chunks1 + static_cast<int>(ceilDivide(q.c - q.c1, kStep));
  const auto image = [&](const void* data, int64_t channels, int64_t stride) {
    const auto pixel = static_cast<uint64_t>(stride) * 2;
    return tensorMap<T>(data, {uint64_t(channels), uint64_t(q.width), uint64_t(q.height), uint64_t(q.batch)},
                        {pixel, pixel * q.width, pixel * q.width * q.height},
                        {kStep, uint32_t(p.boxW), uint32_t(p.boxH), uint32_t(p.boxB)});
  };
  p.x = image(q.x, q.c1, q.xStride);
  p.skip = q.skip ? image(q.skip, q.c - q.c1, q.skipStride) : p.x;
  const auto pitch = static_cast<uint64_t>(q.weightPitch) * 2;
  p.w = tensorMap<T>(q.weight, {uint64_t(params.k), uint64_t(params.n), uint64_t(params.phases), 1},
                     {pitch, pitch * params.n, pitch * params.n * params.phases},
                     {kStep, uint32_t(tile.n), 1, 1});
  if (tile.n == 160) return run<T, 160>(launch_, p);
  run<T, 256>(launch_, p);
}
template void matmulHopper(const Launch&, const MatmulProblem&, const MatmulParams<Half>&, const HopperTile&);
template void matmulHopper(const Launch&, const MatmulProblem&, const MatmulParams<Bfloat>&,
                           const HopperTile&);

}  // namespace nd::cuda
