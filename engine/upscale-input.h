// A small picture as a super-resolution UNet's input, beside the picture being painted (cascades: Ho et al.
// 2021; diffusers IFSuperResolutionPipeline) or beside latents as large as it is
// (StableDiffusionUpscalePipeline).
#pragma once

#include "engine/picture-input.h"

namespace nd {

struct UpscaleInput {
  bool enlarges = true;           // to what is painted; else it must be as large, and pictures become so
  std::vector<Picture> pictures;  // instead of `low`: RGB of any size
  std::vector<float> low;         // [n, C, height, width] in −1..1; n prompts, or 1
  int64_t height = 0, width = 0;
  double alpha = 1, sigma = 0;  // the enlarged picture becomes α·picture + σ·noise
  float noiseLevel = 0;         // what the UNet is told of it
};

/// Resized bilinearly with the corners aligned, then noised: noise and extra of PreparedPicture are filled.
/// As in diffusers, where it is enlarged, the painted picture's noise is drawn first, then the small one's,
/// for every image; else the small picture's, once for each of them, then the latents'.
/// @param channels of what is painted; the target's extraChannels are the small picture's
/// @param perPrompt images per prompt, which share a small picture
PreparedPicture prepareUpscale(UpscaleInput, const PictureTarget&, int64_t channels, int64_t perPrompt,
                               BatchNoise&);

}  // namespace nd
