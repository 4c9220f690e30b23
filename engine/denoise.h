// The step loop: executes a step plan over latents. What predicts the noise is the caller's: the UNet, or a
// stand-in in tests. lib/interpreter.ts is the specification.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "engine/ops.h"
#include "engine/plan.h"
#include "engine/random.h"

namespace nd {

/// Noise for a batch: one source continued over the whole batch, or one source per image, as diffusers'
/// randn_tensor does with one generator or a list.
class BatchNoise {
 public:
  explicit BatchNoise(std::vector<std::unique_ptr<NoiseSource>> sources) : sources_(std::move(sources)) {}
  /// 1: continued over the batch; else one per image.
  size_t count() const { return sources_.size(); }
  /// Fills [B, ...]: `batch` images of `each` values. Fewer images than sources take the first ones.
  void draw(float* out, int64_t batch, int64_t each);

 private:
  std::vector<std::unique_ptr<NoiseSource>> sources_;
};

/// What a row left behind, for events. All float32 [B, C, H, W].
struct StepState {
  size_t row;       // index in the plan
  int step, steps;  // progress: steps done, steps in all
  double timestep;
  Tensor x, m, p;                // latents, model output after guidance, predicted original
  std::span<const float> input;  // x before the row, on the host; empty unless keepInput
};

struct DenoiseOptions {
  int64_t batch = 1, channels = 4, height = 0, width = 0;  // of the latents
  int branches = 1;
  double guidanceRescale = 0;
  std::span<const float> initial;   // n0 [B, C, H, W]; empty: the first draw of `noise`
  std::span<const float> start;     // x before the first row; empty: initNoiseSigma · n0
  std::span<const float> original;  // clean latents, for `orig` and the blend
  std::span<const float> mask;      // [B, 1, H, W], 1 where repainted
  BatchNoise* noise = nullptr;
  /// Predicts row `row`: x [B, C, H, W] and its input scale → out [branches·B, Cm, H, W] float32.
  std::function<void(size_t row, const Tensor& x, double inputScale, const Tensor& out)> predict;
  int64_t outputChannels = 0;                    // Cm; 0: channels
  std::function<void(const StepState&)> onStep;  // after each row; may throw to end the loop
  bool keepInput = false;                        // StepState has x as it was before the row
};

/// Runs the plan; returns the final x [B, C, H, W] on the host.
std::vector<float> denoise(Context&, const StepPlan&, const DenoiseOptions&);

}  // namespace nd
