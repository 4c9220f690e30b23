// Weights in device memory. Matrices are K-contiguous rows of the activation type (F16, or BF16 for the wide
// range):
//   Linear  [N, K]            Geglu  [2N, K], value and gate of a feature in turn
//   Conv    [N, kh, kw, C]    each row padded with zeros to `pitch`, a multiple of 8 elements
// A 3 × 3 convolution that has met a map to enlarge has its four of 2 × 2 besides (fold()).
// Vectors are float32 (they are added to float32 sums), tables [rows, C] of the activation type.
#pragma once

#include <atomic>
#include <span>

#include "cuda/memory.h"
#include "engine/backend.h"

namespace nd::cuda {

class CudaWeight final : public Weight {
 public:
  size_t bytes() const override { return memory.bytes() + folded.bytes(); }
  const void* data() const { return memory.data(); }
  const float* floats() const { return reinterpret_cast<const float*>(memory.data()); }

  DeviceBlock memory;
  DType type = DType::F16;
  int64_t pitch = 0;  // elements from row to row
  /// Not part of what the weight is but another form of it, made when it is first used so.
  mutable DeviceBlock folded;
  mutable int64_t foldedPitch = 0;
};
inline const CudaWeight& weightOf(const Weight* w) { return static_cast<const CudaWeight&>(*w); }
inline const float* floatsOf(const Weight* w) { return w ? weightOf(w).floats() : nullptr; }

/// Makes `folded` of a 3 × 3 convolution's weight. Throws Error(OutOfMemory).
void fold(const Launch& launch, const CudaWeight& weight);

/// Copies rows as they are stored from the mapped file into page-locked chunks and on to the device, where a
/// kernel converts and reorders them: while one chunk is on its way the next is read. Waits only for a chunk
/// to be free.
class WeightLoaderCuda {
 public:
  explicit WeightLoaderCuda(cudaStream_t stream) : stream_(stream) {}
  ~WeightLoaderCuda();
  WeightLoaderCuda(const WeightLoaderCuda&) = delete;
  WeightLoaderCuda& operator=(const WeightLoaderCuda&) = delete;

  /// Checks the parts and lays them out as `type`. Throws Error(ModelFormat), Error(OutOfMemory).
  std::unique_ptr<CudaWeight> load(const Launch& launch, WeightKind kind, std::span<const HostTensor> parts,
                                   DType type);
  /// Gives the chunks back; they come again with the next weight.
  void release();
  size_t deviceBytes() const { return chunks_[0].device.bytes() + chunks_[1].device.bytes(); }

 private:
  struct Chunk {
    HostBlock host;
    DeviceBlock device;
    Event used;
  };
  void makeChunks(size_t bytes);

  cudaStream_t stream_;
  Chunk chunks_[2];
  int current_ = 0;
};

}  // namespace nd::cuda
