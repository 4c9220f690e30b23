#include "cuda/weights.h"

#include <algorithm>
#include <cstring>

#include "cuda/kernels/weight-layout.h"
#include "engine/weight-parts.h"

namespace nd::cuda {

namespace {
constexpr size_t kChunkBytes = size_t{8} << 20;
}

void fold(const Launch& launch, const CudaWeight& weight) {
  FoldedWeight f;
  f.type = weight.type;
  f.weight = weight.data(), f.pitch = weight.pitch;
  f.n = weight.n, f.channels = weight.k / 9;
  f.targetPitch = (4 * f.channels + 7) / 8 * 8;
  DeviceBlock memory(static_cast<size_t>(4 * f.n * f.targetPitch) * 2, "a weight of an enlarging layer");
  f.target = memory.data();
  foldWeight(launch, f);
  weight.folded = std::move(memory);
  weight.foldedPitch = f.targetPitch;
}

WeightLoaderCuda::~WeightLoaderCuda() { release(); }

void WeightLoaderCuda::release() {
  cudaStreamSynchronize(stream_);
  for (Chunk& chunk : chunks_) {
    chunk.device.release();
    chunk.host = HostBlock();
  }
}

void WeightLoaderCuda::makeChunks(size_t bytes) {
  if (std::min(chunks_[0].device.bytes(), chunks_[1].device.bytes()) >= bytes) return;
  release();
  for (Chunk& chunk : chunks_) {
    chunk.host = HostBlock(bytes);
    chunk.device = DeviceBlock(bytes, "loading weights");
  }
}

std::unique_ptr<CudaWeight> WeightLoaderCuda::load(const Launch& launch, WeightKind kind,
                                                   std::span<const HostTensor> parts, DType type) {
  const WeightMatrix matrix = checkWeightParts(kind, parts);
  const bool isMatrix = kind == WeightKind::Linear || kind == WeightKind::Geglu || kind == WeightKind::Conv;
  auto weight = std::make_unique<CudaWeight>();
  weight->kind = kind;
  weight->n = kind == WeightKind::Geglu ? matrix.rows / 2 : matrix.rows;
  weight->k = matrix.columns;
  weight->type = kind == WeightKind::Vector ? DType::F32 : type;
  weight->pitch = isMatrix ? (matrix.columns + 7) / 8 * 8 : matrix.columns;
  const size_t elementBytes = weight->type == DType::F32 ? 4 : 2;
  weight->memory = DeviceBlock(static_cast<size_t>(matrix.rows * weight->pitch) * elementBytes,
                               format("weight '%s'", parts[0].name.c_str()));

  WeightRows rows;
  rows.columns = matrix.columns;
  rows.taps = kind == WeightKind::Conv ? parts[0].shape[2] * parts[0].shape[3] : 1;
  rows.type = weight->type;
  rows.target = weight->memory.data();
  rows.pitch = weight->pitch;
  rows.gated = kind == WeightKind::Geglu ? weight->n : 0;
  for (const HostTensor& part : parts) {
    const size_t rowBytes = static_cast<size_t>(matrix.columns * dtypeBits(part.dtype) / 8);
    makeChunks(std::max(kChunkBytes, rowBytes));
    const auto perChunk = static_cast<int64_t>(chunks_[0].device.bytes() / rowBytes);
    const int64_t partRows = part.shape.count() / matrix.columns;
    rows.sourceType = part.dtype;
    for (int64_t row = 0; row < partRows; row += perChunk) {
      Chunk& chunk = chunks_[current_];
      current_ = 1 - current_;
      chunk.used.wait();
      rows.count = std::min(perChunk, partRows - row);
      const size_t bytes = static_cast<size_t>(rows.count) * rowBytes;
      std::memcpy(chunk.host.data(),
                  static_cast<const char*>(part.data) + static_cast<size_t>(row) * rowBytes, bytes);
      check(cudaMemcpyAsync(chunk.device.data(), chunk.host.data(), bytes, cudaMemcpyHostToDevice, stream_),
            "cudaMemcpyAsync");
      rows.source = chunk.device.data();
      layoutWeight(launch, rows);
      chunk.used.record(stream_);
      rows.first += rows.count;
    }
  }
  return weight;
}

}  // namespace nd::cuda
