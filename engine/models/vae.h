// AutoencoderKL: pictures [B, H, W, 3] in −1..1 to latents [B, H/f, W/f, latent] and back; f = 2^(levels −
// 1).
#pragma once

#include <optional>
#include <vector>

#include "engine/models/blocks.h"

namespace nd {

struct VaeConfig {
  int64_t inChannels = 3, outChannels = 3, latentChannels = 4;
  std::vector<int64_t> channels;  // per level, from the picture's size downwards
  int resnets = 1;                // layers_per_block; the decoder has one more
  int normGroups = 32;
  bool quantConv = true, postQuantConv = true, midAttention = true;
};

/// How latents relate to the autoencoder's: z = latents / factor (· std + mean) + shift, per channel where
/// given.
struct LatentScaling {
  double factor = 0.18215, shift = 0;
  std::vector<float> mean, deviation;  // [C] or empty

  double z(double latent, size_t channel) const {
    return latent / factor * (deviation.empty() ? 1.0 : deviation[channel]) +
           (mean.empty() ? 0.0 : mean[channel]) + shift;
  }
  double latent(double z, size_t channel) const {
    return (z - shift - (mean.empty() ? 0.0 : mean[channel])) * factor /
           (deviation.empty() ? 1.0 : deviation[channel]);
  }
};

class Vae {
 public:
  Vae(const VaeConfig& config, const WeightLoader& loader);
  int factor() const { return 1 << (config_.channels.size() - 1); }

  /// x [B, H, W, in] → moments [B, H/f, W/f, 2·latent]: mean, then log variance, of the posterior.
  Tensor encode(Context&, const Tensor& x) const;
  /// z [B, h, w, latent], already divided by the scaling factor → [B, h·f, w·f, out].
  Tensor decode(Context&, const Tensor& z) const;
  const VaeConfig& config() const { return config_; }

 private:
  /// Self-attention over all pixels, one head: x += out(attention(norm(x))).
  struct Attention {
    Norm norm;
    Linear qkv, out;
  };
  struct Middle {
    std::vector<ResnetBlock> resnets;
    std::optional<Attention> attention;
  };
  struct Block {
    std::vector<ResnetBlock> resnets;
    std::optional<Conv2d> resample;
  };
  Middle makeMiddle(const WeightLoader&, int64_t channels) const;
  void middle(Context&, const Middle&, const Tensor& x) const;  // in place
  /// Runs the block's resnets on h, whose memory they use.
  Tensor resnets(Context&, const Block&, Tensor h) const;

  VaeConfig config_;
  Conv2d encoderIn_, encoderOut_, decoderIn_, decoderOut_;
  Norm encoderNorm_, decoderNorm_;
  Middle encoderMiddle_, decoderMiddle_;
  std::vector<Block> down_, up_;
  std::optional<Conv2d> quant_, postQuant_;
};

}  // namespace nd
