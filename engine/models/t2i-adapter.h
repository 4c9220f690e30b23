// T2IAdapter (Mou et al. 2023, "T2I-Adapter: Learning Adapters to Dig out More Controllable Ability"): a
// small network that turns a picture into maps, once, which are added to the UNet's on the way down.
#pragma once

#include <optional>
#include <vector>

#include "engine/weight-loader.h"

namespace nd {

struct T2iAdapterConfig {
  enum class Kind : uint8_t {
    Full,    // full_adapter: every block but the first halves the map
    FullXl,  // full_adapter_xl: only the third does
    Light    // light_adapter: narrow blocks between 1×1 convolutions; one block more than there are widths
  };
  Kind kind = Kind::Full;
  int64_t inChannels = 3;  // 3, or 1: grey
  std::vector<int64_t> widths = {320, 640, 1280, 1280};
  int resnets = 2;              // num_res_blocks
  int64_t downscaleFactor = 8;  // the picture's pixels become channels in tiles of this side
};

class T2iAdapter {
 public:
  T2iAdapter(const T2iAdapterConfig& config, const WeightLoader& loader);

  /// A picture [1, h, w, inChannels · factor²] with pixels as channels (torch.nn.PixelUnshuffle) → the maps
  /// of all blocks, each [1, H, W, C].
  std::vector<Tensor> operator()(Context&, const Tensor& tiles) const;
  const T2iAdapterConfig& config() const { return config_; }

 private:
  struct Resnet {  // x + second(relu(first(x)))
    Conv2d first, second;
  };
  struct Block {
    bool down = false;
    std::optional<Conv2d> in, out;
    std::vector<Resnet> resnets;
  };
  Tensor run(Context&, const Block&, const Tensor& x) const;

  T2iAdapterConfig config_;
  std::optional<Conv2d> convIn_;  // not in the light one
  std::vector<Block> blocks_;
};

}  // namespace nd
