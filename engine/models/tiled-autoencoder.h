// An autoencoder that works tile by tile, so that memory is bounded whatever the picture's size: diffusers'
// enable_vae_tiling. Every tile is normalised by itself, which makes results differ a little from the whole
// map's; overlapping tiles are blended, so that there are no seams.
#pragma once

#include "engine/models/autoencoder.h"

namespace nd {

struct VaeTiling {
  int64_t tile = 512;     // side of a tile in pixels, a multiple of the autoencoder's factor
  double overlap = 0.25;  // share of a tile that it shares with the next one
};

class TiledAutoencoder : public Autoencoder {
 public:
  TiledAutoencoder(const Autoencoder& inner, const VaeTiling& tiling);

  int64_t factor() const override { return inner_.factor(); }
  int64_t latentChannels() const override { return inner_.latentChannels(); }
  int64_t inChannels() const override { return inner_.inChannels(); }
  int64_t outChannels() const override { return inner_.outChannels(); }
  bool posterior() const override { return inner_.posterior(); }
  Tensor encode(Context&, const Tensor& x) const override;
  Tensor decode(Context&, const Tensor& z) const override;

 private:
  const Autoencoder& inner_;
  VaeTiling tiling_;
};

}  // namespace nd
