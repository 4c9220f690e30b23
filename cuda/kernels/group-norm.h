// y = act(γ (x − μ_g) / sqrt(σ²_g + ε) + β), statistics per image and group over [x | skip]; γ and β may be
// modulated per image (GroupNormArgs). Bound: memory.
//
// Two schemes, chosen by the bytes of one group of one image:
// - up to kResidentBytes: one block per image and group keeps it in shared memory, so x is read once and one
// launch
//   does it. SD1.5's UNet at 512² needs 80 KB for its largest maps (64² × 10 channels); two such blocks fit
//   an SM of 228 KB. What it costs: 32 groups × 2 images are 64 blocks, half of the SMs of an H200, so it is
//   for maps whose time is the launch's latency more than the bytes.
// - else two launches: one sums ranges of pixels over all channels (whole rows, coalesced, as many blocks as
// keep
//   every SM busy), the second merges the ranges' moments, 8 bytes each, and normalises. x is read twice.
// Sums are float32 moments (count, mean, squared deviations) that merge without cancellation, so a mean far
// from 0 or an outlier costs no digits.
#pragma once

#include "cuda/launch.h"
#include "engine/backend.h"

namespace nd::cuda {

/// The engine's arguments on device tensors; its Weight pointers are not looked at. gamma and beta: float32
/// [C1 + C2].
void groupNorm(const Launch&, DType type, const GroupNormArgs&, const float* gamma, const float* beta);

enum class GroupNormScheme { Resident, Ranges };
GroupNormScheme chooseGroupNorm(int64_t pixels, int64_t channelsPerGroup);
/// Tests and benches: every scheme on every shape. Null: the choice above.
const GroupNormScheme*& forcedGroupNorm();

}  // namespace nd::cuda
