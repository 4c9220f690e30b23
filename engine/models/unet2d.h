// UNet2DModel (Ho et al. 2020, appendix B): predicts the noise in pictures themselves, without text. The same
// shape as UNet2DConditionModel (unet.h), with self-attention over pixels where that one reads text.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "engine/models/blocks.h"
#include "engine/models/pixel-attention.h"

namespace nd {

/// Levels count from the largest map to the smallest. lib/models/unet2d.ts fills it from config.json.
struct UNet2dConfig {
  struct Level {
    int64_t channels;
    int heads;  // of the level's attention; 0 where its down block has none
    int upHeads;
  };
  int64_t inChannels = 3, outChannels = 3;
  std::vector<Level> levels;
  int resnets = 2;     // layers_per_block; the up path has one more
  bool middle = true;  // two residual blocks, with attention between them where midHeads is not 0
  int midHeads = 0, midGroups = 32;
  float normEps = 1e-5f;
  int normGroups = 32, downsamplePadding = 1;
  int64_t timeWidth = 0;  // of the time embedding after its first layer
  bool flipSinToCos = true;
  double freqShift = 0;
};

class UNet2d {
 public:
  UNet2d(const UNet2dConfig& config, const WeightLoader& loader);

  /// Every residual block's projection of the time embeddings, [timesteps.size(), Σ channels].
  Tensor prepareTime(Context&, std::span<const float> timesteps) const;
  /// x [B, H, W, inChannels] → [B, H, W, outChannels]; `time` [1 or B, Σ channels], rows of prepareTime's.
  Tensor forward(Context&, const Tensor& x, const Tensor& time) const;
  const UNet2dConfig& config() const { return config_; }

 private:
  struct Stage {
    ResnetBlock resnet;
    std::optional<PixelAttention> attention;
    int64_t timeColumn;  // where its projection begins
  };
  struct Block {
    std::vector<Stage> stages;
    std::optional<Conv2d> resample;
  };
  Stage makeStage(const WeightLoader&, int64_t i, int64_t in, int64_t out, int heads, int groups);
  Tensor run(Context&, const Stage&, const Tensor& x, const Tensor* skip, const Tensor& time) const;

  UNet2dConfig config_;
  Conv2d convIn_, convOut_;
  Norm normOut_;
  Linear time1_, time2_, timeProjection_;
  std::vector<Block> down_, up_;
  std::vector<Stage> mid_;
  // Filled by makeStage in the order of construction.
  std::vector<TensorRef> timeWeights_, timeBiases_;
  int64_t timeColumns_ = 0;
};

}  // namespace nd
