// AutoencoderTiny (TAESD, Ollin Boer Bohan 2023): latents to pictures in a few convolutions, without norms or
// attention. Its latents are the step loop's own.
#pragma once

#include <optional>
#include <vector>

#include "engine/models/autoencoder.h"
#include "engine/weight-loader.h"

namespace nd {

struct TinyVaeConfig {
  int64_t inChannels = 3, outChannels = 3, latentChannels = 4;
  int64_t encoderChannels = 64, decoderChannels = 64;
  // Blocks per level, from the picture's size downwards (encoder) or from the latents' upwards (decoder). One
  // of the two may be missing: files often hold only one half.
  std::vector<int> encoderBlocks, decoderBlocks;
  Activation activation = Activation::Relu;
};

class TinyVae : public Autoencoder {
 public:
  TinyVae(const TinyVaeConfig& config, const WeightLoader& loader);

  int64_t factor() const override;
  int64_t latentChannels() const override { return config_.latentChannels; }
  int64_t inChannels() const override { return config_.inChannels; }
  int64_t outChannels() const override { return config_.outChannels; }
  bool posterior() const override { return false; }
  Tensor encode(Context&, const Tensor& x) const override;
  Tensor decode(Context&, const Tensor& z) const override;

 private:
  /// relu(x + conv(act(conv(act(conv(x)))))), in place.
  struct Block {
    Conv2d conv1, conv2, conv3;
  };
  struct Level {
    Conv2d conv;  // before the blocks of the encoder, after those of the decoder
    std::vector<Block> blocks;
  };
  static Block makeBlock(const WeightLoader&, int64_t channels);
  void run(Context&, const Block&, const Tensor& x) const;

  TinyVaeConfig config_;
  std::vector<Level> encoder_, decoder_;
  Conv2d encoderOut_, decoderIn_;
};

}  // namespace nd
