// What a matrix product reads, and in which order: K as runs and blocks, and where each row of A lies.
#pragma once

#include <algorithm>
#include <vector>

#include "cpu/ceil-div.h"
#include "cpu/gemm.h"

namespace nd {

struct Run {
  int ky, kx, source;
  int64_t channel;
  int32_t length;
};
struct KBlock {
  int first, runs;  // of the run list
  int64_t k, length;
};

/// K in order, as runs of at most kc, gathered into blocks of at most kc. Long runs are cut evenly, so that
/// the last block is no stump, and between elements that a dot product takes `together`.
struct KPlan {
  std::vector<Run> runs;
  std::vector<int32_t> lengths;  // of the runs
  std::vector<KBlock> blocks;
  int mostRuns = 0;
  int32_t longestRun = 0;

  KPlan(const GemmInput& in, int64_t kc, int64_t together) {
    const int64_t most = ceilDiv(kc, together);
    for (int ky = 0; ky < in.kernelH; ky++)
      for (int kx = 0; kx < in.kernelW; kx++)
        for (int s = 0; s < 2; s++) {
          const int64_t channels = in.source[s].channels;
          const int64_t groups = ceilDiv(channels, together), pieces = ceilDiv(groups, most);
          for (int64_t i = 0; i < pieces; i++) {
            const int64_t c0 = groups * i / pieces * together;
            const int64_t c1 = std::min(channels, groups * (i + 1) / pieces * together);
            runs.push_back({ky, kx, s, c0, static_cast<int32_t>(c1 - c0)});
          }
        }
    int64_t k = 0;
    for (size_t i = 0; i < runs.size(); i++) {
      if (blocks.empty() || blocks.back().length + runs[i].length > kc)
        blocks.push_back({static_cast<int>(i), 0, k, 0});
      blocks.back().runs++;
      blocks.back().length += runs[i].length;
      k += runs[i].length;
      lengths.push_back(runs[i].length);
      mostRuns = std::max(mostRuns, blocks.back().runs);
      longestRun = std::max(longestRun, runs[i].length);
    }
  }
};

/// Top left corner of output pixel m's kernel.
struct Corner {
  int32_t y, x;
  int64_t image;  // its first pixel
};

inline void findCorners(const GemmInput& in, int64_t m0, int64_t count, Corner* corners) {
  const int64_t perImage = in.outH * in.outW;
  int64_t image = m0 / perImage, oy = m0 % perImage / in.outW, ox = m0 % in.outW;
  for (int64_t i = 0; i < count; i++) {
    corners[i] = {static_cast<int32_t>(oy * in.stride - in.padTop),
                  static_cast<int32_t>(ox * in.stride - in.padLeft), image * in.height * in.width};
    if (++ox == in.outW) {
      ox = 0;
      if (++oy == in.outH) oy = 0, image++;
    }
  }
}

/// A coordinate beyond [0, size) from the other side.
inline uint64_t wrapped(uint64_t coordinate, uint64_t size) {
  const int64_t rest = static_cast<int64_t>(coordinate) % static_cast<int64_t>(size);
  return rest < 0 ? rest + size : rest;
}

/// A source's pixels as the micro-kernel reads them.
template <class T>
struct Pixels {
  const T* data = nullptr;
  int64_t stride = 0;
};

/// Where `run` begins in each of the rows; outside the image it reads zeros, or the other side. A call that
/// is not inlined costs convolutions of few channels a sixth of their time (conv_in, measured 2026-11-23).
template <class T>
[[gnu::always_inline]] inline void findRows(const GemmInput& in, const Pixels<T>& pixels, const Run& run,
                                            int64_t m0, int64_t count, const Corner* corners, const T* zeros,
                                            const T** rows) {
  const T* data = pixels.data + run.channel;
  if (in.rows) {
    for (int64_t i = 0; i < count; i++) rows[i] = data + (m0 + i) * pixels.stride;
    return;
  }
  const uint64_t height = in.mapY.size(), width = in.mapX.size();
  for (int64_t i = 0; i < count; i++) {
    // A negative coordinate is a huge unsigned one.
    uint64_t y = static_cast<int64_t>(corners[i].y) + run.ky, x = static_cast<int64_t>(corners[i].x) + run.kx;
    if (in.wrapY) y = wrapped(y, height);
    if (in.wrapX) x = wrapped(x, width);
    const bool inside = y < height && x < width;
    rows[i] = inside ? data + (corners[i].image + in.mapY[y] * in.width + in.mapX[x]) * pixels.stride : zeros;
  }
}

}  // namespace nd
