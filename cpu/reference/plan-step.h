// One row of the step plan on float32 tensors in host memory: the specification, and what the CPU backend
// runs.
#pragma once

#include "engine/backend.h"

namespace nd {

/// Executes `args.row` (engine/plan.h, lib/step-plan.ts) over latents [B, C, H, W], coefficients and sums in
/// double:
///   m   = m₀ + Σ wᵢ (mᵢ − m₀) over the branches; with guidanceRescale φ and at least two branches, per
///   image,
///         m ← φ · m · std(mₙ)/std(m) + (1 − φ) · m, mₙ the last branch's (Lin et al. 2023, section 3.4;
///         unbiased standard deviations)
///   p   = a·x + b·m, then thresholded (Imagen, section 2.3: divided by s = the quantile of |p| of its image,
///   at least 1
///         and at most maxValue, after a clamp to ±s) or clipped
///   h   = c·x + d·p
///   writes in order, each element rounded to float32 when it is stored
///   x   = mask·x + (1 − mask)·(α·orig + σ·n0) where the row has a blend and there is a mask
/// With learnedRange, channels C..2C−1 of the model output (of the last branch, the one with the
/// prompt) scale n in the writes; the stored noise stays as drawn. state[m] and state[h], where
/// given, receive m and h. A term over a tensor that is not given is Error(Internal).
void planStepFloat(const PlanStepArgs& args);

}  // namespace nd
