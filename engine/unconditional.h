// Diffusion in pixel space without a condition, from noise to pictures (diffusers' DDPMPipeline and
// DDIMPipeline; Ho et al. 2020, Song et al. 2020).
#pragma once

#include "engine/generate.h"
#include "engine/models/unet2d.h"

namespace nd {

struct UnconditionalJob {
  int64_t batch = 1, height = 0, width = 0;
  StepPlan plan;
  std::vector<uint64_t> seeds;  // one, continued over the images, or one per image
  NoiseKind noise = NoiseKind::Cpu;
  std::vector<float> latents;  // the initial noise [B, C, H, W]; empty: drawn
  bool pictures = true;        // else only the tensor comes back
  bool stepLatents = false;
  int previewEvery = 0;
};

/// The result's latents are the pictures themselves, about −1..1.
GenerateResult generateUnconditional(Context&, const UNet2d&, const UnconditionalJob&,
                                     const std::function<void(GenerateEvent&&)>& onStep);

}  // namespace nd
