// The readable operations: what every backend must compute, written as loops in double precision on one
// thread. One operation per file; this header is what they share. Tests compare the fast backends with these.
#pragma once

#include <atomic>
#include <vector>

#include "engine/backend.h"

namespace nd {

/// A weight as plain float32, in the order of the file; parts stacked along the first dimension.
struct ReferenceWeight : Weight {
  size_t bytes() const override { return values.size() * sizeof(float); }
  float at(int64_t row, int64_t column) const { return values[row * k + column]; }

  std::vector<float> values;  // [rows, k]; Geglu has 2n rows; a Vector has k = 1
};

class ReferenceBackend final : public Backend {
 public:
  std::string name() const override { return "reference"; }
  std::string description() const override { return "readable loops in double precision, 1 thread"; }
  size_t activationBytes() const override { return sizeof(float); }

  void* allocate(size_t bytes) override;
  void deallocate(void* data, size_t bytes) override;
  MemoryUse memory() const override;
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

 private:
  size_t activationBytes_ = 0;
  // Weights may outlive the backend and die on any thread.
  std::shared_ptr<std::atomic<size_t>> weightBytes_ = std::make_shared<std::atomic<size_t>>(0);
};

namespace reference {

inline const ReferenceWeight& weight(const Weight* w) { return static_cast<const ReferenceWeight&>(*w); }

/// Row `i` of a tensor whose rows may be strided.
inline float* row(const Tensor& t, int64_t i) { return t.f32() + i * t.stride; }

/// The activation of one value; `None` is the identity.
double activate(double x, Activation activation);

}  // namespace reference
}  // namespace nd
