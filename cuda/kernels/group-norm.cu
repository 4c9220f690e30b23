#include "cuda/kernels/group-norm.h"

#include <algorithm>

#include "cuda/kernels/activation.h"
#include "cuda/kernels/reduce.h"
#include "cuda/kernels/vector.h"

namespace nd::cuda {

namespace {

constexpr int64_t kResidentBytes = 96 << 10;

template <class T>
struct Params {
  Rows<const T> x, skip;
  Rows<T> y;
  Rows<const T> modulation;  // [B, 2C] or null
  Global<const float> gamma, beta;
  Global<float> moments;  // Ranges: [B, ranges, groups, 2], mean and squared deviations
  uint32_t c1, channels, groups, size, pixels, ranges, pixelsPerRange;
  float epsilon;
  Activation activation;

  ND_DEVICE Global<const T> input(uint32_t row, uint32_t channel) const {
    return channel < c1 ? x.at(row, channel) : skip.at(row, channel - c1);
  }
  /// What a channel of image b is scaled by and what is added to it, the modulation included.
  ND_DEVICE Float2 affine(uint32_t b, uint32_t channel) const {
    const float g = gamma[channel], shift = beta[channel];
    if (!modulation.data) return {g, shift};
    const float by = 1 + toFloat(static_cast<T>(modulation.at(b, channel)[0]));
    return {g * by, shift * by + toFloat(static_cast<T>(modulation.at(b, channels + channel)[0]))};
  }
};

ND_DEVICE float finish(float value, float mean, float scale, Float2 affine, Activation activation) {
  return activate((value - mean) * scale * affine.x + affine.y, activation);
}

/// Walks over the group's elements in steps of the block, N (1 or 2) channels at a time, without divisions.
struct Walk {
  uint32_t pixel, within, pixelStep, withinStep, perPixel;
  ND_DEVICE Walk(uint32_t perPixel) : perPixel(perPixel) {
    pixel = threadIdx.x / perPixel, within = threadIdx.x % perPixel;
    pixelStep = blockDim.x / perPixel, withinStep = blockDim.x % perPixel;
  }
  ND_DEVICE void next() {
    pixel += pixelStep, within += withinStep;
    if (within >= perPixel) within -= perPixel, pixel++;
  }
};

/// Block (g, b): group g of image b, N channels (one word where N is 2) per access.
template <class T, int N>
__global__ void residentKernel(Params<T> p) {
  const Shared<float> scratch = shared<float>(0, 32);
  const uint32_t elements = p.pixels * p.size;
  const Shared<T> kept = shared<T>(128, elements);
  const uint32_t channel0 = blockIdx.x * p.size, row0 = blockIdx.y * p.pixels;

  float sum = 0;
  for (Walk w(p.size / N); w.pixel < p.pixels; w.next()) {
    const Global<const T> from = p.input(row0 + w.pixel, channel0 + w.within * N);
    const uint32_t at = w.pixel * p.size + w.within * N;
    if constexpr (N == 2) {
      const uint32_t word = load4(from);
      const Float2 v = unpack2<T>(word);
      sum += v.x + v.y;
      store4(kept + at, word);
    } else {
      const T v = from[0];
      sum += toFloat(v);
      kept[at] = v;
    }
  }
  // Every thread reads back only what it wrote itself; the barriers are blockSum's.
  const float mean = blockSum(sum, scratch) / static_cast<float>(elements);
  float squares = 0;
  for (Walk w(p.size / N); w.pixel < p.pixels; w.next()) {
    const uint32_t at = w.pixel * p.size + w.within * N;
    if constexpr (N == 2) {
      const Float2 v = unpack2<T>(load4(kept + at));
      squares += (v.x - mean) * (v.x - mean) + (v.y - mean) * (v.y - mean);
    } else {
      const float d = toFloat(static_cast<T>(kept[at])) - mean;
      squares += d * d;
    }
  }
  const float scale = rsqrtf(blockSum(squares, scratch) / static_cast<float>(elements) + p.epsilon);
  for (Walk w(p.size / N); w.pixel < p.pixels; w.next()) {
    const uint32_t at = w.pixel * p.size + w.within * N, channel = channel0 + w.within * N;
    const Global<T> to = p.y.at(row0 + w.pixel, channel);
    if constexpr (N == 2) {
      const Float2 v = unpack2<T>(load4(kept + at));
      store4(to, pack2<T>(finish(v.x, mean, scale, p.affine(blockIdx.y, channel), p.activation),
                          finish(v.y, mean, scale, p.affine(blockIdx.y, channel + 1), p.activation)));
    } else {
      to[0] = fromFloat<T>(finish(toFloat(static_cast<T>(kept[at])), mean, scale,
                                  p.affine(blockIdx.y, channel), p.activation));
    }
  }
}

/// How a block's threads cover rows of `vectors` accesses: `lanes` rows at a time where a row is short.
struct Cover {
  uint32_t vectors, lanes, lane, first, step;
  ND_DEVICE explicit Cover(uint32_t vectors) : vectors(vectors) {
    lanes = blockDim.x / vectors > 0 ? blockDim.x / vectors : 1;
    lane = threadIdx.x / vectors < lanes ? threadIdx.x / vectors : lanes;
    first = lanes > 1 ? threadIdx.x % vectors : threadIdx.x;
    step = lanes > 1 ? vectors : blockDim.x;
    if (lanes == 1) lane = 0;
    if (lanes > 1 && lane == lanes) first = vectors;  // threads that are left over
  }
};

/// Block (range, b): the moments of every group over the range's pixels of image b.
template <class T, int N>
__global__ void rangeKernel(Params<T> p) {
  const Cover cover(p.channels / N);
  const Shared<float> means = shared<float>(0, cover.lanes * p.channels);
  const Shared<float> squares = shared<float>(cover.lanes * p.channels * 4, cover.lanes * p.channels);
  const uint32_t begin = blockIdx.x * p.pixelsPerRange, row0 = blockIdx.y * p.pixels;
  const uint32_t end = begin + p.pixelsPerRange < p.pixels ? begin + p.pixelsPerRange : p.pixels;

  for (uint32_t vector = cover.first; vector < cover.vectors; vector += cover.step) {
    // Sums of differences to the first value: it is one of the values, so little cancels.
    float pivot[N], sum[N], square[N];
    const uint32_t channel = vector * N;
    float count = 0;
#pragma unroll
    for (int i = 0; i < N; i++) pivot[i] = sum[i] = square[i] = 0;
    for (uint32_t pixel = begin + cover.lane; pixel < end; pixel += cover.lanes) {
      float v[N];
      loadFloats<N, T>(v, p.input(row0 + pixel, channel));
#pragma unroll
      for (int i = 0; i < N; i++) {
        if (count == 0) pivot[i] = v[i];
        const float d = v[i] - pivot[i];
        sum[i] += d;
        square[i] += d * d;
      }
      count += 1;
    }
#pragma unroll
    for (int i = 0; i < N; i++) {
      const float shift = count > 0 ? sum[i] / count : 0;
      means[cover.lane * p.channels + channel + i] = pivot[i] + shift;
      squares[cover.lane * p.channels + channel + i] = fmaxf(square[i] - sum[i] * shift, 0);
    }
  }
  syncThreads();

  const uint32_t warps = blockDim.x / 32, lane = static_cast<uint32_t>(laneId());
  for (uint32_t group = threadIdx.x / 32; group < p.groups; group += warps) {
    Moments m{0, 0, 0};
    for (uint32_t entry = lane; entry < cover.lanes * p.size; entry += 32) {
      const uint32_t row = entry / p.size, at = row * p.channels + group * p.size + entry % p.size;
      const uint32_t pixels = end - begin;
      const uint32_t count = row < pixels ? (pixels - row + cover.lanes - 1) / cover.lanes : 0;
      m = merge(m, {static_cast<float>(count), means[at], squares[at]});
    }
    m = warpMerge(m);
    if (lane == 0) {
      const Global<float> to = p.moments + (((blockIdx.y * p.ranges + blockIdx.x) * p.groups + group) * 2);
      to[0] = m.mean;
      to[1] = m.squares;
    }
  }
}

/// Block (range, b): merges image b's ranges and normalises the pixels of its own.
template <class T, int N>
__global__ void normalizeKernel(Params<T> p) {
  const Shared<float> means = shared<float>(0, p.groups), scales = shared<float>(p.groups * 4, p.groups);
  const uint32_t warps = blockDim.x / 32, lane = static_cast<uint32_t>(laneId());
  for (uint32_t group = threadIdx.x / 32; group < p.groups; group += warps) {
    Moments m{0, 0, 0};
    for (uint32_t range = lane; range < p.ranges; range += 32) {
      const uint32_t begin = range * p.pixelsPerRange;
      const uint32_t count =
          (p.pixels - begin < p.pixelsPerRange ? p.pixels - begin : p.pixelsPerRange) * p.size;
      const Global<float> from = p.moments + (((blockIdx.y * p.ranges + range) * p.groups + group) * 2);
      m = merge(m, {static_cast<float>(count), from[0], from[1]});
    }
    m = warpMerge(m);
    if (lane == 0) {
      means[group] = m.mean;
      scales[group] = rsqrtf(m.squares / m.count + p.epsilon);
    }
  }
  syncThreads();

  const Cover cover(p.channels / N);
  const uint32_t begin = blockIdx.x * p.pixelsPerRange, row0 = blockIdx.y * p.pixels;
  const uint32_t end = begin + p.pixelsPerRange < p.pixels ? begin + p.pixelsPerRange : p.pixels;
  for (uint32_t vector = cover.first; vector < cover.vectors; vector += cover.step) {
    const uint32_t channel = vector * N;
    float mean[N], scale[N];
    Float2 affine[N];
#pragma unroll
    for (int i = 0; i < N; i++) {
      affine[i] = p.affine(blockIdx.y, channel + static_cast<uint32_t>(i));
      const uint32_t group = (channel + static_cast<uint32_t>(i)) / p.size;
      mean[i] = means[group];
      scale[i] = scales[group];
    }
    for (uint32_t pixel = begin + cover.lane; pixel < end; pixel += cover.lanes) {
      float v[N];
      loadFloats<N, T>(v, p.input(row0 + pixel, channel));
#pragma unroll
      for (int i = 0; i < N; i++) v[i] = finish(v[i], mean[i], scale[i], affine[i], p.activation);
      storeFloats<N, T>(p.y.at(row0 + pixel, channel), v);
    }
  }
}

template <class T>
void resident(const Launch& launchOn, const GroupNormArgs& a, const Params<T>& params) {
  const int64_t elements = int64_t{params.pixels} * params.size, batch = a.x.shape[0];
  const auto bytes = static_cast<uint32_t>(128 + elements * 2);
  const auto even = [](const Tensor& t) {
    return t.shape.last() % 2 == 0 && t.stride % 2 == 0 && reinterpret_cast<uintptr_t>(t.data) % 4 == 0;
  };
  const bool pairs = params.size % 2 == 0 && even(a.x) && even(a.y) && (!a.skip || even(*a.skip));
  const int64_t accesses = elements / (pairs ? 2 : 1);
  const unsigned threads = accesses >= 8192 ? 512 : accesses >= 1024 ? 256 : 128;
  const LaunchShape shape{dim3(params.groups, static_cast<unsigned>(batch)), dim3(threads), bytes,
                          launchOn.stream};
  if (pairs)
    launch("groupNorm", residentKernel<T, 2>, shape, params);
  else
    launch("groupNorm", residentKernel<T, 1>, shape, params);
}

template <class T>
void ranges(const Launch& launchOn, const GroupNormArgs& a, Params<T> params) {
  const int64_t batch = a.x.shape[0], pixels = params.pixels;
  const bool isWide = wide({a.x, a.y}) && (!a.skip || wide(*a.skip));
  // As many blocks as keep every SM busy twice, each with at least 8 rows; what they leave behind must fit.
  const int64_t room = static_cast<int64_t>(launchOn.workspaceBytes) / (batch * params.groups * 8);
  expect(room >= 1, "groupNorm: a workspace for the moments");
  const int64_t most =
      std::min({(pixels + 7) / 8, std::max<int64_t>(1, 2 * launchOn.multiprocessors / batch), room});
  params.pixelsPerRange = static_cast<uint32_t>((pixels + most - 1) / most);
  params.ranges = (params.pixels + params.pixelsPerRange - 1) / params.pixelsPerRange;
  params.moments = Global<float>(static_cast<float*>(launchOn.workspace));
  const dim3 grid(params.ranges, static_cast<unsigned>(batch));
  withWidth(isWide, [&](auto width) {
    constexpr int N = decltype(width)::value;
    const uint32_t vectors = params.channels / N;
    const unsigned threads = vectors <= 256 ? 256 : std::min(1024u, (vectors + 31) / 32 * 32);
    const uint32_t lanes = std::max(1u, threads / vectors);
    launch("groupNorm ranges", rangeKernel<T, N>,
           {grid, dim3(threads), lanes * params.channels * 8, launchOn.stream}, params);
    launch("groupNorm normalize", normalizeKernel<T, N>,
           {grid, dim3(threads), params.groups * 8, launchOn.stream}, params);
  });
}

}  // namespace

GroupNormScheme chooseGroupNorm(int64_t pixels, int64_t channelsPerGroup) {
  return 2 * pixels * channelsPerGroup <= kResidentBytes ? GroupNormScheme::Resident
                                                         : GroupNormScheme::Ranges;
}

const GroupNormScheme*& forcedGroupNorm() {
  static const GroupNormScheme* forced = nullptr;
  return forced;
}

void groupNorm(const Launch& launchOn, DType type, const GroupNormArgs& a, const float* gamma,
               const float* beta) {
  const int64_t c1 = a.x.shape.last(), channels = c1 + (a.skip ? a.skip->shape.last() : 0);
  const int64_t batch = a.x.shape[0], rows = a.x.shape.rows(), pixels = rows / batch;
  expect(channels % a.groups == 0, "groupNorm: channels divisible by groups");
  expect(rows < int64_t{1} << 31, "cuda: a tensor of fewer than 2^31 rows");
  withType(type, [&](auto t) {
    using T = decltype(t);
    Params<T> params{};
    params.x = rowsOf<const T>(a.x);
    if (a.skip) params.skip = rowsOf<const T>(*a.skip);
    params.y = rowsOf<T>(a.y);
    params.gamma = Global<const float>(gamma), params.beta = Global<const float>(beta);
    params.c1 = static_cast<uint32_t>(c1), params.channels = static_cast<uint32_t>(channels);
    params.groups = static_cast<uint32_t>(a.groups), params.size = static_cast<uint32_t>(channels / a.groups);
    params.pixels = static_cast<uint32_t>(pixels);
    params.epsilon = a.epsilon, params.activation = a.activation;
    if (a.modulation) params.modulation = rowsOf<const T>(*a.modulation);
    const GroupNormScheme scheme =
        forcedGroupNorm() ? *forcedGroupNorm() : chooseGroupNorm(pixels, channels / a.groups);
    if (scheme == GroupNormScheme::Resident)
      resident(launchOn, a, params);
    else
      ranges(launchOn, a, params);
  });
}

}  // namespace nd::cuda
