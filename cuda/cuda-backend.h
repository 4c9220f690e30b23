// The backend on an NVIDIA GPU: every operation is a launch in one stream and returns at once; downloads, and
// a step loop that is two steps ahead, wait. Activations and matrices are F16 or BF16, sums and the latents
// of the step loop float32 (float64 within a step of the plan).
#pragma once

#include <atomic>

#include "cuda/memory.h"
#include "cuda/weights.h"
#include "engine/backend.h"

namespace nd::cuda {

class CudaBackend final : public Backend {
 public:
  CudaBackend(int device, DType type);
  ~CudaBackend() override;

  std::string name() const override;
  std::string description() const override;
  size_t activationBytes() const override { return 2; }

  void* allocate(size_t bytes) override;
  void deallocate(void* data, size_t bytes) override;
  void* reserve(size_t& bytes) override;
  void unreserve(void* data, size_t bytes) override;
  void commit(void* range, size_t bytes) override;
  MemoryUse memory() const override;
  bool setWideRange(bool wide) override;
  WeightPtr makeWeight(WeightKind kind, std::span<const HostTensor> parts) override;

  void upload(const float* host, Tensor y) override;
  void download(Tensor x, float* host) override;
  void uploadImage(const float* nchw, Tensor nhwc) override;
  void downloadImage(Tensor nhwc, float* nchw) override;
  void downloadPixels(Tensor x, uint8_t* host) override;

  void linear(const LinearArgs&) override;
  void conv2d(const ConvArgs&) override;
  void groupNorm(const GroupNormArgs&) override;
  void layerNorm(const LayerNormArgs&) override;
  void attention(const AttentionArgs&) override;
  void embed(const EmbedArgs&) override;
  void activate(Tensor x, Activation activation, Tensor y) override;
  void add(Tensor a, Tensor b, float scale, Tensor y) override;
  void resample(Tensor x, Tensor y) override;
  void gatherRows(Tensor x, const int32_t* rows, Tensor y) override;
  void copyColumns(Tensor x, Tensor y, int64_t column) override;

  void modelInput(Tensor x, double scale, int copies, Tensor y) override;
  void modelOutput(Tensor x, Tensor nchw) override;
  void planStep(const PlanStepArgs&) override;
  void uploadPlan(const float* host, Tensor y) override;
  void downloadPlan(Tensor x, float* host) override;

  void synchronize() override;
  void endStep() override;
  bool beginRecording() override;
  std::shared_ptr<Recording> endRecording() override;
  void cancelRecording() noexcept override;
  void replay(const Recording&) override;

  /// What launchers are given; makes the device this thread's. Tests and benches use it, too.
  const Launch& launch();
  DType type() const { return type_; }

 private:
  class Graph;
  /// Device memory that an operation's launches may use up to the next operation: the workspace, or, where
  /// that is too small, memory of its own.
  void* scratch(size_t bytes, DeviceBlock& own);
  void expectHostTransfer() const;
  /// Of the type of the activations; the others' elements would be taken for something else.
  const CudaWeight& matrixOf(const Weight*) const;
  /// Whether a convolution's weight has its form for enlarged maps, or gets it now.
  bool hasFolded(const CudaWeight& weight);

  /// The first member: what follows is made on this device.
  struct OnDevice {
    explicit OnDevice(int device);
    const int index;
  } device_;
  const DType ownType_;  // what was asked for
  DType type_;           // BF16 while the range is wide
  std::string deviceName_;
  int capability_ = 0;
  size_t deviceMemory_ = 0;
  Stream stream_;
  Launch launch_;
  DeviceBlock workspace_;
  std::unique_ptr<StagingRing> ring_;
  std::unique_ptr<WeightLoaderCuda> loader_;
  std::vector<std::unique_ptr<AddressRange>> ranges_;
  std::shared_ptr<std::atomic<size_t>> weightBytes_ = std::make_shared<std::atomic<size_t>>(0);
  size_t activationBytes_ = 0;

  static constexpr int kStepsAhead = 2;
  Event steps_[kStepsAhead + 1];
  int64_t step_ = 0;
  bool recording_ = false;
  std::vector<std::shared_ptr<Graph>> graphs_;  // for later recordings to update: cheaper than a new one
};

}  // namespace nd::cuda
