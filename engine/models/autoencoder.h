// What turns pictures into latents and back, whatever its architecture. Pictures are [B, H, W, channels] in
// about −1..1, latents [B, h, w, C], as the autoencoder has them: LatentScaling relates them to the step
// loop's.
#pragma once

#include <vector>

#include "engine/ops.h"

namespace nd {

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

class Autoencoder {
 public:
  virtual ~Autoencoder() = default;

  /// Whether values of its layers leave the range of float16 (SDXL's do): for whoever makes, feeds and reads
  /// it, see WideRange.
  bool wideRange = false;

  /// Picture pixels per latent pixel, along each side.
  virtual int64_t factor() const = 0;
  virtual int64_t latentChannels() const = 0;
  virtual int64_t inChannels() const = 0;   // of the pictures that it encodes
  virtual int64_t outChannels() const = 0;  // of those that it decodes
  /// Whether encode() gives a distribution to sample from, or the latents themselves.
  virtual bool posterior() const = 0;

  /// x [B, H, W, in] → [B, H/f, W/f, C], or where it is a posterior [B, H/f, W/f, 2C]: mean, log variance.
  virtual Tensor encode(Context&, const Tensor& x) const = 0;
  /// z [B, h, w, C] → [B, h·f, w·f, out].
  virtual Tensor decode(Context&, const Tensor& z) const = 0;
};

}  // namespace nd
