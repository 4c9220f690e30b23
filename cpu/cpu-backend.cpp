// Memory and identity of the SIMD backend.
#include "cpu/cpu-backend.h"

#include "cpu/dispatch.h"
#include "cpu/memory.h"
#include "cpu/reference/plan-step.h"

namespace nd {

static_assert(static_cast<int>(Act::None) == static_cast<int>(Activation::None));
static_assert(static_cast<int>(Act::Silu) == static_cast<int>(Activation::Silu));
static_assert(static_cast<int>(Act::Gelu) == static_cast<int>(Activation::Gelu));
static_assert(static_cast<int>(Act::QuickGelu) == static_cast<int>(Activation::QuickGelu));
static_assert(static_cast<int>(Act::Relu) == static_cast<int>(Activation::Relu));
static_assert(static_cast<int>(Act::GeluTanh) == static_cast<int>(Activation::GeluTanh));

Scratch::~Scratch() { freeAligned(data_); }

float* Scratch::floats(int64_t count) {
  const size_t bytes = static_cast<size_t>(count) * sizeof(float);
  if (bytes > bytes_) {
    freeAligned(data_);
    data_ = nullptr, bytes_ = 0;
    data_ = allocateAligned(bytes, "a kernel's scratch");
    bytes_ = bytes;
  }
  return static_cast<float*>(data_);
}

CpuBackend::CpuBackend(const KernelTable& kernels, int threads, const Bf16Kernels* bf16)
    : k_(kernels),
      bf16_(bf16),
      pool_(threads),
      scratch_(pool_.threads()),
      weightBytes_(std::make_shared<std::atomic<size_t>>(0)) {}

std::string CpuBackend::description() const {
  return format("%s%s%s, %d thread%s", isaDescription(k_.name).c_str(), bf16_ ? ", " : "",
                bf16_ ? bf16_->name : "", pool_.threads(), pool_.threads() == 1 ? "" : "s");
}

void* CpuBackend::allocate(size_t bytes) {
  void* data = allocateAligned(bytes, "activations");
  activationBytes_ += bytes;
  return data;
}

void CpuBackend::deallocate(void* data, size_t bytes) {
  freeAligned(data);
  activationBytes_ -= bytes;
}

MemoryUse CpuBackend::memory() const { return {weightBytes_->load(), activationBytes_.load()}; }

void CpuBackend::planStep(const PlanStepArgs& args) { planStepFloat(args); }

}  // namespace nd
