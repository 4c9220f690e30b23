// Drivers of group and layer normalisation. Statistics of a group norm are taken by chunks of rows whose size
// depends on the shape alone, and joined in double in the order of the rows: the result does not depend on
// the number of threads.
#include <algorithm>
#include <cmath>

#include "cpu/ceil-div.h"
#include "cpu/cpu-backend.h"

namespace nd {
namespace {

/// Count, mean and Σ (x − mean)² of a group within one chunk of rows.
struct Moments {
  double mean, squares;
};

/// A source of channels: x or skip.
struct Source {
  const float* data;
  int64_t stride, channels;
};

/// Joins the column sums of one chunk (channels of all sources side by side) to the moments of its groups.
void joinColumns(const float* shift, const float* sum, const float* squares, int64_t rows, int64_t groupSize,
                 int64_t groups, Moments* moments) {
  const double inverse = 1.0 / static_cast<double>(rows);
  for (int64_t g = 0; g < groups; g++) {
    const int64_t begin = g * groupSize, end = begin + groupSize;
    double mean = 0, within = 0, between = 0;
    for (int64_t c = begin; c < end; c++) mean += shift[c] + sum[c] * inverse;
    mean /= static_cast<double>(groupSize);
    for (int64_t c = begin; c < end; c++) {
      const double offset = sum[c] * inverse, distance = shift[c] - mean + offset;
      within += squares[c] - offset * sum[c];
      between += distance * distance;
    }
    moments[g] = {mean, std::max(within, 0.0) + between * static_cast<double>(rows)};
  }
}

}  // namespace

void CpuBackend::groupNorm(const GroupNormArgs& a) {
  const int64_t c1 = a.x.shape.last(), c2 = a.skip ? a.skip->shape.last() : 0, channels = c1 + c2;
  const int64_t batch = a.x.shape[0], pixels = a.x.shape.rows() / batch, groups = a.groups,
                size = channels / groups;
  expect(channels % groups == 0, "groupNorm: channels divisible by groups");
  const Source sources[2] = {{a.x.f32(), a.x.stride, c1},
                             {a.skip ? a.skip->f32() : nullptr, a.skip ? a.skip->stride : 0, c2}};
  const int parts = a.skip ? 2 : 1;

  // At most 256 rows: the float sums within a chunk stay short. Few pixels are still split over the threads.
  const int64_t chunk = std::clamp<int64_t>(65536 / channels, 16, 256), chunks = ceilDiv(pixels, chunk);
  float* const tables = shared_.floats(2 * 2 * batch * chunks * groups + 3 * batch * channels);
  Moments* const moments = reinterpret_cast<Moments*>(tables);  // [batch][chunks][groups]
  float* const mean = tables + 4 * batch * chunks * groups;     // [batch][channels]
  float* const scale = mean + batch * channels;
  float* const offset = scale + batch * channels;

  pool_.parallelFor(batch * chunks, [&](int64_t task, int thread) {
    const int64_t row = task / chunks * pixels + task % chunks * chunk;
    const int64_t rows = std::min(chunk, pixels - task % chunks * chunk);
    float* shift = scratch_[thread].floats(3 * channels);
    float *sum = shift + channels, *squares = sum + channels;
    for (int part = 0; part < parts; part++) {
      const Source& s = sources[part];
      const int64_t column = part ? c1 : 0;
      k_.columnSums(s.data + row * s.stride, s.stride, rows, s.channels, shift + column, sum + column,
                    squares + column);
    }
    joinColumns(shift, sum, squares, rows, size, groups, moments + task * groups);
  });

  const float *gamma = vectorData(a.gamma), *beta = vectorData(a.beta);
  for (int64_t b = 0; b < batch; b++)
    for (int64_t g = 0; g < groups; g++) {
      const auto rowsOf = [&](int64_t i) { return static_cast<double>(std::min(chunk, pixels - i * chunk)); };
      const Moments* of = moments + b * chunks * groups + g;
      double middle = 0, squares = 0;
      for (int64_t i = 0; i < chunks; i++) middle += of[i * groups].mean * rowsOf(i);
      middle /= static_cast<double>(pixels);
      for (int64_t i = 0; i < chunks; i++) {
        const double distance = of[i * groups].mean - middle;
        squares += of[i * groups].squares + distance * distance * rowsOf(i) * static_cast<double>(size);
      }
      const double rstd = 1 / std::sqrt(squares / static_cast<double>(pixels * size) + a.epsilon);
      for (int64_t c = g * size; c < (g + 1) * size; c++) {
        // The mean in two floats, the small one within the offset: x − mean loses nothing.
        const float high = static_cast<float>(middle);
        double factor = rstd * gamma[c], plus = beta[c];
        if (a.modulation) {
          const float* row = a.modulation->f32() + b * a.modulation->stride;
          const double by = 1.0 + row[c];
          factor *= by;
          plus = plus * by + row[channels + c];
        }
        mean[b * channels + c] = high;
        scale[b * channels + c] = static_cast<float>(factor);
        offset[b * channels + c] = static_cast<float>(plus - (middle - high) * factor);
      }
    }

  const int64_t band = std::max<int64_t>(1, 16384 / channels), bands = ceilDiv(pixels, band);
  pool_.parallelFor(batch * bands, [&](int64_t task, int) {
    const int64_t b = task / bands, row = b * pixels + task % bands * band;
    const int64_t rows = std::min(band, pixels - task % bands * band);
    for (int part = 0; part < parts; part++) {
      const Source& s = sources[part];
      const int64_t column = part ? c1 : 0, table = b * channels + column;
      k_.normApply({s.data + row * s.stride, s.stride, a.y.f32() + row * a.y.stride + column, a.y.stride,
                    rows, s.channels, mean + table, scale + table, offset + table,
                    static_cast<Act>(a.activation)});
    }
  });
}

void CpuBackend::layerNorm(const LayerNormArgs& a) {
  const int64_t rows = a.x.shape.rows(), width = a.x.shape.last(), band = std::max<int64_t>(1, 8192 / width);
  const float *gamma = vectorData(a.gamma), *beta = vectorData(a.beta);
  pool_.parallelFor(ceilDiv(rows, band), [&](int64_t task, int) {
    const int64_t row = task * band;
    k_.layerNormRows({a.x.f32() + row * a.x.stride, a.x.stride, a.y.f32() + row * a.y.stride, a.y.stride,
                      std::min(band, rows - row), width, gamma, beta, a.epsilon, a.centred});
  });
}

}  // namespace nd
