// Pictures as prompts: the inputs of a job's IP-Adapters, and what cross-attentions make of them.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/models/ip-adapter.h"
#include "engine/models/unet.h"

namespace nd {

/// What one IP-Adapter is given.
struct ImagePrompt {
  int64_t rows = 1;           // 2 with guidance: without the picture, with it
  int64_t images = 1;         // pictures that are looked at together
  int64_t states = 1;         // embeddings per picture
  std::vector<float> embeds;  // [rows, images, states, embedWidth]
  std::vector<float> scales;  // one per cross-attention, in the order of UNet::Text
};

/// A batch, branch-major: the last `prompted` branches have the picture.
struct PromptedBatch {
  int branches, prompted;
  int64_t perBranch;  // entries
};

/// Adds the adapters' keys and values to those of the text. Lives in the arena.
void addImagePrompts(Context&, const std::vector<std::unique_ptr<IpAdapter>>&,
                     const std::vector<ImagePrompt>&, const PromptedBatch&, UNet::Text&);

}  // namespace nd
