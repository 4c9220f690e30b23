// The SIMD backend: drivers that split an operation into tasks for the thread pool and call the chosen
// instruction set's kernels. One file per concern: gemm.cpp, conv.cpp, winograd.cpp, weights.cpp,
// transfer.cpp, rows.cpp, attention.cpp, norm.cpp, elementwise.cpp.
#pragma once

#include <atomic>
#include <vector>

#include "cpu/address-range.h"
#include "cpu/kernels/kernel-table.h"
#include "cpu/thread-pool.h"
#include "cpu/winograd.h"
#include "engine/backend.h"

namespace nd {

/// 64-byte aligned memory that grows when more is asked for and is kept between operations.
class Scratch {
 public:
  Scratch() = default;
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  /// At least `count` floats; earlier contents are lost when it grows. Throws Error(OutOfMemory).
  float* floats(int64_t count);

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

struct GemmInput;
struct GemmOutput;
struct PackedWeight;

class CpuBackend : public Backend {
 public:
  /// `bf16` null: matrix products are float32's.
  CpuBackend(const KernelTable& kernels, int threads, const Bf16Kernels* bf16 = nullptr);

  std::string name() const override { return "cpu"; }
  std::string description() const override;
  size_t activationBytes() const override { return sizeof(float); }

  void* allocate(size_t bytes) override;
  void deallocate(void* data, size_t bytes) override;
  void* reserve(size_t& bytes) override { return reserveAddresses(bytes); }
  void unreserve(void* data, size_t bytes) override { releaseAddresses(data, bytes); }
  MemoryUse memory() const override;
  WeightPtr makeWeight(WeightKind kind, std::span<const HostTensor> parts) override;
  std::string weightLayout() const override;
  WeightPtr adopt(WeightPtr weight) override;

  void upload(const float* host, Tensor y) override;
  void download(Tensor x, float* host) override;
  void uploadImage(const float* nchw, Tensor nhwc) override;
  void downloadImage(Tensor nhwc, float* nchw) override;
  void downloadPixels(Tensor x, uint8_t* host) override;

  void linear(const LinearArgs& args) override;
  void conv2d(const ConvArgs& args) override;
  void groupNorm(const GroupNormArgs& args) override;  // norm.cpp
  void layerNorm(const LayerNormArgs& args) override;  // norm.cpp
  void attention(const AttentionArgs& args) override;  // attention.cpp
  void embed(const EmbedArgs& args) override;
  void activate(Tensor x, Activation activation, Tensor y) override;  // elementwise.cpp
  void add(Tensor a, Tensor b, float scale, Tensor y) override;
  void resample(Tensor x, Tensor y) override;  // resample.cpp
  void gatherRows(Tensor x, const int32_t* rows, Tensor y) override;
  void copyColumns(Tensor x, Tensor y, int64_t column) override;

  void modelInput(Tensor x, double scale, int copies, Tensor y) override;
  void modelOutput(Tensor x, Tensor nchw) override;
  void planStep(const PlanStepArgs& args) override;

  const KernelTable& kernels() const { return k_; }
  ThreadPool& pool() { return pool_; }
  // Of the calls to come:
  WinogradOptions winogradOptions;
  FewerProducts strassenUse = FewerProducts::WhereFaster;

 private:
  /// gemm() in this backend's dtype.
  void multiply(int64_t m, int64_t rowsPerImage, const PackedWeight& weight, const GemmInput& input,
                const GemmOutput& output);

  const KernelTable& k_;
  const Bf16Kernels* const bf16_;
  ThreadPool pool_;
  std::vector<Scratch> scratch_;  // [thread]: inside parallelFor, scratch_[thread].floats(n)
  Scratch shared_;                // the caller's, between parallelFor calls
  std::shared_ptr<std::atomic<size_t>> weightBytes_;  // outlives this backend in the weights that it made
  std::atomic<size_t> activationBytes_{0};
};

/// A Vector weight's values: weights.cpp keeps them as float32, 64-byte aligned, whatever the stored dtype.
const float* vectorData(const Weight* weight);

}  // namespace nd
