#include "engine/backend.h"

#include <cstring>

namespace nd {

void* Backend::reserve(size_t& bytes) {
  bytes = 0;
  return nullptr;
}
void Backend::unreserve(void*, size_t) {}
void Backend::commit(void*, size_t) {}
bool Backend::setWideRange(bool) { return false; }

void Backend::synchronize() {}
void Backend::endStep() {}
bool Backend::beginRecording() { return false; }
std::shared_ptr<Recording> Backend::endRecording() {
  throw Error(ErrorCode::Internal, "a backend that does not record was asked for a recording");
}
void Backend::cancelRecording() noexcept {}
void Backend::replay(const Recording&) {
  throw Error(ErrorCode::Internal, "a backend that does not record was asked for a replay");
}

void Backend::resample(Tensor, Tensor) {
  throw Error(ErrorCode::Unsupported, "Pixel UNets (resample) are not supported on " + name() + " yet");
}

void Backend::uploadPlan(const float* host, Tensor y) {
  std::memcpy(y.data, host, static_cast<size_t>(y.shape.count()) * sizeof(float));
}

void Backend::downloadPlan(Tensor x, float* host) {
  std::memcpy(host, x.data, static_cast<size_t>(x.shape.count()) * sizeof(float));
}

void checkPlanStep(const PlanStepArgs& args) {
  const PlanRow& row = *args.row;
  const Tensor& x = args.state[size_t(Basis::x)];
  expect(x && args.p && args.modelOutput, "planStep: x, p and the model output are given");
  expect(x.shape.rank == 4 && args.p.shape == x.shape, "planStep: latents [B, C, H, W]");
  expect(args.branches >= 1 && row.guidance.size() + 1 >= static_cast<size_t>(args.branches),
         "planStep: one guidance weight per extra branch");
  expect(args.modelOutput.shape[0] == args.branches * x.shape[0], "planStep: model output [branches*B, ...]");
  expect(args.modelOutput.shape[1] == x.shape[1] * (row.learnedRange ? 2 : 1) ||
             (!row.learnedRange && args.modelOutput.shape[1] == 2 * x.shape[1]),
         "planStep: model output has C channels, or 2C with a predicted variance");
  for (const Tensor& state : args.state)
    expect(!state || state.shape == x.shape, "planStep: state shaped like x");
  for (const PlanWrite& write : row.writes) {
    expect(write.to == Basis::x || write.to >= Basis::r0, "planStep: writes go to x or a register");
    expect(bool(args.state[size_t(write.to)]), "planStep: the written tensor is given");
    for (const PlanTerm& term : write.terms)
      expect(term.coefficient == 0 || term.basis == Basis::m || term.basis == Basis::h ||
                 bool(args.state[size_t(term.basis)]),
             "planStep: every term's tensor is given");
  }
  if (args.mask && row.blend)
    expect(args.state[size_t(Basis::orig)] && args.state[size_t(Basis::n0)] &&
               args.mask->shape.count() == x.shape.count() / x.shape[1],
           "planStep: the blend has orig, n0 and a mask [B, 1, H, W]");
}

}  // namespace nd
