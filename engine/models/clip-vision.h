// CLIP's image tower (transformers CLIPVisionModel, CLIPVisionModelWithProjection; Radford et al. 2021):
//   picture → patches, projected; a class token before them; + positions → norm → layers [B, 1 + P, C];
//   the class token → norm → projection.
#pragma once

#include <optional>
#include <vector>

#include "engine/models/clip-layer.h"

namespace nd {

struct ClipVisionConfig {
  int64_t hiddenSize = 768, intermediateSize = 3072, channels = 3, imageSize = 224, patchSize = 32;
  int layers = 12, heads = 12;
  Activation activation = Activation::QuickGelu;
  float layerNormEps = 1e-5f;
  int64_t projectionDim = 0;  // 0: no projection
};

class ClipVision {
 public:
  ClipVision(const ClipVisionConfig& config, const WeightLoader& loader);

  struct Output {
    std::vector<Tensor> hiddenStates;  // layers + 1, each [B, 1 + P, C]; the first and the last one without
                                       // layers before and after it. The last has no norm
    Tensor pooled;                     // [B, C]: the class token after the final norm
    Tensor projected;                  // [B, projectionDim], empty without a projection
  };
  /// pixels: `batch` normalised pictures [channels, imageSize, imageSize] on the host.
  Output encode(Context&, const std::vector<float>& pixels, int64_t batch) const;
  const ClipVisionConfig& config() const { return config_; }

 private:
  Tensor embed(Context&, const std::vector<float>& pixels, int64_t batch) const;

  ClipVisionConfig config_;
  int64_t patches_;  // P
  Linear patch_;     // the convolution, whose stride is its kernel: a linear map of each patch
  WeightPtr classToken_, positions_;
  Norm normIn_, normOut_;
  std::vector<ClipLayer> layers_;
  std::optional<Linear> projection_;
};

}  // namespace nd
