// UNet2DConditionModel: predicts the noise in latents x at a timestep, steered by text.
//
//   x ─ conv_in ─ down₀ ─ down₁ ─ … ─┐           time ─ sinusoid ─ MLP ─► every resnet
//        │skips     │       │       mid          text ─► every cross-attention
//   out ─ conv_out ─ … ─ up₁ ─ up₀ ──┘
//
// The way down and the middle are UNetEncoder, of which ControlNets are copies: what they make is added to
// the skips and to the middle before the way up (Joined).
#pragma once

#include "engine/models/free-u.h"
#include "engine/models/unet-encoder.h"

namespace nd {

/// What steers an evaluation from outside.
struct UNetJoined {
  std::span<const AdapterMaps> adapters;
  /// Changes the skips (conv_in's output first) and the middle in place: ControlNets.
  std::function<void(std::span<const Tensor> skips, const Tensor& mid)> control;
  std::optional<FreeU> freeU;  // how the way up weighs backbone and skips; empty: as trained
  int64_t alike = 1;           // copies of the same x and time in the batch: see EncodeOptions
};

class UNet : public UNetEncoder {
 public:
  using Joined = UNetJoined;
  UNet(const UNetConfig& config, const WeightLoader& loader);

  Text prepareText(Context&, const Tensor& text) const;  // text [B, L, contextWidth]

  /// x [B, H, W, inChannels] → [B, H, W, outChannels]. Any H and W: odd maps are resized as their skips are.
  Tensor forward(Context&, const Tensor& x, const Time&, int64_t row, const Text&, const Probe* = nullptr,
                 const Joined& = {}) const;

 private:
  Conv2d convOut_;
  Norm normOut_;
  std::vector<Block> up_;
};

}  // namespace nd
