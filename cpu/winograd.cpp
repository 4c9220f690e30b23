// The loops around Winograd's transforms (kernels/winograd.h) and the matrix micro-kernel (kernels/gemm.h).
//
//   V[36][tiles][C]        a block of tiles: their patches, transformed           all threads, then
//   U[panel][36][K][NR]    the filters of a task's panels, transformed            task (some panels)
//   M[panel][36][tiles][NR] = V U, point by point                                 task
//   y                      = M, transformed back, with the epilogue               task
//
// Nearest-neighbour upsampling and the concatenation of x and skip are a matter of where a patch's pixels are
// read. Upsampling by 2 and a 3×3 convolution could also be four 2×2 convolutions of the small map: 4/9 of
// the multiplications, where these are 1/4.
//
// Filters are transformed in every call and not kept with the model. All of SD1.5's would take 8.7 GB;
// keeping those of its 64² and 32² maps, where a byte gains most, 1 GB, which would save 11 cycles per filter
// against 1.8 cycles per filter and tile: 1.2 % of the time at 64² with guidance (512 tiles), 4.5 % at 32².
// Where there are several blocks of tiles, all filters are made before the first, as long as they take no
// more than WinogradOptions::filterBytes of scratch memory, which all layers share.
#include "cpu/winograd.h"

#include <algorithm>

#include "cpu/ceil-div.h"
#include "cpu/cpu-backend.h"

namespace nd {

namespace {

int64_t align16(int64_t floats) { return ceilDiv(floats, 16) * 16; }

/// A distance between rows that are walked side by side: an odd number of cache lines, since rows a multiple
/// of 4096 bytes apart would share the 8 lines of one set of the L1 cache.
int64_t oddLines(int64_t floats) { return ceilDiv(floats, 16) / 2 * 32 + 16; }

/// Pieces of nearly equal size, none larger than `most`: the size of the largest.
int64_t evenly(int64_t count, int64_t most) { return ceilDiv(count, ceilDiv(count, most)); }

constexpr int64_t kFloat = sizeof(float);
// Panels of a task: V is read once for all of them. 2 and 4 were equally fast, 8 slower as M leaves the L2
// cache.
constexpr int64_t kPanels = 4;
// Tiles whose rows of V stay in the L2 cache while the panels of a task go by.
constexpr int64_t kGroupTiles = 96;

/// Where the tiles are: 4 × 4 outputs each, row by row, image by image.
struct Tiles {
  int64_t across, perImage, count;
  Tiles(int64_t batch, const GemmInput& in)
      : across(ceilDiv(in.outW, 4)), perImage(across * ceilDiv(in.outH, 4)), count(batch * perImage) {}
};

/// How the work is cut, and the distances in the buffers that follow from it. A task is some panels of some
/// tiles of a block.
struct Cut {
  int64_t channels, kc;            // K: all of it, the largest block
  int64_t blocks, tiles;           // blocks of tiles, tiles in the largest
  int64_t parts, partTiles;        // of a block of tiles, where there are fewer panels than threads
  int64_t groups, panels;          // groups of panels, panels in the largest
  bool filtersFirst;               // U is made for all panels before the first block, not in every task
  int64_t vRow, vPoint;            // V: floats from tile to tile and from point to point
  int64_t uPoint, uBlock, uPanel;  // U: from point to point, K block to K block, panel to panel
  int64_t mPoint, mPanel;          // M: from point to point and from panel to panel

  Cut(const WinogradOptions& options, const KernelTable& k, int threads, int64_t tileCount,
      const PackedWeight& w)
      : channels(w.k / 9) {
    kc = evenly(channels, kBlockBytes / (k.nr * kFloat));
    tiles = evenly(tileCount, std::max(options.leastTiles, options.inputBytes / (36 * kFloat * channels)));
    blocks = ceilDiv(tileCount, tiles);
    groups = std::min(w.panels, ceilDiv(ceilDiv(w.panels, kPanels), threads) * threads);
    panels = ceilDiv(w.panels, groups);
    parts = std::min(ceilDiv(tiles, k.mr), ceilDiv(threads, groups));
    partTiles = ceilDiv(tiles, parts);

    vRow = oddLines(channels), vPoint = oddLines(tiles * vRow);
    uPoint = oddLines(kc * k.nr), uBlock = 36 * uPoint, uPanel = ceilDiv(channels, kc) * uBlock;
    mPoint = oddLines(partTiles * k.nr), mPanel = 36 * mPoint;
    filtersFirst = blocks * parts > 1 && w.panels * uPanel * kFloat <= options.filterBytes;
  }
};

/// Pointers to the 36 pixels of a tile's patch in a source; outside the image zeros, or the other side.
void findPixels(const GemmInput& in, const Tiles& tiles, int64_t tile, const float* data, int64_t stride,
                const float* zeros, const float** pixels) {
  const int64_t inImage = tile % tiles.perImage;
  const int64_t top = inImage / tiles.across * 4 - in.padTop, left = inImage % tiles.across * 4 - in.padLeft;
  const float* image = data + tile / tiles.perImage * in.height * in.width * stride;
  const auto find = [](int64_t at, bool wrap, const std::vector<int32_t>& map) -> int64_t {
    const int64_t size = static_cast<int64_t>(map.size());
    if (wrap) at = (at % size + size) % size;
    return at >= 0 && at < size ? map[static_cast<size_t>(at)] : -1;
  };
  int64_t xs[6];
  for (int j = 0; j < 6; j++) xs[j] = find(left + j, in.wrapX, in.mapX);
  for (int i = 0; i < 6; i++) {
    const int64_t y = find(top + i, in.wrapY, in.mapY);
    for (int j = 0; j < 6; j++)
      pixels[6 * i + j] = y < 0 || xs[j] < 0 ? zeros : image + (y * in.width + xs[j]) * stride;
  }
}

/// V of one tile for channels [begin, end) of [x | skip].
void transformInput(const KernelTable& k, const GemmInput& in, const Tiles& tiles, int64_t tile,
                    int64_t begin, int64_t end, const float* zeros, float* v, int64_t vPoint) {
  int64_t first = 0;  // channel of the source
  for (const GemmInput::Source& source : in.source) {
    const int64_t c0 = std::max(begin, first), c1 = std::min(end, first + source.channels);
    if (c0 < c1) {
      const float* pixels[36];
      findPixels(in, tiles, tile, source.data + c0 - first, source.stride, zeros, pixels);
      k.winogradInput({pixels, c1 - c0, v + c0, vPoint});
    }
    first += source.channels;
  }
}

/// U of one panel for channels from k0 on.
void transformFilters(const KernelTable& k, const PackedWeight& w, const Cut& cut, int64_t panel, int64_t k0,
                      float* u) {
  k.winogradFilters({w.element((panel * w.k + k0) * k.nr), w.format, cut.channels * k.nr,
                     std::min(cut.kc, cut.channels - k0), u, cut.uPoint});
}

/// M = V U for tiles [tile, tile + count) of the block and some panels; then done(tile, panel, its M).
/// `filters`: U where it has been made, else null.
template <class Done>
void multiplyTiles(const KernelTable& k, Scratch& scratch, const Cut& cut, const PackedWeight& w,
                   const float* v, const float* filters, int64_t tile, int64_t count, int64_t panel,
                   int64_t panels, const Done& done) {
  const int64_t mFloats = cut.panels * cut.mPanel, uFloats = filters ? 0 : cut.panels * cut.uBlock;
  float* m =
      scratch.floats(mFloats + uFloats + cut.partTiles * static_cast<int64_t>(sizeof(float*)) / kFloat);
  float* own = m + mFloats;
  const float** rows = reinterpret_cast<const float**>(own + uFloats);
  const int64_t groups = ceilDiv(count, kGroupTiles);

  for (int64_t k0 = 0; k0 < cut.channels; k0 += cut.kc) {
    const int32_t length = static_cast<int32_t>(std::min(cut.kc, cut.channels - k0));
    if (!filters)
      for (int64_t p = 0; p < panels; p++) transformFilters(k, w, cut, panel + p, k0, own + p * cut.uBlock);
    const float* u = filters ? filters + panel * cut.uPanel + k0 / cut.kc * cut.uBlock : own;
    const int64_t uPanel = filters ? cut.uPanel : cut.uBlock;
    for (int64_t point = 0; point < 36; point++) {
      for (int64_t t = 0; t < count; t++) rows[t] = v + point * cut.vPoint + (tile + t) * cut.vRow + k0;
      for (int64_t group = 0; group < groups; group++)
        for (int64_t p = 0; p < panels; p++) {
          const int64_t i0 = count * group / groups, i1 = count * (group + 1) / groups;
          k.gemmRows({rows + i0, count, &length, 1, u + p * uPanel + point * cut.uPoint,
                      m + p * cut.mPanel + point * cut.mPoint + i0 * k.nr, i1 - i0, k0 == 0});
        }
    }
  }
  for (int64_t t = 0; t < count; t++)
    for (int64_t p = 0; p < panels; p++) done(tile + t, panel + p, m + p * cut.mPanel + t * k.nr);
}

/// The outputs of one tile and panel.
void transformOutput(const KernelTable& k, const GemmInput& in, const GemmOutput& out, const Tiles& tiles,
                     int64_t tile, int64_t n, int64_t features, const float* m, int64_t mPoint) {
  const int64_t inImage = tile % tiles.perImage, image = tile / tiles.perImage;
  const int64_t y = inImage / tiles.across * 4, x = inImage % tiles.across * 4;
  const int64_t pixel = (image * in.outH + y) * in.outW + x;
  WinogradOutput o{};
  o.m = m, o.mStride = mPoint;
  o.features = static_cast<int>(features);
  o.rows = static_cast<int>(std::min<int64_t>(4, in.outH - y));
  o.columns = static_cast<int>(std::min<int64_t>(4, in.outW - x));
  o.bias = out.bias ? out.bias + n : nullptr;
  o.channels = out.channelAdd ? out.channelAdd + image * out.channelStride + n : nullptr;
  o.residual = out.residual ? out.residual + pixel * out.residualStride + n : nullptr;
  o.residualRow = in.outW * out.residualStride, o.residualPixel = out.residualStride;
  o.y = out.y + pixel * out.stride + n;
  o.yRow = in.outW * out.stride, o.yPixel = out.stride;
  o.act = out.act;
  k.winogradOutput(o);
}

}  // namespace

/// Compares processor cycles as measured with AVX2 (2026-11-23, AMD EPYC Zen 3; winograd.h says how).
bool useWinograd(const WinogradOptions& options, const KernelTable& k, const PackedWeight& w,
                 const GemmInput& in) {
  if (in.rows || in.kernelH != 3 || in.kernelW != 3 || in.stride != 1) return false;
  if (options.use != FewerProducts::WhereFaster) return options.use == FewerProducts::Always;
  constexpr double kDirect = 0.055, kProduct = 0.053;  // per multiplication
  constexpr double kInput = 42, kOutput = 30;          // per channel or feature of a tile
  constexpr double kFilter = 11;                       // per filter
  const double channels = static_cast<double>(w.k) / 9, features = static_cast<double>(w.panels * k.nr);
  const double pixels = static_cast<double>(in.outH * in.outW),
               tiles = static_cast<double>(Tiles(1, in).count);
  const double filters = channels * features;
  const double direct = pixels * 9 * filters * kDirect;
  return tiles * (36 * filters * kProduct + channels * kInput + features * kOutput) + filters * kFilter <
         direct;
}

void winograd(const WinogradOptions& options, const KernelTable& k, ThreadPool& pool,
              std::vector<Scratch>& scratch, Scratch& shared, int64_t batch, const PackedWeight& w,
              const GemmInput& in, const GemmOutput& out) {
  const Tiles tiles(batch, in);
  if (tiles.count <= 0) return;
  const Cut cut(options, k, pool.threads(), tiles.count, w);
  const int64_t zeroFloats = align16(cut.channels),
                filterFloats = cut.filtersFirst ? w.panels * cut.uPanel : 0;
  float* v = shared.floats(36 * cut.vPoint + zeroFloats + filterFloats);
  float *zeros = v + 36 * cut.vPoint, *filters = zeros + zeroFloats;
  std::fill(zeros, filters, 0.0f);
  if (cut.filtersFirst)
    pool.parallelFor(w.panels, [&](int64_t panel, int) {
      for (int64_t k0 = 0; k0 < cut.channels; k0 += cut.kc)
        transformFilters(k, w, cut, panel, k0, filters + panel * cut.uPanel + k0 / cut.kc * cut.uBlock);
    });

  constexpr int64_t kChunk = 256;  // channels of an input task
  const int64_t chunks = ceilDiv(cut.channels, kChunk);
  for (int64_t b = 0; b < cut.blocks; b++) {
    const int64_t first = tiles.count * b / cut.blocks, count = tiles.count * (b + 1) / cut.blocks - first;
    pool.parallelFor(count * chunks, [&](int64_t task, int) {
      const int64_t tile = task / chunks, begin = task % chunks * kChunk;
      transformInput(k, in, tiles, first + tile, begin, std::min(begin + kChunk, cut.channels), zeros,
                     v + tile * cut.vRow, cut.vPoint);
    });
    pool.parallelFor(cut.groups * cut.parts, [&](int64_t task, int thread) {
      const int64_t part = task % cut.parts, group = task / cut.parts;
      const int64_t t0 = count * part / cut.parts, t1 = count * (part + 1) / cut.parts;
      const int64_t p0 = w.panels * group / cut.groups, p1 = w.panels * (group + 1) / cut.groups;
      multiplyTiles(k, scratch[thread], cut, w, v, cut.filtersFirst ? filters : nullptr, t0, t1 - t0, p0,
                    p1 - p0, [&](int64_t tile, int64_t panel, const float* m) {
                      transformOutput(k, in, out, tiles, first + tile, panel * k.nr,
                                      std::min<int64_t>(k.nr, w.n - panel * k.nr), m, cut.mPoint);
                    });
    });
  }
}

}  // namespace nd
