// The blocks that the UNet and the autoencoder are made of. Images are NHWC [B, H, W, C]; seen as tokens they
// are [B, H·W, C] with no copy, so 1×1 convolutions and linear projections are the same thing here.
#pragma once

#include <optional>
#include <vector>

#include "engine/weight-loader.h"

namespace nd {

/// How a residual block differs from Stable Diffusion's.
struct ResnetOptions {
  Activation activation = Activation::Silu;  // Silu or Gelu
  bool scaleShift = false;  // time scales and shifts norm2's result (resnet_time_scale_shift) instead of
                            // being added before it
  float outputScale = 1;    // the result is divided by it
  enum class Resample : uint8_t { None, Up, Down } resample = Resample::None;  // of x and of norm1's result
};

/// diffusers ResnetBlock2D: out = shortcut(x) + conv2(silu(norm2(conv1(silu(norm1(x))) + time))).
class ResnetBlock {
 public:
  ResnetBlock(const WeightLoader&, int64_t in, int64_t out, float epsilon, int groups,
              const ResnetOptions& = {});
  /// `skip` is concatenated to x (in = both together); `time` [B or 1, out] is added per channel, or
  /// [B or 1, 2·out] scales and shifts.
  /// The result goes to `into`, which may be x itself where in = out; else it is allocated.
  Tensor operator()(Context&, const Tensor& x, const Tensor* skip = nullptr, const Tensor* time = nullptr,
                    const Tensor* into = nullptr) const;
  /// The same without skip and time, where x is not needed afterwards: its memory serves as scratch. The
  /// result goes to `into`, which may be x itself where in = out; else to x where in = out, or it is
  /// allocated. `between`, of the result's shape, may lend its memory to the map between the convolutions.
  Tensor consume(Context&, const Tensor& x, const Tensor* into = nullptr,
                 const Tensor* between = nullptr) const;
  int64_t out() const { return out_; }
  /// Columns of `time`.
  int64_t timeColumns() const { return options_.scaleShift ? 2 * out_ : out_; }

 private:
  int64_t out_;
  ResnetOptions options_;
  Norm norm1_, norm2_;
  Conv2d conv1_, conv2_;
  std::optional<Conv2d> shortcut_;
};

/// What steers a transformer block beside x, made once per prompt. Keys and values are side by side [B, L,
/// 2·width] (of the text for both attentions of a block that has no self-attention, [B, L, 4·width]).
struct Attended {
  struct Image {
    Tensor keysValues;
    float scale;
  };
  Tensor text;
  std::vector<Image> images;  // IP-Adapters: attended to apart from the text, and added with their scales
  /// Perturbed-attention guidance: of these entries of the batch every pixel attends to itself alone.
  struct Entries {
    int64_t first = 0, count = 0;
  } perturbed;
};

/// diffusers BasicTransformerBlock: x += self(norm1(x)); x += cross(norm2(x), context); x += geglu(norm3(x)).
/// With onlyCross (only_cross_attention) the first attention, too, reads the context.
class TransformerBlock {
 public:
  TransformerBlock(const WeightLoader&, int64_t width, int heads, int64_t contextWidth, bool onlyCross);
  /// Keys and values of the text, side by side: made once per prompt. See Attended.
  Tensor contextKeysValues(Context&, const Tensor& text) const;
  /// x [B, L, width], updated in place. With `alike` > 1 x is that many times the same entries, of which only
  /// the first copy need be there: the others are written when the text tells them apart.
  void operator()(Context&, const Tensor& x, const Attended&, int64_t alike = 1) const;
  /// Whether x alone, and the same for every entry of the batch, decides what the first attention sees.
  bool beginsAlike(const Attended& attended) const { return !onlyCross_ && attended.perturbed.count == 0; }

 private:
  /// Values, mixed by what each pixel of x attends to: of x itself, or of the text. [B, L, width]
  Tensor firstAttention(Context&, const Tensor& x, const Attended&) const;

  int64_t width_;
  int heads_;
  bool onlyCross_;
  Norm norm1_, norm2_, norm3_;
  Linear selfQkv_ /* the queries alone where onlyCross */, selfOut_, crossQ_, crossKv_, crossOut_, up_, down_;
};

/// diffusers Transformer2DModel: x + proj_out(blocks(proj_in(norm(x)))).
class SpatialTransformer {
 public:
  SpatialTransformer(const WeightLoader&, int64_t channels, int heads, int64_t contextWidth, int layers,
                     int groups, bool onlyCross);
  const std::vector<TransformerBlock>& blocks() const { return blocks_; }
  /// attended: one per block. In place on x [B, H, W, C]; for `alike` see TransformerBlock, whose
  /// beginsAlike() it takes for granted.
  void operator()(Context&, const Tensor& x, const Attended* attended, int64_t alike = 1) const;

 private:
  Norm norm_;
  Linear projIn_, projOut_;
  std::vector<TransformerBlock> blocks_;
};

}  // namespace nd
