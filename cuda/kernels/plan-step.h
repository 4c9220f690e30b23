// One row of the step plan over float32 latents: cpu/reference/plan-step.h defines it. In double, as there:
// where h recovers epsilon from p, a rounded p would be divided by a small sigma. Latents are small (16 K to
// 64 K elements an image), so the time is that of the launches: one, and one more where a row needs a
// reduction over an image (guidanceRescale's standard deviations, dynamic thresholding's quantile).
#pragma once

#include "cuda/launch.h"
#include "engine/backend.h"

namespace nd::cuda {

/// A plan row's writes as one list of additions, in order: sum += coefficient · value(basis), and where `to`
/// is not negative the sum is stored there and starts again at 0.
struct PlanItem {
  double coefficient;
  int32_t basis;  // −1: adds nothing (a write without terms)
  int32_t to;
};
std::vector<PlanItem> planItems(const PlanRow& row);

/// `items`: planItems(*args.row), on the device. Uses the workspace for two values per image. The arguments
/// were checked by checkPlanStep().
void planStep(const Launch&, const PlanStepArgs& args, const PlanItem* items, int itemCount);

}  // namespace nd::cuda
