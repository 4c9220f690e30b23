// A small picture as a super-resolution UNet's input, beside the picture being painted (cascades: Ho et al.
// 2021; diffusers IFSuperResolutionPipeline).
#pragma once

#include "engine/picture-input.h"

namespace nd {

struct UpscaleInput {
  std::vector<float> low;  // [n, C, height, width] in −1..1; n prompts, or 1
  int64_t height = 0, width = 0;
  double alpha = 1, sigma = 0;  // the enlarged picture becomes α·picture + σ·noise
  float noiseLevel = 0;         // what the UNet is told of it
};

/// Resized bilinearly with the corners aligned, then noised. Draws the painted picture's noise first, then
/// the small one's, as diffusers does: noise and extra of PreparedPicture are filled.
/// @param perPrompt images per prompt, which share a small picture
PreparedPicture prepareUpscale(const UpscaleInput&, const PictureTarget&, int64_t channels, int64_t perPrompt,
                               BatchNoise&);

}  // namespace nd
