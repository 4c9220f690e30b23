// The step plan: what lib/schedulers compile to and denoise.cpp executes. The TypeScript twin, with the
// meaning of every field, is lib/step-plan.ts; docs/design.md shows how each solver maps onto it.
#pragma once

#include <optional>
#include <vector>

namespace nd {

/// The basis that every update is linear over.
enum class Basis : unsigned char { x, m, h, n, nPrev, n0, orig, r0, r1, r2, r3, r4, r5, r6, r7 };
constexpr int kBasisCount = 15;
constexpr int kRegisterCount = 8;

struct PlanTerm {
  Basis basis;
  double coefficient;
};

struct PlanWrite {
  Basis to;  // x or a register
  std::vector<PlanTerm> terms;
};

struct PlanThreshold {
  double ratio;     // quantile of |p| per image
  double maxValue;  // upper bound of the scale
};

struct PlanRow {
  double timestep = 0;
  double inputScale = 1;              // UNet input = inputScale · x
  double a = 0, b = 0, c = 0, d = 1;  // p = a·x + b·m;  h = c·x + d·p
  std::optional<double> clip;         // p = clamp(p, −clip, clip)
  std::optional<PlanThreshold> threshold;
  std::vector<PlanWrite> writes;  // in order; later ones see earlier ones
  int draws = 0;                  // noises drawn from the generator in this row; n is the last one
  std::optional<std::pair<double, double>> learnedRange;
  std::optional<std::pair<double, double>> blend;  // (α, σ) for masked latents
  std::vector<double> guidance;       // one weight per extra branch: m = m0 + Σ wᵢ (mᵢ − m0)
  std::vector<double> controlScales;  // strength of each of the job's controls
  std::optional<std::pair<double, double>> noise;  // predicted noise = first·x + second·m, for events
  bool step = true;                                // counts for progress
};

struct StepPlan {
  double initNoiseSigma = 1;  // x = initNoiseSigma · n0 before the first row
  std::vector<PlanRow> rows;
};

}  // namespace nd
