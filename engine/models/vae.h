// AutoencoderKL: pictures [B, H, W, 3] in −1..1 to latents [B, H/f, W/f, latent] and back; f = 2^(levels −
// 1).
#pragma once

#include <optional>
#include <vector>

#include "engine/models/autoencoder.h"
#include "engine/models/blocks.h"
#include "engine/models/pixel-attention.h"

namespace nd {

struct VaeConfig {
  int64_t inChannels = 3, outChannels = 3, latentChannels = 4;
  std::vector<int64_t> channels;  // per level, from the picture's size downwards
  int resnets = 1;                // layers_per_block; the decoder has one more
  int normGroups = 32;
  bool quantConv = true, postQuantConv = true, midAttention = true;
};

class Vae : public Autoencoder {
 public:
  Vae(const VaeConfig& config, const WeightLoader& loader);

  int64_t factor() const override { return int64_t{1} << (config_.channels.size() - 1); }
  int64_t latentChannels() const override { return config_.latentChannels; }
  int64_t inChannels() const override { return config_.inChannels; }
  int64_t outChannels() const override { return config_.outChannels; }
  bool posterior() const override { return true; }
  Tensor encode(Context&, const Tensor& x) const override;
  Tensor decode(Context&, const Tensor& z) const override;

 private:
  struct Middle {
    std::vector<ResnetBlock> resnets;
    std::optional<PixelAttention> attention;
  };
  struct Block {
    std::vector<ResnetBlock> resnets;
    std::optional<Conv2d> resample;
  };
  Middle makeMiddle(const WeightLoader&, int64_t channels) const;
  void middle(Context&, const Middle&, const Tensor& x) const;  // in place
  /// The output of up block `level`, before it is resized, into `out`: all that keeps memory.
  void up(Context&, size_t level, const Tensor& z, const Tensor& out) const;

  VaeConfig config_;
  Conv2d encoderIn_, encoderOut_, decoderIn_, decoderOut_;
  Norm encoderNorm_, decoderNorm_;
  Middle encoderMiddle_, decoderMiddle_;
  std::vector<Block> down_, up_;
  std::optional<Conv2d> quant_, postQuant_;
};

}  // namespace nd
