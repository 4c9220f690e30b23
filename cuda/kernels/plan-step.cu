#include "cuda/kernels/plan-step.h"

#include <algorithm>

namespace nd::cuda {

namespace {

constexpr int kX = static_cast<int>(Basis::x), kM = static_cast<int>(Basis::m),
              kH = static_cast<int>(Basis::h), kN = static_cast<int>(Basis::n),
              kN0 = static_cast<int>(Basis::n0), kOrig = static_cast<int>(Basis::orig);
constexpr int kMostBranches = 8;
constexpr unsigned kImageThreads = 512, kStepThreads = 128;

struct Params {
  Global<const float> output;  // [branches · B, outputCount / HW, H, W]
  Global<float> state[kBasisCount];
  Global<const float> mask;
  Global<float> predicted;
  Global<const PlanItem> items;
  Global<double> image;  // [B, 2]: what guidanceRescale multiplies m by, what thresholding divides p by
  double a, b, c, d, guidance[kMostBranches], rescale, clip, ratio, maxValue, minLogVariance, maxLogVariance,
      keep, renoise;
  int32_t batch, count, outputCount, pixels, branches, itemCount;
  bool hasRescale, hasClip, hasThreshold, hasRange, hasBlend;
};

ND_DEVICE Global<const float> outputOf(const Params& p, int branch, int image) {
  return p.output + static_cast<int64_t>(branch * p.batch + image) * p.outputCount;
}

/// The model's output after guidance, before the rescale.
ND_DEVICE double guided(const Params& p, int image, int i) {
  const double first = static_cast<double>(outputOf(p, 0, image)[i]);
  double m = first;
#pragma unroll
  for (int branch = 1; branch < kMostBranches; branch++)
    if (branch < p.branches)
      m += p.guidance[branch - 1] * (static_cast<double>(outputOf(p, branch, image)[i]) - first);
  return m;
}

ND_DEVICE double predictedBefore(const Params& p, int image, int i, double rescale) {
  const double x = static_cast<double>(p.state[kX][static_cast<int64_t>(image) * p.count + i]);
  return p.a * x + p.b * rescale * guided(p, image, i);
}

/// The sum over the block, to every thread.
ND_DEVICE double blockSum(double value, Shared<double> scratch) {
  scratch[threadIdx.x] = value;
  syncThreads();
  for (uint32_t half = blockDim.x / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) scratch[threadIdx.x] = scratch[threadIdx.x] + scratch[threadIdx.x + half];
    syncThreads();
  }
  const double sum = scratch[0];
  syncThreads();
  return sum;
}

/// Unbiased standard deviations of the text branch and of the guided output: the factor on m.
ND_DEVICE double rescaleOf(const Params& p, int image, Shared<double> scratch) {
  double text = 0, all = 0;
  for (int i = static_cast<int>(threadIdx.x); i < p.count; i += static_cast<int>(blockDim.x)) {
    text += static_cast<double>(outputOf(p, p.branches - 1, image)[i]);
    all += guided(p, image, i);
  }
  const double textMean = blockSum(text, scratch) / p.count, allMean = blockSum(all, scratch) / p.count;
  text = all = 0;
  for (int i = static_cast<int>(threadIdx.x); i < p.count; i += static_cast<int>(blockDim.x)) {
    const double t = static_cast<double>(outputOf(p, p.branches - 1, image)[i]) - textMean,
                 g = guided(p, image, i) - allMean;
    text += t * t;
    all += g * g;
  }
  const double ratio =
      sqrt(blockSum(text, scratch) / (p.count - 1)) / sqrt(blockSum(all, scratch) / (p.count - 1));
  return p.rescale * ratio + (1 - p.rescale);
}

ND_DEVICE uint64_t magnitudeBits(double value) { return doubleToBits(value) & 0x7fffffffffffffffull; }

/// Bits of the rank-th smallest |p| (doubles that are not negative sort as their bits do), one byte after the
/// other, and how many values are smaller or the same.
struct Selected {
  uint64_t bits;
  uint32_t notAbove;
};
ND_DEVICE Selected select(const Params& p, int image, double rescale, uint32_t rank,
                          Shared<uint32_t> histogram, Shared<uint32_t> found) {
  uint64_t prefix = 0;
  uint32_t below = 0, same = 0;
#pragma unroll 1
  for (int shift = 56; shift >= 0; shift -= 8) {
    for (uint32_t i = threadIdx.x; i < 256; i += blockDim.x) histogram[i] = 0u;
    syncThreads();
    for (int i = static_cast<int>(threadIdx.x); i < p.count; i += static_cast<int>(blockDim.x)) {
      const uint64_t bits = magnitudeBits(predictedBefore(p, image, i, rescale));
      if (shift == 56 || bits >> (shift + 8) == prefix)
        atomicAdd(histogram + static_cast<int64_t>(bits >> shift & 255), 1u);
    }
    syncThreads();
    if (threadIdx.x == 0) {
      uint32_t bin = 0, before = 0;
      while (before + histogram[bin] <= rank - below) before += histogram[bin++];
      found[0] = bin, found[1] = before, found[2] = static_cast<uint32_t>(histogram[bin]);
    }
    syncThreads();
    prefix = prefix << 8 | static_cast<uint32_t>(found[0]);
    below += found[1];
    same = found[2];
  }
  return {prefix, below + same};
}

/// Whether a value is NaN, and the smallest |p| above `bits`; both to every thread.
ND_DEVICE double smallestAbove(const Params& p, int image, double rescale, uint64_t bits,
                               Shared<double> scratch, bool& invalid) {
  double smallest = bitsToDouble(0x7ff0000000000000ull);
  bool nan = false;
  for (int i = static_cast<int>(threadIdx.x); i < p.count; i += static_cast<int>(blockDim.x)) {
    const double value = bitsToDouble(magnitudeBits(predictedBefore(p, image, i, rescale)));
    if (value != value) nan = true;
    if (value > bitsToDouble(bits) && value < smallest) smallest = value;
  }
  invalid = blockSum(nan ? 1.0 : 0.0, scratch) > 0;
  scratch[threadIdx.x] = smallest;
  syncThreads();
  for (uint32_t half = blockDim.x / 2; half > 0; half /= 2) {
    if (threadIdx.x < half && scratch[threadIdx.x + half] < scratch[threadIdx.x])
      scratch[threadIdx.x] = static_cast<double>(scratch[threadIdx.x + half]);
    syncThreads();
  }
  return scratch[0];
}

/// torch.quantile's linear interpolation at ratio · (count − 1), kept between 1 and maxValue; NaN where a
/// value is.
ND_DEVICE double thresholdOf(const Params& p, int image, double rescale, Shared<double> scratch,
                             Shared<uint32_t> histogram, Shared<uint32_t> found) {
  const double position = p.ratio * (p.count - 1);
  const auto rank = static_cast<uint32_t>(position);
  const Selected low = select(p, image, rescale, rank, histogram, found);
  bool invalid = false;
  const double above = smallestAbove(p, image, rescale, low.bits, scratch, invalid);
  if (invalid) return bitsToDouble(0x7ff8000000000000ull);
  const double value = bitsToDouble(low.bits), fraction = position - rank;
  const double next = rank + 1 < low.notAbove ? value : above;
  const double s =
      fraction == 0 || rank + 1 == static_cast<uint32_t>(p.count) ? value : value + fraction * (next - value);
  return fmin(fmax(s, 1.0), p.maxValue);
}

/// Block b: what image b's elements need to know of the whole image.
__global__ void planImageKernel(Params p) {
  const int image = static_cast<int>(blockIdx.x);
  const Shared<double> scratch = shared<double>(0, blockDim.x);
  const Shared<uint32_t> histogram = shared<uint32_t>(blockDim.x * 8, 256),
                         found = shared<uint32_t>(blockDim.x * 8 + 1024, 4);
  const double rescale = p.hasRescale ? rescaleOf(p, image, scratch) : 1;
  const double threshold = p.hasThreshold ? thresholdOf(p, image, rescale, scratch, histogram, found) : 1;
  if (threadIdx.x == 0) {
    p.image[2 * image] = rescale;
    p.image[2 * image + 1] = threshold;
  }
}

ND_DEVICE double clampTo(double value, double limit) {  // as std::clamp: NaN passes
  return value < -limit ? -limit : value > limit ? limit : value;
}

/// Thread (i, b): element i of image b.
__global__ void planStepKernel(Params p) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x), image = static_cast<int>(blockIdx.y);
  if (i >= p.count) return;
  const int64_t at = static_cast<int64_t>(image) * p.count + i;
  const double rescale = p.hasRescale ? p.image[2 * image] : 1;
  const double x = static_cast<double>(p.state[kX][at]), m = rescale * guided(p, image, i);
  double predicted = p.a * x + p.b * m;
  if (p.hasThreshold) {
    const double s = p.image[2 * image + 1];
    predicted = clampTo(predicted, s) / s;
  } else if (p.hasClip) {
    predicted = clampTo(predicted, p.clip);
  }
  p.predicted[at] = static_cast<float>(predicted);
  const double h = p.c * x + p.d * predicted;

  double noise = 1;
  if (p.hasRange) {
    const double v = (static_cast<double>(outputOf(p, p.branches - 1, image)[p.count + i]) + 1) / 2;
    noise = exp(0.5 * (v * p.maxLogVariance + (1 - v) * p.minLogVariance));
  }
  double sum = 0;
  for (int item = 0; item < p.itemCount; item++) {
    const PlanItem it = p.items[item];
    if (it.basis == kM)
      sum += it.coefficient * m;
    else if (it.basis == kH)
      sum += it.coefficient * h;
    else if (it.basis >= 0)
      sum += it.coefficient * ((it.basis == kN ? noise : 1) * static_cast<double>(p.state[it.basis][at]));
    if (it.to >= 0) {
      p.state[it.to][at] = static_cast<float>(sum);
      sum = 0;
    }
  }
  if (p.state[kM]) p.state[kM][at] = static_cast<float>(m);
  if (p.state[kH]) p.state[kH][at] = static_cast<float>(h);
  if (p.hasBlend) {
    const double weight = static_cast<double>(p.mask[static_cast<int64_t>(image) * p.pixels + i % p.pixels]);
    const double kept =
        p.keep * static_cast<double>(p.state[kOrig][at]) + p.renoise * static_cast<double>(p.state[kN0][at]);
    p.state[kX][at] = static_cast<float>(weight * static_cast<double>(p.state[kX][at]) + (1 - weight) * kept);
  }
}

}  // namespace

std::vector<PlanItem> planItems(const PlanRow& row) {
  std::vector<PlanItem> items;
  for (const PlanWrite& write : row.writes) {
    const size_t first = items.size();
    for (const PlanTerm& term : write.terms)
      if (term.coefficient != 0) items.push_back({term.coefficient, static_cast<int32_t>(term.basis), -1});
    if (items.size() == first) items.push_back({0, -1, -1});
    items.back().to = static_cast<int32_t>(write.to);
  }
  return items;
}

void planStep(const Launch& launchOn, const PlanStepArgs& args, const PlanItem* items, int itemCount) {
  const PlanRow& row = *args.row;
  const int64_t batch = args.p.shape[0], count = args.p.shape.count() / batch;
  if (args.branches > kMostBranches)
    throw Error(ErrorCode::Unsupported, format("Expected at most %d guidance branches but received %d",
                                               kMostBranches, args.branches));
  expect(count < int64_t{1} << 30, "planStep: an image of fewer than 2^30 elements");
  Params p{};
  p.output = Global<const float>(args.modelOutput.f32());
  for (int i = 0; i < kBasisCount; i++) p.state[i] = Global<float>(args.state[i].f32());
  if (args.mask && row.blend) p.mask = Global<const float>(args.mask->f32());
  p.predicted = Global<float>(args.p.f32());
  p.items = Global<const PlanItem>(items), p.itemCount = itemCount;
  p.image = Global<double>(static_cast<double*>(launchOn.workspace));
  p.a = row.a, p.b = row.b, p.c = row.c, p.d = row.d;
  for (int i = 0; i + 1 < args.branches; i++) p.guidance[i] = row.guidance[static_cast<size_t>(i)];
  p.hasRescale = args.guidanceRescale != 0 && args.branches > 1, p.rescale = args.guidanceRescale;
  p.hasThreshold = row.threshold.has_value();
  if (row.threshold) p.ratio = row.threshold->ratio, p.maxValue = row.threshold->maxValue;
  p.hasClip = row.clip.has_value(), p.clip = row.clip.value_or(0);
  p.hasRange = row.learnedRange.has_value();
  if (row.learnedRange)
    p.minLogVariance = row.learnedRange->first, p.maxLogVariance = row.learnedRange->second;
  p.hasBlend = args.mask && row.blend;
  if (p.hasBlend) p.keep = row.blend->first, p.renoise = row.blend->second;
  p.batch = static_cast<int32_t>(batch), p.count = static_cast<int32_t>(count), p.branches = args.branches;
  p.outputCount = static_cast<int32_t>(args.modelOutput.shape.count() / (args.branches * batch));
  p.pixels = static_cast<int32_t>(args.p.shape[2] * args.p.shape[3]);

  if (p.hasRescale || p.hasThreshold)
    launch("planStep image", planImageKernel,
           {dim3(static_cast<unsigned>(batch)), dim3(kImageThreads), kImageThreads * 8 + 1024 + 16,
            launchOn.stream},
           p);
  launch(
      "planStep", planStepKernel,
      {dim3(static_cast<unsigned>((count + kStepThreads - 1) / kStepThreads), static_cast<unsigned>(batch)),
       dim3(kStepThreads), 0, launchOn.stream},
      p);
}

}  // namespace nd::cuda
