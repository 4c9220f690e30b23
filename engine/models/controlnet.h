// ControlNetModel (Zhang et al. 2023, "Adding Conditional Control to Text-to-Image Diffusion Models"): a copy
// of the UNet's way down and middle that also sees a picture, and whose maps are added to the UNet's own.
//
//   picture ─ conv stack ─┐
//   x ─────── conv_in ─── + ─ down₀ ─ down₁ ─ … ─ mid      (time and text as in the UNet)
//                         │ 1×1     │       │      │ 1×1   convolutions that began as zeros
//                      UNet's     UNet's skips   UNet's middle
#pragma once

#include "engine/models/unet-encoder.h"

namespace nd {

struct ControlNetConfig {
  UNetConfig unet;              // its way down and middle
  int64_t pictureChannels = 3;  // conditioning_channels
  std::vector<int64_t>
      pictureWidths;        // conditioning_embedding_out_channels; each after the first halves the map
  bool bgr = false;         // controlnet_conditioning_channel_order
  bool globalPool = false;  // global_pool_conditions: means over the map instead of the map
};

class ControlNet : public UNetEncoder {
 public:
  ControlNet(const ControlNetConfig& config, const WeightLoader& loader);

  /// Pictures [n, H, W, 3] in 0..1, in the channel order of the config → what joins conv_in's output,
  /// [n, h, w, channels₀]. Made once per picture.
  Tensor hint(Context&, const Tensor& pictures) const;
  /// Source pixels per hint pixel, along each side.
  int64_t factor() const { return int64_t{1} << (config_.pictureWidths.size() - 1); }

  /// How many residuals there are: one per skip of the UNet, then the middle's.
  size_t count() const { return skipChannels_.size() + 1; }
  /// Called with residual `index` of count(), [B, H, W, C], or [B, 1, 1, C] where the config says globalPool;
  /// its memory is gone afterwards.
  using Receive = std::function<void(size_t index, const Tensor& residual)>;
  /// x [B, h, w, inChannels], hint [B, h, w, channels₀]; `alike`: see EncodeOptions.
  void forward(Context&, const Tensor& x, const Tensor& hint, const Time&, int64_t row, const Text&,
               const Receive&, int64_t alike = 1) const;

  const ControlNetConfig& config() const { return config_; }

 private:
  Tensor residual(Context&, size_t index, const Tensor& map) const;

  ControlNetConfig config_;
  std::vector<Conv2d> picture_;  // 3×3, activated but for the last; every second one has stride 2
  std::vector<Conv2d> zero_;     // [count()]
};

/// Factor of residual `index` of `count` in guess mode: 0.1 at the first skip to 1 at the middle, evenly in
/// the logarithm.
double guessScale(size_t index, size_t count);

}  // namespace nd
