#include "cpu/weights.h"

#include <algorithm>
#include <cstring>

#include "cpu/ceil-div.h"
#include "cpu/cpu-backend.h"
#include "cpu/memory.h"
#include "cpu/panel-transpose.h"
#include "engine/half.h"
#include "engine/weight-parts.h"

namespace nd {

namespace {

WeightFormat formatOf(DType dtype) {
  if (dtype == DType::F32) return WeightFormat::F32;
  return dtype == DType::BF16 ? WeightFormat::BF16 : WeightFormat::F16;
}

/// Parts of one weight share a format; where they differ, only F32 holds all their values.
WeightFormat commonFormat(std::span<const HostTensor> parts) {
  for (const HostTensor& part : parts)
    if (formatOf(part.dtype) != formatOf(parts[0].dtype)) return WeightFormat::F32;
  return formatOf(parts[0].dtype);
}

template <class T>
T load(const void* data, int64_t i) {  // mapped files promise no alignment
  T value;
  std::memcpy(&value, static_cast<const uint8_t*>(data) + i * sizeof(T), sizeof(T));
  return value;
}

/// Element `i` of a part in the weight's format: a bit copy but for F8 and mixed parts.
template <class T>
T read(const HostTensor& part, int64_t i);

template <>
uint16_t read(const HostTensor& part, int64_t i) {
  switch (part.dtype) {
    case DType::F8_E4M3:
      return floatToHalf(float8e4m3ToFloat(load<uint8_t>(part.data, i)));
    case DType::F8_E5M2:
      return float8e5m2ToHalf(load<uint8_t>(part.data, i));
    default:
      return load<uint16_t>(part.data, i);
  }
}

template <>
float read(const HostTensor& part, int64_t i) {
  switch (part.dtype) {
    case DType::F32:
      return load<float>(part.data, i);
    case DType::BF16:
      return bfloatToFloat(load<uint16_t>(part.data, i));
    default:
      return halfToFloat(read<uint16_t>(part, i));
  }
}

/// The rows of all parts one below the other.
class StackedRows {
 public:
  explicit StackedRows(std::span<const HostTensor> parts) {
    for (const HostTensor& part : parts)
      for (int64_t r = 0; r < part.shape[0]; r++) rows_.push_back({&part, r});
  }
  const HostTensor& part(int64_t row) const { return *rows_[row].part; }
  int64_t rowInPart(int64_t row) const { return rows_[row].row; }

 private:
  struct Entry {
    const HostTensor* part;
    int64_t row;
  };
  std::vector<Entry> rows_;
};

/// The feature whose weights column `j` of panel `panel` holds, or −1 for padding.
int64_t featureAt(WeightKind kind, int64_t n, int nr, int64_t panel, int j) {
  if (kind != WeightKind::Geglu) {
    const int64_t feature = panel * nr + j;
    return feature < n ? feature : -1;
  }
  const int half = nr / 2;
  const int64_t feature = panel * half + j % half;
  if (feature >= n) return -1;
  return j < half ? feature : n + feature;
}

/// One panel. Source columns are (c, tap), tap fastest; the panel's are (tap, c). A few channels at a time
/// are transposed in the L1 cache, and their rows of NR elements put where they belong.
template <class T>
void packPanel(const PackedWeight& w, const StackedRows& rows, int64_t panel, int nr, int64_t taps) {
  constexpr int64_t kTile = 256;  // source columns of a tile, but for filters that are larger
  const int64_t channels = w.k / taps, together = std::max<int64_t>(1, kTile / taps);
  const int64_t most = together * taps;
  // Rows that are no plain bits (F8, mixed parts) are converted into `converted` first; padding stays zero.
  std::vector<T> tile(most * nr), converted(most * nr);
  std::vector<const T*> from(nr);
  T* const to = reinterpret_cast<T*>(w.data) + panel * w.k * nr;
  for (int64_t c0 = 0; c0 < channels; c0 += together) {
    const int64_t count = (std::min(channels, c0 + together) - c0) * taps;
    for (int j = 0; j < nr; j++) {
      from[j] = converted.data() + j * most;
      const int64_t feature = featureAt(w.kind, w.n, nr, panel, j);
      if (feature < 0) continue;
      const HostTensor& part = rows.part(feature);
      const int64_t base = rows.rowInPart(feature) * w.k + c0 * taps;
      if (formatOf(part.dtype) == w.format && dtypeBits(part.dtype) == 8 * static_cast<int>(sizeof(T)))
        from[j] = static_cast<const T*>(part.data) + base;
      else
        for (int64_t i = 0; i < count; i++) converted[j * most + i] = read<T>(part, base + i);
    }
    if (taps == 1) {
      transposeRows(from.data(), nr, count, to + c0 * nr);
      continue;
    }
    transposeRows(from.data(), nr, count, tile.data());
    for (int64_t tap = 0; tap < taps; tap++)
      for (int64_t c = c0; c < c0 + count / taps; c++)
        std::copy_n(tile.data() + ((c - c0) * taps + tap) * nr, nr, to + (tap * channels + c) * nr);
  }
}

template <class T>
void copyElements(const PackedWeight& w, std::span<const HostTensor> parts) {
  T* to = reinterpret_cast<T*>(w.data);
  for (const HostTensor& part : parts)
    for (int64_t i = 0, count = part.shape.count(); i < count; i++) *to++ = read<T>(part, i);
}

}  // namespace

PackedWeight::~PackedWeight() { freeAligned(data); }

void widen(const KernelTable& kernels, const PackedWeight& weight, int64_t index, int64_t count, float* to) {
  const uint8_t* from = weight.element(index);
  switch (weight.format) {
    case WeightFormat::F32:
      std::memcpy(to, from, count * sizeof(float));
      return;
    case WeightFormat::F16:
      kernels.widenF16(reinterpret_cast<const uint16_t*>(from), to, count);
      return;
    case WeightFormat::BF16:
      kernels.widenBf16(reinterpret_cast<const uint16_t*>(from), to, count);
      return;
  }
}

const float* vectorData(const Weight* weight) {
  return weight ? reinterpret_cast<const float*>(packed(weight).data) : nullptr;
}

WeightPtr CpuBackend::makeWeight(WeightKind kind, std::span<const HostTensor> parts) {
  const WeightMatrix matrix = checkWeightParts(kind, parts);
  auto weight = std::make_unique<PackedWeight>();
  PackedWeight& w = *weight;
  w.kind = kind;
  w.n = kind == WeightKind::Geglu ? matrix.rows / 2 : matrix.rows;
  w.k = matrix.columns;
  // Vectors are few and short, and are added to fp32 accumulators: widened once.
  w.format = kind == WeightKind::Vector ? WeightFormat::F32 : commonFormat(parts);

  const bool panels = kind == WeightKind::Linear || kind == WeightKind::Geglu || kind == WeightKind::Conv;
  const int features = kind == WeightKind::Geglu ? k_.nr / 2 : k_.nr;
  w.panels = panels ? ceilDiv(w.n, features) : 0;
  const int64_t elements = panels ? w.panels * k_.nr * w.k : matrix.rows * matrix.columns;
  w.byteCount = static_cast<size_t>(elements) * w.elementBytes();
  w.data = static_cast<uint8_t*>(allocateAligned(w.byteCount, parts[0].name.c_str()));

  if (panels) {
    const StackedRows rows(parts);
    const int64_t taps = kind == WeightKind::Conv ? parts[0].shape[2] * parts[0].shape[3] : 1;
    pool_.parallelFor(w.panels, [&](int64_t panel, int) {
      if (w.format == WeightFormat::F32)
        packPanel<float>(w, rows, panel, k_.nr, taps);
      else
        packPanel<uint16_t>(w, rows, panel, k_.nr, taps);
    });
  } else if (w.format == WeightFormat::F32) {
    copyElements<float>(w, parts);
  } else {
    copyElements<uint16_t>(w, parts);
  }

  return adopt(std::move(weight));
}

/// Panels are as wide as the micro-kernel; all else is the same everywhere.
std::string CpuBackend::weightLayout() const { return format("cpu %d", k_.nr); }

WeightPtr CpuBackend::adopt(WeightPtr weight) {
  const Weight* const plain = weight.get();
  *weightBytes_ += plain->bytes();
  return {plain,
          [counter = weightBytes_, owner = std::move(weight)](const Weight* w) { *counter -= w->bytes(); }};
}

}  // namespace nd
